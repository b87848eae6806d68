"""A run that was stopped is resumed as it began, or not at all; a finished one is left alone."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from blip2vqa.config.sharding import ZERO3, Sharding
from blip2vqa.training import recipe
from blip2vqa.training.recipe import finetune
from blip2vqa.training.resume import checkpoint_to_resume, last_checkpoint
from blip2vqa.utils.errors import InputError
from helpers.finetune_runs import adapter_of, interrupt, make_run, parse_run, same_weights
from helpers.full_disk import full_disk


def test_resumed_run_ends_in_the_same_weights(finished, tiny_opt, drawn, tmp_path):
    out, _ = finished
    interrupt(make_run(tiny_opt, drawn, tmp_path / "run"))
    assert not (tmp_path / "run" / "metrics.json").exists()
    finetune(make_run(tiny_opt, drawn, tmp_path / "run", "--resume_from_checkpoint"))
    assert same_weights(adapter_of(out), adapter_of(tmp_path / "run"))
    assert curves(tmp_path / "run") == curves(out)


def curves(folder) -> list[tuple]:
    """Each entry of a run's history: its step, whether it has a loss (the mean since the last one, or since the run was
    resumed), and its validation scores."""
    history = json.loads((folder / "history.json").read_text())
    return [(entry["step"], "loss" in entry, entry.get("eval_loss"), entry.get("eval_accuracy")) for entry in history]


def test_resuming_without_a_checkpoint_is_an_error(tiny_opt, drawn, tmp_path):
    with pytest.raises(InputError, match="no checkpoint"):
        finetune(make_run(tiny_opt, drawn, tmp_path / "run", "--resume_from_checkpoint"))


def write_checkpoint(folder) -> None:
    """The files of a checkpoint, with nothing in them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trainer_state.json").write_text("{}")
    save_file({}, folder / "adapter_model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({}, folder / name)


def test_a_checkpoint_that_is_half_removed_is_none(tiny_opt, drawn, tmp_path):
    """As a kill leaves it that comes while a run removes the last one, and keeps the best."""
    names = ("trainer_state.json", "adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth")
    for step in (2, 4):
        write_checkpoint(tmp_path / "run" / "checkpoints" / f"checkpoint-{step}")
    run = make_run(tiny_opt, drawn, tmp_path / "run", "--resume_from_checkpoint")
    last = tmp_path / "run" / "checkpoints" / "checkpoint-4"
    assert checkpoint_to_resume(run, None) == str(last)
    for name in names:
        content = (last / name).read_bytes()
        (last / name).unlink()
        assert checkpoint_to_resume(run, None) == str(last.with_name("checkpoint-2"))
        (last / name).write_bytes(content)


def test_a_checkpoint_of_deepspeed_has_its_optimizer_elsewhere(tmp_path):
    checkpoint = tmp_path / "checkpoint-4"
    write_checkpoint(checkpoint)
    (checkpoint / "optimizer.pt").unlink()
    (checkpoint / "latest").write_text("global_step4")
    assert last_checkpoint(tmp_path) is None
    (checkpoint / "global_step4").mkdir()
    torch.save({}, checkpoint / "global_step4" / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    assert last_checkpoint(tmp_path) == checkpoint


def test_a_checkpoint_of_deepspeed_goes_on_in_the_same_launch_alone(finished, tiny_opt, drawn, tmp_path):
    checkpoint = max((finished[0] / "checkpoints").iterdir())
    copy = shutil.copytree(checkpoint, tmp_path / "run" / "checkpoints" / checkpoint.name)
    run = make_run(tiny_opt, drawn, tmp_path / "run", "--resume_from_checkpoint")
    run.training.deepspeed_plugin = plugin = SimpleNamespace()
    with pytest.raises(InputError, match="was saved without DeepSpeed; launch in the same way"):
        checkpoint_to_resume(run, None)
    (copy / "latest").write_text("global_step4")
    (copy / "global_step4").mkdir()
    for name in ("optim", "model"):
        (copy / "global_step4" / f"zero_pp_rank_0_mp_rank_00_{name}_states.pt").touch()
    run.training.sharding = Sharding(ZERO3)
    assert checkpoint_to_resume(run, None) == str(copy)
    for other in ((None, Sharding(None)), (plugin, Sharding(None))):
        run.training.deepspeed_plugin, run.training.sharding = other
        with pytest.raises(InputError, match="was saved by 1 processes with DeepSpeed's ZeRO-3; launch in the same"):
            checkpoint_to_resume(run, None)


@pytest.mark.parametrize("name", ["optimizer.pt", "rng_state.pth", "adapter_model.safetensors"])
def test_a_damaged_file_of_a_checkpoint_is_named(name, finished, tiny_opt, drawn, tmp_path):
    checkpoint = max((finished[0] / "checkpoints").iterdir())
    shutil.copytree(checkpoint, tmp_path / "run" / "checkpoints" / checkpoint.name)
    path = tmp_path / "run" / "checkpoints" / checkpoint.name / name
    run = make_run(tiny_opt, drawn, tmp_path / "run", "--resume_from_checkpoint")
    assert checkpoint_to_resume(run, None) == str(path.parent)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=rf"{name}: damaged \(.*; remove .*{checkpoint.name}, to go on"):
        checkpoint_to_resume(run, None)


def test_a_folder_with_another_run_is_refused_and_left_alone(finished, tiny_opt, drawn):
    out, _ = finished
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    with pytest.raises(InputError, match="holds a finished run"):
        finetune(make_run(tiny_opt, drawn, out))
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_a_finished_run_is_not_gone_on_with(finished, tiny_opt, drawn):
    out, _ = finished
    with pytest.raises(InputError, match="holds a finished run"):
        finetune(make_run(tiny_opt, drawn, out, "--resume_from_checkpoint", "--epochs", "5"))


def test_a_run_goes_on_as_it_began_or_not_at_all(tiny_opt, drawn, tmp_path):
    out = tmp_path / "run"
    interrupt(make_run(tiny_opt, drawn, out))
    with pytest.raises(InputError, match="stopped on its way"):
        finetune(make_run(tiny_opt, drawn, out))
    before = (out / "run.json").read_text()
    with pytest.raises(InputError) as caught:
        finetune(make_run(tiny_opt, drawn, out, "--resume_from_checkpoint", "--lora_alpha", "8", "--seed", "7"))
    assert "--lora_alpha: the run in" in str(caught.value) and "--seed" in str(caught.value)
    assert (out / "run.json").read_text() == before
    finetune(make_run(tiny_opt, drawn, out, "--resume_from_checkpoint", "--logging_steps", "3"))
    # What a resumed run leaves behind repeats the whole run, from nothing.
    finetune(parse_run(str(out / "run.json"), "--output_dir", str(tmp_path / "again")))
    assert same_weights(adapter_of(out), adapter_of(tmp_path / "again"))


def test_a_run_that_an_earlier_version_began_is_resumed(finished, tiny_opt, drawn, tmp_path):
    """Version 0.1.0 wrote taught.json, and an option that has come since is not in its run.json."""
    out, same = tmp_path / "run", ("--label_smoothing_factor", "0.1")
    interrupt(make_run(tiny_opt, drawn, out, *same))
    (out / "training_data.json").rename(out / "taught.json")
    begun = json.loads((out / "run.json").read_text())
    absent = {"answers", "start_from", "tokens_per_row", "use_dora", "captions"}
    (out / "run.json").write_text(json.dumps({name: value for name, value in begun.items() if name not in absent}))

    def refusal(*flags: str, table=drawn[1]) -> list[str]:
        with pytest.raises(InputError) as caught:
            finetune(make_run(tiny_opt, (drawn[0], table), out, *same, *flags, "--resume_from_checkpoint"))
        return caught.value.problems

    dora, rows = refusal("--use_dora", "true", "--tokens_per_row", "100")
    assert dora == f"--tokens_per_row: the run in {out} was begun with 512, not 100"
    assert rows == f"--use_dora: the run in {out} was begun with False, not True"
    (smoothing,) = refusal("--label_smoothing_factor", "0.2")
    assert smoothing.startswith("--label_smoothing_factor: ")
    other = tmp_path / "other.csv"
    other.write_text(drawn[1].read_text().replace(",yes", ",no"))
    path, answers = refusal(table=other)
    assert path.startswith("--csv_path: ") and "questions, answers, or the list of answers, are not those" in answers
    finetune(make_run(tiny_opt, drawn, out, *same, "--resume_from_checkpoint"))
    assert (out / "training_data.json").read_text() == (out / "taught.json").read_text()


@pytest.mark.parametrize(
    "damaged", ["run.json", "split.json", "training_data.json", "checkpoints/checkpoint-12/trainer_state.json"]
)
@pytest.mark.parametrize("content", ['{"a": [', "[]", "[" * 10_000, "\xff"])
def test_a_damaged_file_of_a_stopped_run_is_named(damaged, content, tiny_opt, drawn, tmp_path):
    run = make_run(tiny_opt, drawn, tmp_path / "run", "--resume_from_checkpoint")
    state = tmp_path / "run" / "checkpoints" / "checkpoint-12" / "trainer_state.json"
    copy = state.parent.with_name("checkpoint-12 (copy)") / state.name
    for path in (state, copy, tmp_path / "run" / damaged):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(run.resolved) if path.name == "run.json" else "{}")
    write_checkpoint(state.parent)
    assert checkpoint_to_resume(run, None) == str(state.parent)
    (tmp_path / "run" / damaged).write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=f"{damaged}: .*begin anew"):
        checkpoint_to_resume(run, None)


