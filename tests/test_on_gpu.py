"""`benchmarks/on_gpu.py` on a CPU: its comparisons compute, a kill loses nothing that was done, and it ends in time."""

import copy
import gc
import json
import os
import signal
import subprocess
import sys
import time
import weakref
from argparse import Namespace
from collections import Counter
from dataclasses import replace
from functools import partial
from types import ModuleType

import pytest
import torch

import shapes
from benchmarks import on_gpu
from gpu_parts import fast, plan, report, right, right_runs, where, worker
from gpu_parts.context import Context, NoTime, Skipped
from gpu_parts.plan import Part
from helpers.launching import run_script, start_script
from helpers.paths import ROOT

STEPS = (
    "blip2-opt", "vilt", "dropout", "row lengths", "adapters", "run in 4bit", "training", "answering",
)  # fmt: skip
KEY = {"card": "one", "torch": "2"}


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """A run that was killed behind its first steps and started again: (folder, what was done before, exit code, output)."""
    folder = tmp_path_factory.mktemp("on_gpu")
    argv = ["benchmarks/on_gpu.py", "--shape", "tiny", "--minutes", "20", "--output", folder / "out"]
    argv += ["--steps", *STEPS]
    killed = start_script([folder / "stdout", folder / "stderr"], *argv)
    first = folder / "out" / "parts" / "right.json"
    while killed.is_alive() and not (first.exists() and json.loads(first.read_text())["steps"]):
        time.sleep(0.05)
    os.kill(killed.pid, signal.SIGKILL)
    killed.join()
    before = json.loads(first.read_text())["steps"]
    done = run_script(*argv, timeout=900)
    return folder / "out", before, done


@pytest.fixture(scope="module")
def summary(ended) -> dict:
    return json.loads((ended[0] / "summary.json").read_text())


def test_all_steps_are_done_and_right(ended, summary):
    assert ended[2].returncode == 0, ended[2].stdout + ended[2].stderr
    assert summary["right"] is True and summary["left"] == {} and summary["wrong"] == []
    assert {step for steps in summary["parts"].values() for step in steps} == set(STEPS)
    assert set(summary["parts"]) == {"right", "right-runs", "fast-tiny", "where-tiny"}
    assert summary["card"]["torch"] == torch.__version__ and "CPU" in summary["card"]["name"]


def test_what_was_done_before_a_kill_is_kept(ended, summary):
    _, before, _ = ended
    assert before
    for name, outcome in before.items():
        assert summary["parts"]["right"][name] == outcome  # its seconds, too


def test_every_precision_is_compared_and_nothing_for_show(summary):
    checks = {check["name"]: check for check in summary["parts"]["right"]["blip2-opt"]["result"]}
    for dtype in right.TYPES:
        for what in ("loss beside the CPU's float32", "gradients fused LoRA beside PEFT's", "confidences, listed"):
            assert checks[f"{dtype}: {what}"]["right"] is True
    assert checks["float32: gradients beside the CPU's float32"]["value"] == 0  # the same CPU
    assert 0 < checks["bfloat16: gradients beside the CPU's float32"]["value"] < 0.2
    assert 0 < checks["float16: gradients beside the CPU's float32"]["value"] < 0.06
    assert 0 < checks["float32: gradients shared rows beside one a question"]["value"] < 1e-3


def test_speed_is_measured_beside_the_plain_way(summary):
    for what, found in ((what, outcome["result"]) for what, outcome in summary["parts"]["fast-tiny"].items()):
        plain, ours = found["plain"], found["ours"]
        for way in (plain, ours):
            assert (
                way["best"]["questions_per_second"] >= max(one["questions_per_second"] for one in way["tried"]) / 1.02
            )
            assert len(way["tried"]) >= 2 and way["peak_bytes"] > 1e6
        assert found["speedup"] == pytest.approx(
            ours["best"]["questions_per_second"] / plain["best"]["questions_per_second"]
        )
        assert 0 < ours["share_of_matmul"] and found["matmul_tflops"] > 0
        assert ("estimate" in found) == (what == "training")
    found = summary["parts"]["fast-tiny"]["training"]["result"]
    assert found["floor_seconds"] > 0 and found["estimate"]["tensors_bytes"] > found["weights_bytes"] / 2


