"""The benchmarks as a user runs them, at tiny sizes: every figure is there, and ours is exact."""

import json

import pytest

from helpers.launching import run_script

SHAPES = ("tiny", "tiny-t5")
POSITIVE = (
    "reference_seconds_per_question", "seconds_per_question", "gemm_floor_seconds_per_question", "speedup", "floor_ratio",
    "encode_seconds_per_image", "memory_ratio", "threads", "trainable_parameters",
)  # fmt: skip


SMALL = ["--images", "2", "--questions_per_image", "3", "--repeats", "2", "--profile"]
COMMANDS = {
    **{("training", shape): ["--shape", shape, *SMALL] for shape in SHAPES},
    **{("inference", shape): ["--shape", shape, *SMALL, "--batch_size", "4"] for shape in SHAPES},
    ("encoding", "tiny"): ["--shape", "tiny", "--repeats", "1"],
    ("scaling", "rows"): ["--rows", "200", "2000"],
    ("exchange", "small"): ["--layers", "1", "--only", "open", "merge"],
    ("many_adapters", "tiny"): ["--shape", "tiny", "--adapters", "20", "--memory_gb", "0.0003"],
    ("abo_catalogue", "small"): ["--listings", "500", "--images", "1000", "--repeats", "1"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[tuple[str, str], tuple[dict, str]]:
    """Key of `COMMANDS` → (the JSON file's content, what was printed)."""
    folder = tmp_path_factory.mktemp("benchmarks")
    ended = {}
    for (script, kind), options in COMMANDS.items():
        output = folder / f"{script}-{kind}"
        done = run_script(f"benchmarks/{script}.py", *options, "--output", output, CUDA_VISIBLE_DEVICES="")
        assert done.returncode == 0, done.stderr
        ended[script, kind] = json.loads(output.read_text()), done.stdout
    return ended


@pytest.fixture(params=SHAPES)
def result(request, runs) -> dict:
    return runs["training", request.param][0]


@pytest.fixture(params=SHAPES)
def answered(request, runs) -> dict:
    return runs["inference", request.param][0]


@pytest.fixture
def scaled(runs) -> dict:
    return runs["scaling", "rows"][0]


def test_training_reports_every_figure(result):
    for name in POSITIVE:
        assert result[name] > 0, name
    assert result["questions"] == 6 and result["questions_per_image"] == 3
    assert result["dtype"] == "bfloat16" and result["shape"] in SHAPES
    assert set(result["peak_memory_bytes"]) == {"reference", "ours"}
    assert min(result["peak_memory_bytes"].values()) > 1e6
    assert {"cpu", "cores", "device"} <= set(result["machine"])
    assert {"python", "torch", "transformers", "peft"} == set(result["versions"])
    assert result["command"].startswith("python benchmarks/training.py --shape tiny")
    assert result["date"].startswith("20")


def test_training_computes_its_ratios_from_its_times(result):
    ours, memory = result["seconds_per_question"], result["peak_memory_bytes"]
    assert result["speedup"] == pytest.approx(result["reference_seconds_per_question"] / ours)
    assert result["floor_ratio"] == pytest.approx(ours / result["gemm_floor_seconds_per_question"])
    assert result["floor_ratio"] > 1  # the step does all that the floor does, and more
    assert result["memory_ratio"] == pytest.approx(memory["ours"] / memory["reference"])


def test_our_training_step_has_the_gradients_of_the_plain_one(result):
    assert result["gradient_difference"] < 1e-5
    assert result["loss_difference"] < 1e-5


def test_training_prints_a_table_and_the_profile(runs):
    for result, printed in (runs["training", shape] for shape in SHAPES):
        assert f"{result['shape']}, 2 images × 3 questions" in printed
        assert f"{result['speedup']:.2f} ×" in printed
        assert "aten::mm" in printed and "Self CPU" in printed


def test_inference_reports_every_figure(answered):
    for name in (
        "seed_seconds_per_question", "reference_seconds_per_question", "first_seconds_per_question",
        "seconds_per_question", "speedup_first", "speedup", "speedup_seed_first", "speedup_seed", "memory_ratio",
    ):  # fmt: skip
        assert answered[name] > 0, name
    assert answered["questions"] == 6 and answered["batch_size"] == 4 and answered["seed_questions"] == 2
    assert set(answered["peak_memory_bytes"]) == {"reference", "ours"}
    assert min(answered["peak_memory_bytes"].values()) > 1e6
    assert {"machine", "threads", "versions", "date"} <= set(answered)
    assert 0 <= answered["same_answers_share"] <= 1


def test_inference_computes_its_ratios_from_its_times(answered):
    seed, reference = answered["seed_seconds_per_question"], answered["reference_seconds_per_question"]
    first, ours = answered["first_seconds_per_question"], answered["seconds_per_question"]
    assert answered["speedup_first"] == pytest.approx(reference / first)
    assert answered["speedup"] == pytest.approx(reference / ours)
    assert answered["speedup_seed_first"] == pytest.approx(seed / first)
    assert answered["speedup_seed"] == pytest.approx(seed / ours)
    memory = answered["peak_memory_bytes"]
    assert answered["memory_ratio"] == pytest.approx(memory["ours"] / memory["reference"])


def test_our_answers_are_those_of_plain_generation(answered):
    assert answered["answers_equal"] is True
    assert answered["answers_same"] == answered["answers_compared"] == 6
    assert answered["answers_distinct"] > 2  # not one answer to all


def test_inference_prints_a_table_and_the_profile(runs):
    for result, printed in (runs["inference", shape] for shape in SHAPES):
        assert f"{result['shape']}, 2 images × 3 questions" in printed
        assert f"{result['speedup_first']:.2f} ×" in printed and f"{result['speedup_seed']:.2f} ×" in printed
        assert "6 of 6 answers as plain" in printed
        assert "aten::" in printed and "Self CPU" in printed


def test_encoding_is_compared_with_the_plain_way_and_the_matrix_products(runs):
    found, printed = runs["encoding", "tiny"]
    plain, ours, floor = (found[f"{name}_seconds_per_image"] for name in ("plain", "ours", "floor"))
    assert min(plain, ours, floor) > 0 and "above the matrix products" in printed
    assert found["gap_closed"] == pytest.approx(1 - (ours - floor) / (plain - floor))
    assert found["largest_difference"] < 0.02


def test_scaling_reports_every_step_of_every_size(scaled):
    assert [size["rows"] for size in scaled["sizes"]] == [200, 2000]
    assert [size["images"] for size in scaled["sizes"]] == [20, 200]
    for size in scaled["sizes"]:
        assert list(size["steps"]) == ["read", "check", "split", "lengths", "store", "look_up", "order", "collate"]
        assert size["image_bytes"] > 1000 * size["images"] and size["feature_bytes"] > 2048 * size["images"]
        for step in size["steps"].values():
            assert step["seconds"] > 0 and step["peak_bytes"] >= 0 and 0 < step["rows"] <= size["rows"]
            assert step["seconds_per_row"] == pytest.approx(step["seconds"] / step["rows"])
            assert step["peak_bytes_per_row"] == pytest.approx(step["peak_bytes"] / step["rows"])
    assert scaled["sizes"][1]["steps"]["read"]["peak_bytes"] > 0
    assert {"machine", "threads", "versions", "date"} <= set(scaled)


def test_scaling_judges_a_row_at_the_largest_size_against_the_smaller_ones(scaled, runs):
    small, large = (size["steps"]["collate"] for size in scaled["sizes"])
    verdict = scaled["verdicts"]["collate"]
    for name, least in (("seconds", scaled["moment_seconds"]), ("peak_bytes", scaled["noise_bytes"])):
        expected = max(large[name], least) / large["rows"] / (max(small[name], least) / small["rows"])
        assert verdict[f"{name}_ratio"] == pytest.approx(expected)
    for name, verdict in scaled["verdicts"].items():
        assert verdict["flat"] == (max(verdict["seconds_ratio"], verdict["peak_bytes_ratio"]) <= 2)
        assert f"  {name} " in runs["scaling", "rows"][1]


def test_exchange_reports_time_and_memory_of_each_operation(runs):
    found, printed = runs["exchange", "small"]
    assert list(found["operations"]) == ["open", "merge"] and found["modules"] == 6
    for row in found["operations"].values():
        assert row["seconds"] > 0 and row["peak_bytes"] > 1e6
    assert "peak memory" in printed


def test_many_adapters_stay_within_their_limit(runs):
    found, _ = runs["many_adapters", "tiny"]
    assert found["adapters"] == 20 > found["adapters_that_fit"] >= found["adapters_per_batch"]
    assert 0 < found["held_bytes"] <= found["memory_gb"] * 1e9
    assert all(rate > 0 for rate in found["questions_per_second"].values())