def test_a_run_stopped_while_its_results_are_written_goes_on(tiny_opt, drawn, tmp_path, monkeypatch):
    write = recipe.write_results

    def stop(*args):
        raise KeyboardInterrupt

    for out, saves in ((tmp_path / "saved", ()), (tmp_path / "unsaved", ("--save_strategy", "no"))):
        monkeypatch.setattr(recipe, "write_results", stop)
        with pytest.raises(KeyboardInterrupt):
            finetune(make_run(tiny_opt, drawn, out, "--max_steps", "3", *saves))
        before = adapter_of(out)
        with pytest.raises(InputError, match="stopped on its way"):
            finetune(make_run(tiny_opt, drawn, out, "--max_steps", "3", *saves, "--seed", "7"))
        monkeypatch.setattr(recipe, "write_results", write)
        finetune(make_run(tiny_opt, drawn, out, "--max_steps", "3", *saves))
        assert (out / "metrics.json").exists() and same_weights(before, adapter_of(out))


def test_a_full_disk_names_the_checkpoint(tiny_opt, drawn, tmp_path):
    run = make_run(tiny_opt, drawn, tmp_path / "run", "--max_steps", "3")
    with full_disk(20_000), pytest.raises(OSError, match="File too large") as caught:
        finetune(run)
    assert caught.value.filename == str(tmp_path / "run" / "checkpoints")