def test_the_profile_says_where_the_time_goes(ended, summary):
    for what, outcome in summary["parts"]["where-tiny"].items():
        found = outcome["result"]
        assert sum(kernel["share"] for kernel in found["kernels"]) == pytest.approx(1, abs=0.2)
        assert 0 <= found["idle_share"] < 1 and found["longest_gaps"] and found["launches"] > 100
        assert "aten::" in (ended[0] / f"where-{what}.txt").read_text()
        assert (ended[0] / found["trace"]).stat().st_size < where.TRACE_BYTES


def test_the_table_says_figures_bounds_and_aims(ended):
    folder, _, done = ended
    assert "ok       right: blip2-opt: " in done.stdout and "(at most 0.2)" in done.stdout
    assert "(aim 6 ×)" in done.stdout and "(aim 45%)" in done.stdout
    page = (folder / "summary.md").read_text()
    assert "| right: blip2-opt | float16: loss beside the CPU's float32 |" in page and "≤ 0.002 | holds |" in page
    assert f"- torch: {torch.__version__}" in page


def test_nothing_of_another_card_or_code_is_kept(tmp_path, monkeypatch):
    module = ModuleType("gpu_parts.counting")
    module.STEPS = {"one": lambda context: [right.Check("a", 1.0, 2.0).row()]}
    monkeypatch.setitem(sys.modules, module.__name__, module)
    part = Part("counting", "right", "counting")
    seconds = [
        [done.outcome["seconds"] for done in plan.run([part], tmp_path, key, time.time() + 60)]
        for key in (KEY, KEY, KEY | {"card": "another"})
    ]
    assert seconds[0] == seconds[1] != seconds[2]


def test_a_step_that_hangs_crashes_or_does_not_fit_costs_itself_alone(tmp_path, monkeypatch):
    def skip(context: Context):
        raise Skipped("its weights take 14 GiB")

    def fail(context: Context):
        raise ValueError("no kernel")

    module = ModuleType("gpu_parts.odd")
    module.STEPS = {
        "hangs": lambda context: time.sleep(60), "crashes": lambda context: os._exit(9), "skips": skip, "fails": fail,
        "wrong": lambda context: [right.Check("a", float("nan"), 2.0).row()],
        "works": lambda context: [right.Check("a", 1.0, 2.0).row()],
    }  # fmt: skip
    monkeypatch.setitem(sys.modules, module.__name__, module)
    part = Part("odd", "right", "odd", most=1.0)
    done = {one.step: one for one in plan.run([part], tmp_path, KEY, time.time() + 60)}
    said = {name: report.lines(one)[0] for name, one in done.items()}
    assert said["hangs"] == "FAILED   odd: hangs: took longer than 1 s"
    assert said["crashes"].startswith("FAILED   odd: crashes: its process ended with exit code 9")
    assert said["skips"] == "skipped  odd: skips: its weights take 14 GiB"
    assert said["fails"] == "FAILED   odd: fails: ValueError: no kernel"
    assert said["wrong"].startswith("WRONG    odd: wrong: 0 of 1 hold") and said["works"].startswith("ok ")
    assert "no kernel" in (tmp_path / "parts" / "odd.log").read_text()
    assert not (tmp_path / "parts" / "odd.scratch").exists()


def test_what_a_step_holds_in_circles_is_free_behind_it(tmp_path):
    held = []

    def hold(context: Context, error: type[Exception] | None):
        layer = torch.nn.Linear(2, 2)
        layer.forward = layer.__call__  # as a fused layer does, it holds what holds it
        held.append(weakref.ref(layer))
        if error:
            raise error("no room")
        return []

    gc.disable()
    try:
        for error in (None, Skipped, ValueError):
            worker.take(partial(hold, error=error), Context(tmp_path, tmp_path, 1.0))
            assert held[-1]() is None
    finally:
        gc.enable()


