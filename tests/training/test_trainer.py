"""Trainer's arguments, the order of the questions, and when the validation questions are answered."""

import json
from dataclasses import replace

import pytest
import torch
from transformers import TrainerState

from blip2vqa.evaluation.metrics import METRICS
from blip2vqa.inference.request import AnswerRequest
from blip2vqa.models.loading import load_base
from blip2vqa.training.data import RunData
from blip2vqa.training.recipe import finetune
from blip2vqa.training.trainer import RowSampler, TrainingLines, TrainingProgress, make_batches, trainer_arguments
from helpers.finetune_runs import make_run


def test_trainer_gets_arguments_of_its_own(tiny_opt, drawn, tmp_path):
    flags = ("--push_to_hub", "true", "--hub_token", "secret", "--hub_model_id", "me/mine")
    run = make_run(tiny_opt, drawn, tmp_path / "run", *flags)
    before = dict(vars(run.training))
    args = trainer_arguments(run, torch.float16)
    assert vars(run.training) == before and run.push_to == "me/mine" and run.folder == tmp_path / "run"
    assert args.output_dir == str(tmp_path / "run" / "checkpoints")
    assert (args.push_to_hub, args.hub_token, args.fp16, args.mixed_precision) == (False, None, True, "fp16")
    assert args.dataloader_pin_memory is False


def test_captions_choose_the_best_epoch_by_their_own_score(tiny_opt, drawn, tmp_path):
    found = {}
    for given in ("accuracy", "cider", "eval_loss", "loss"):
        run = make_run(tiny_opt, drawn, tmp_path / "run", "--task", "caption", "--metric_for_best_model", given)
        args = trainer_arguments(run, torch.float32)
        found[given] = args.metric_for_best_model, args.greater_is_better
    cider, loss = ("cider", True), ("loss", False)
    assert found == {"accuracy": cider, "cider": cider, "eval_loss": loss, "loss": loss}


def test_the_metric_itself_says_which_way_is_better(tiny_opt, drawn, tmp_path, monkeypatch):
    """Not Trainer, which guesses it from the name's end."""
    monkeypatch.setitem(METRICS, "anls", replace(METRICS["anls"], higher_is_better=False))
    run = make_run(tiny_opt, drawn, tmp_path / "run", "--metric_for_best_model", "anls")
    assert trainer_arguments(run, torch.float32).greater_is_better is False


def test_the_validation_questions_are_not_asked_again_of_the_same_adapter(tiny_opt, drawn, tmp_path, monkeypatch):
    from blip2vqa.training import recipe

    answer, asked = recipe.answer_examples, []
    monkeypatch.setattr(
        recipe, "answer_examples",
        lambda *args, progress=None, **kwargs: asked.append(progress) or answer(*args, progress=progress, **kwargs),
    )  # fmt: skip
    shown = ("--disable_tqdm", "false", "--epochs", "1")
    metrics = finetune(make_run(tiny_opt, drawn, tmp_path / "evaluated", *shown))
    assert asked == ["base model", "validation", "swapped images"]
    asked.clear()
    never = ("--eval_strategy", "no", "--save_strategy", "no")
    assert finetune(make_run(tiny_opt, drawn, tmp_path / "not", *shown, *never)) == metrics
    assert asked == ["base model", "adapter", "swapped images"]


def test_lines_of_the_log_leave_out_the_scores_by_type(capsys):
    state, logs = TrainerState(), {"eval_accuracy": 0.5, "eval_accuracy_color": 0.25, "eval_accuracy_yes/no": 1.0}
    TrainingLines().on_log(None, state, None, logs)
    with_bar = TrainingProgress()
    with_bar.on_train_begin(None, state, None)
    with_bar.on_log(None, state, None, logs)
    assert capsys.readouterr().out.splitlines() == ["{'eval_accuracy': '0.5'}"] * 2 and len(logs) == 3


def test_early_stopping(tiny_opt, drawn, tmp_path):
    out = tmp_path / "run"
    finetune(
        make_run(tiny_opt, drawn, out, "--early_stopping_patience", "2", "--epochs", "9", "--learning_rate", "1e-12")
    )
    histories = [json.loads(path.read_text())["log_history"] for path in out.glob("checkpoints/*/trainer_state.json")]
    assert all(max(entry["epoch"] for entry in history) <= 3 for history in histories)


@pytest.mark.parametrize("strategy", ["no", "steps"])
def test_other_evaluation_strategies_need_no_second_flag(strategy, tiny_opt, drawn, tmp_path):
    metrics = finetune(make_run(tiny_opt, drawn, tmp_path / "run", "--eval_strategy", strategy, "--eval_steps", "4"))
    assert metrics["adapter"]["n"] == 6


def test_rows_of_like_length_come_together():
    lengths = [1 + (7 * number) % 50 for number in range(400)]
    sampler = RowSampler(range(400), seed=0, lengths=lengths, window=100)
    orders = []
    for epoch in range(3):
        sampler.epoch = epoch
        order = list(sampler)
        assert sorted(order) == list(range(400))
        for start in range(0, 400, 100):
            window = [lengths[index] for index in order[start : start + 100]]
            assert window == sorted(window, reverse=True)
        orders.append(tuple(order))
    assert len(set(orders)) == 3
    # Rows of several questions count by all their tokens, and stay together.
    sampler = RowSampler([number // 4 for number in range(400)], seed=0, lengths=lengths, window=100)
    order = list(sampler)
    assert sorted(order) == list(range(400))
    images = [index // 4 for index in order]
    assert all(len(set(images[start : start + 4])) == 1 for start in range(0, 400, 4))


def test_grouping_by_length_is_trainers_own_flag(tiny_t5, drawn, tmp_path):
    few = ("--max_steps", "3", "--eval_strategy", "steps", "--eval_steps", "3", "--batch_size", "8")
    run = make_run(tiny_t5, drawn, tmp_path / "run", *few, "--train_sampling_strategy", "group_by_length")
    finetune(run)
    assert (tmp_path / "run" / "adapter_model.safetensors").is_file()


def test_one_question_an_image_has_a_row_of_its_own(tiny_opt, drawn, tmp_path, capsys):
    from blip2vqa.data.examples import load_examples

    examples, _ = load_examples(drawn[1], drawn[0], progress=False)
    run = make_run(tiny_opt, drawn, tmp_path / "run")
    loaded = load_base(str(tiny_opt), dtype="float32", quantization="none", device=torch.device("cpu"))
    text = loaded.family.text_encoder(loaded.processor, loaded.base.config, "{question}")
    for asked, expected in ((examples, 512), (examples[::3], None)):
        *_, collator = make_batches(RunData(None, asked, AnswerRequest(text)), None, run.training)
        assert collator.tokens_per_row == expected