def test_what_cannot_be_compiled_is_skipped_and_what_is_compiled_wrong_fails(tmp_path, monkeypatch):
    context = Context(tmp_path, tmp_path, 60.0)

    def failing(message: str):
        def compiled(*args, **kwargs):
            raise RuntimeError(message)

        return lambda model, backend: compiled

    monkeypatch.setattr(torch, "compile", failing("Failed to find C compiler. Please specify via CC"))
    with pytest.raises(Skipped, match="could not be compiled: Failed to find C compiler"):
        right_runs.check_compile(context)
    monkeypatch.setattr(torch, "compile", failing("missing lowering"))
    assert [check["right"] for check in right_runs.check_compile(context)] == [False]
    module = ModuleType("gpu_parts.compiling")
    module.STEPS = {"compile": lambda context: time.sleep(60)}
    monkeypatch.setitem(sys.modules, module.__name__, module)
    part = Part("compiling", "right", "compiling", most=0.3, late="could not be compiled")
    (done,) = plan.run([part], tmp_path, KEY, time.time() + 60)
    assert report.lines(done) == ["skipped  compiling: compile: could not be compiled: took longer than 0 s"]


def test_a_wait_is_counted_once_and_those_of_measuring_are_not():
    calls = Counter({"aten::_local_scalar_dense": 3, "cudaStreamSynchronize": 3, "cudaDeviceSynchronize": 3})
    own = Counter({"cudaDeviceSynchronize": 3})
    assert where.waits(calls, own, torch.device("cuda")) == {"cudaStreamSynchronize": 3}
    assert where.waits(calls, Counter(), torch.device("cpu")) == {"aten::_local_scalar_dense": 3}


def test_it_ends_within_its_time_and_goes_on_later(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "SHORTEST", 0.0)
    module = ModuleType("gpu_parts.slow")
    module.STEPS = {"first": lambda context: [], "second": lambda context: time.sleep(1.5)}
    monkeypatch.setitem(sys.modules, module.__name__, module)
    began, part = time.time(), Part("slow", "right", "slow")
    assert [one.step for one in plan.run([part], tmp_path, KEY, began + 1)] == ["first"]
    assert time.time() - began < 3
    assert plan.left(tmp_path / "parts" / "slow.json") == ["second"]
    assert [one.step for one in plan.run([part], tmp_path, KEY, time.time() + 60)] == ["first", "second"]


def test_a_step_without_time_is_left_and_taken_later(tmp_path, monkeypatch):
    def run(context: Context):
        if context.hurried:
            raise NoTime
        return []

    module = ModuleType("gpu_parts.hurried")
    module.STEPS = {"first": lambda context: [], "second": run, "third": lambda context: []}
    monkeypatch.setitem(sys.modules, module.__name__, module)
    part, path = Part("hurried", "right", "hurried", most=30), tmp_path / "parts" / "hurried.json"
    assert [one.step for one in plan.run([part], tmp_path, KEY, time.time() + 25)] == ["first"]
    assert plan.left(path) == ["second", "third"]
    assert len(list(plan.run([part], tmp_path, KEY, time.time() + 60))) == 3 and plan.left(path) == []


def test_a_search_ends_where_memory_does_and_says_so(monkeypatch):
    sizes = []

    def take(images: int) -> None:
        sizes.append(images)
        if images == 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(fast, "MOST_IMAGES", {})
    found = fast.best_batch(take, lambda: time.sleep(0.001), torch.device("cpu"), time.monotonic() + 60)
    assert found["ended"] == "out of memory" and sizes == [1, 2, 4] and found["best"]["questions"] == 8
    with pytest.raises(RuntimeError, match="no kernel"):
        fast.attempt(lambda: torch.ones(2).sum() and (_ for _ in ()).throw(RuntimeError("no kernel")))


def test_a_search_measures_one_size_in_any_case_and_no_larger_one_than_there_is_time_for(monkeypatch):
    monkeypatch.setattr(fast, "MOST_IMAGES", {})
    device, ready = torch.device("cpu"), lambda images: None
    late = fast.best_batch(ready, lambda: time.sleep(0.001), device, time.monotonic() - 1)
    assert late["ended"] == "time" and [one["questions"] for one in late["tried"]] == [4]
    slow = fast.best_batch(ready, lambda: time.sleep(0.05), device, time.monotonic() + 0.3)
    assert slow["ended"] == "time" and len(slow["tried"]) == 1  # 0.2 s, and the next would take 0.4 s
    short = Context(ROOT, ROOT, 1.0, hurried=True)
    with pytest.raises(NoTime):
        fast.worth(late, short)
    fast.worth(late, replace(short, hurried=False))
    with pytest.raises(Skipped, match="out of memory"):
        fast.worth({"best": None, "tried": [], "ended": "out of memory"}, short)


def test_an_error_at_a_larger_size_ends_the_search_alone(monkeypatch):
    def take(images: int) -> None:
        if images == failing:
            raise RuntimeError("index out of range of 32 bits")

    monkeypatch.setattr(fast, "MOST_IMAGES", {})
    search = take, lambda: time.sleep(0.001), torch.device("cpu"), time.monotonic() + 60
    failing = 2
    found = fast.best_batch(*search)
    assert found["best"]["questions"] == 4 and found["ended"] == "RuntimeError: index out of range of 32 bits"
    failing = 1
    with pytest.raises(RuntimeError, match="32 bits"):
        fast.best_batch(*search)


def test_wrong_gradients_answers_and_features_are_found():
    seen = Namespace(
        features=torch.ones(4), loss=2.0, gradients=torch.ones(8), one_row=(2.0, torch.ones(8)), peft=(2.0, torch.ones(8)),
        answers={"listed": [("red", 0.5), ("blue", 0.25)]},
    )  # fmt: skip
    assert all(check.row()["right"] for check in right.compare("float32", seen, seen))
    changes = {
        "features": torch.full((4,), 1.001), "loss": 2.001, "gradients": torch.full((8,), float("nan")),
        "one_row": (2.0, torch.full((8,), 1.1)), "peft": (2.1, torch.ones(8)),
        "answers": {"listed": [("red", 0.5), ("green", 0.25)]},
    }  # fmt: skip
    for name, value in changes.items():
        other = copy.copy(seen)
        setattr(other, name, value)
        assert not all(check.row()["right"] for check in right.compare("float32", other, seen)), name


def test_the_process_that_runs_the_others_does_not_hold_the_card():
    code = "import sys, benchmarks.on_gpu; sys.exit('torch' in sys.modules)"
    path = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
    assert subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}).returncode == 0


def test_the_shapes_that_the_command_knows_exist():
    assert set(plan.SHAPES) <= set(shapes.SHAPES)


def test_the_names_of_steps_are_those_of_the_modules_and_another_is_refused(tmp_path, capsys):
    assert tuple(right.STEPS) == plan.FAMILIES
    assert tuple(right_runs.STEPS) == plan.RUNS + plan.COMPILE
    assert tuple(fast.steps("tiny")) == tuple(where.steps("tiny")) == plan.BOTH
    assert on_gpu.main(["--output", str(tmp_path / "out"), "--steps", "vilt", "row length"]) == 2
    said = capsys.readouterr().err
    assert (
        said.startswith("on_gpu.py: --steps: there is no 'row length'; there are blip2-opt, ") and said.count("\n") == 1
    )
    assert not (tmp_path / "out").exists()


def test_nothing_is_wrong_is_said_of_what_was_compared_alone(tmp_path):
    card = dict.fromkeys(("name", "driver", "torch", "cuda", "hip", "capability", "bfloat16", "memory_bytes"))
    (tmp_path / "parts").mkdir()
    first, second = Part("first", "right", "right", only=("a",)), Part("second", "right", "right", only=("b", "c"))
    (tmp_path / "parts" / "first.json").write_text(json.dumps({"planned": ["a"], "steps": {"a": {}}}))

    def said(planned: list[Part], *checks: right.Check) -> tuple[int, str]:
        done = [plan.Done(first, "a", {"result": [check.row() for check in checks]})]
        made = {"version": "1", "code": "2"}
        return report.verdict(report.summarize(card, made, planned, done, tmp_path, 1.0, "on_gpu.py"))

    holds, wrong, unjudged = right.Check("a", 1.0, 2.0), right.Check("b", 3.0, 2.0), right.Check("c", 1.0)
    assert said([first], holds, unjudged) == (0, "nothing is wrong")
    assert said([first, second], holds) == (3, "2 steps of right left")
    assert said([first], unjudged) == (3, "nothing was compared")
    assert said([first, second], holds, wrong) == (1, "2 lines say what is wrong")
