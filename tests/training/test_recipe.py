"""Fine-tuning in this process: it sees the picture, repeats itself, resumes, refuses what would be lost."""

import json

import pytest
import torch

from blip2vqa.config.common import INITIALISATIONS
from blip2vqa.config.finetune import FINETUNE_ARGUMENTS
from blip2vqa.config.parser import parse
from blip2vqa.training.recipe import finetune
from blip2vqa.training.run import Run
from blip2vqa.utils.errors import InputError
from helpers.finetune_runs import adapter_of, make_run, same_weights


@pytest.fixture(scope="module")
def finished(tiny_opt, drawn, tmp_path_factory):
    """A finished run on the random OPT base, and its metrics."""
    out = tmp_path_factory.mktemp("finished") / "run"
    return out, finetune(make_run(tiny_opt, drawn, out))


def test_everything_is_written(finished):
    out, metrics = finished
    names = {path.name for path in out.iterdir()}
    assert names == {
        "adapter_config.json", "adapter_model.safetensors", "blip2vqa.json", "metrics.json", "predictions.csv", "run.json",
        "split.json", "taught.json", "README.md", "checkpoints",
    }  # fmt: skip
    assert json.loads((out / "metrics.json").read_text()) == metrics
    assert set(metrics) == {"base", "adapter", "blind", "swapped"}
    assert all({"accuracy", "n", "by_question_type"} <= set(part) for part in metrics.values())
    manifest = json.loads((out / "blip2vqa.json").read_text())
    assert manifest["prompt"] == "Question: {question} Answer in one word:"
    assert manifest["roles"] == ["q", "k", "v", "o", "up", "down"]
    assert manifest["data"]["rows_train"] + manifest["data"]["rows_val"] == 36


def test_plain_peft_loads_the_adapter_and_answers_the_same(finished, tiny_opt, drawn):
    from peft import PeftModel
    from transformers import Blip2ForConditionalGeneration, Blip2Processor

    from blip2vqa import load

    out, _ = finished
    image = drawn[0] / "0.png"
    ours = load(str(out), dtype="float32").answer(str(image), "What color is the square?")
    base = Blip2ForConditionalGeneration.from_pretrained(tiny_opt, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, out).eval()
    processor = Blip2Processor.from_pretrained(tiny_opt)
    from PIL import Image

    prompt = "Question: What color is the square? Answer in one word:"
    inputs = processor(images=Image.open(image), text=prompt, return_tensors="pt")
    end = base.config.text_config.eos_token_id
    ids = model.generate(**inputs, max_new_tokens=10, do_sample=False, num_beams=1, eos_token_id=end)
    # Upstream's output repeats image tokens and prompt.
    said = processor.tokenizer.decode(ids[0], skip_special_tokens=True).split("Answer in one word:")[-1].strip()
    assert said == ours


def test_a_rerun_gives_the_same_adapter_bit_for_bit(finished, tmp_path):
    out, metrics = finished
    parts, resolved = parse(
        FINETUNE_ARGUMENTS, "test", [str(out / "run.json"), "--output_dir", str(tmp_path / "again")]
    )
    assert finetune(Run(*parts, resolved)) == metrics
    assert same_weights(adapter_of(out), adapter_of(tmp_path / "again"))


def test_resumed_run_ends_in_the_same_weights(finished, tiny_opt, drawn, tmp_path):
    out, _ = finished
    interrupted(tiny_opt, drawn, tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.json").exists()
    finetune(make_run(tiny_opt, drawn, tmp_path / "run", "--resume_from_checkpoint"))
    assert same_weights(adapter_of(out), adapter_of(tmp_path / "run"))


@pytest.mark.parametrize("kind", ["opt", "t5"])
def test_gradient_accumulation_equals_one_large_batch(kind, tiny_opt, tiny_t5, drawn, tmp_path):
    base = tiny_opt if kind == "opt" else tiny_t5
    exact = ("--lora_dropout", "0", "--max_steps", "3", "--eval_strategy", "no", "--save_strategy", "no")
    exact += ("--load_best_model_at_end", "false", "--optim", "sgd")
    finetune(make_run(base, drawn, tmp_path / "whole", "--batch_size", "8", *exact))
    finetune(
        make_run(base, drawn, tmp_path / "parts", "--batch_size", "2", "--gradient_accumulation_steps", "4", *exact)
    )
    whole, parts = adapter_of(tmp_path / "whole"), adapter_of(tmp_path / "parts")
    moved = max(value.abs().max() for key, value in whole.items() if "lora_B" in key)
    assert moved > 1e-4
    for key in whole:
        torch.testing.assert_close(whole[key], parts[key], rtol=1e-3, atol=1e-6)


def test_the_adapter_learns_to_look_at_the_picture(tiny_opt, tmp_path):
    """Fails if the image is ignored: each question has all four colours as answers, evenly."""
    import csv

    from helpers.tiny_blip2 import make_table

    images, table = make_table(tmp_path / "many", images=48)
    rows = [row for row in csv.reader(table.open()) if row[1] in ("question", "What color is the square?")]
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    metrics = finetune(
        make_run(
            tiny_opt, (images, table), tmp_path / "run", "--epochs", "25", "--val_split", "0.25", "--batch_size", "8"
        )
    )
    assert metrics["adapter"]["accuracy"] >= 0.9
    assert metrics["blind"]["accuracy"] <= 0.5
    assert metrics["swapped"]["accuracy"] <= metrics["adapter"]["accuracy"] - 0.3


def test_a_folder_with_another_run_is_refused_and_left_alone(finished, tiny_opt, drawn):
    out, _ = finished
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    with pytest.raises(InputError, match="holds a finished run"):
        finetune(make_run(tiny_opt, drawn, out))
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_all_problems_are_found_in_one_go_and_before_the_weights(tiny_opt, tmp_path, monkeypatch):
    from blip2vqa.training import recipe

    monkeypatch.setattr(recipe, "load_base", lambda *a, **k: pytest.fail("weights were loaded"))
    table = tmp_path / "table.csv"
    table.write_text("image,question,answer\n1.png,What?,red\n")
    run = make_run(
        tmp_path / "nowhere", (tmp_path, table), tmp_path / "run", "--lora_r", "0", "--val_split", "1.5",
        "--lora_roles", "q,query", "--prompt", "Say it:",
    )  # fmt: skip
    with pytest.raises(InputError) as caught:
        finetune(run)
    text = str(caught.value)
    for part in ("--lora_r: 0", "--val_split: 1.5", "query is not a role", "{question}", "nowhere", "image_name"):
        assert part in text
    assert not (tmp_path / "run").exists()


def test_float16_is_refused_for_t5(tiny_t5, drawn, tmp_path):
    with pytest.raises(InputError, match="overflows"):
        finetune(make_run(tiny_t5, drawn, tmp_path / "run", "--dtype", "float16"))


def test_resuming_without_a_checkpoint_is_an_error(tiny_opt, drawn, tmp_path):
    with pytest.raises(InputError, match="no checkpoint"):
        finetune(make_run(tiny_opt, drawn, tmp_path / "run", "--resume_from_checkpoint"))


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_quantized_bases_train_and_reload(bits, tiny_opt, drawn, tmp_path):
    from blip2vqa import load

    out = tmp_path / bits
    finetune(make_run(tiny_opt, drawn, out, "--quantization", bits, "--epochs", "4", "--metric_for_best_model", "loss"))
    histories = [json.loads(path.read_text())["log_history"] for path in out.glob("checkpoints/*/trainer_state.json")]
    losses = [entry["eval_loss"] for entry in max(histories, key=len) if "eval_loss" in entry]
    assert len(losses) > 1 and losses[-1] < losses[0]
    model = load(str(out), quantization=bits, dtype="float32")
    assert model.loaded.quantization == bits
    quantized = [name for name, module in model.loaded.base.named_modules() if type(module).__name__.startswith("Linear")
                 and type(module).__module__.startswith("bitsandbytes")]  # fmt: skip
    assert quantized and all(name.startswith("language_model.") and "lm_head" not in name for name in quantized)
    rows = [line.split(",") for line in (out / "predictions.csv").read_text().splitlines()[1:]]
    answered = model.answer_batch([str(drawn[0] / row[0]) for row in rows], [row[1] for row in rows])
    assert [answer.text for answer in answered] == [row[5] for row in rows]


def test_shared_rows_train_to_the_same_adapter(tiny_opt, drawn, tmp_path):
    """In the same order, questions of one image in one row give the adapter that one row a question gives."""
    from blip2vqa.training.collators import TrainingCollator
    from blip2vqa.training.trainer import VQATrainer

    exact = (
        "--lora_dropout",
        "0",
        "--max_steps",
        "4",
        "--eval_strategy",
        "no",
        "--save_strategy",
        "no",
        "--optim",
        "sgd",
    )
    exact += ("--no_load_best_model_at_end", "--batch_size", "4", "--gradient_accumulation_steps", "2")
    finetune(make_run(tiny_opt, drawn, tmp_path / "shared", *exact))
    init = VQATrainer.__init__

    def one_row_a_question(self, *args, **kwargs):
        init(self, *args, **kwargs)
        self.data_collator = TrainingCollator(self.data_collator.text, self.data_collator.features)
        self._get_train_sampler = lambda dataset=None: self.sampler

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VQATrainer, "__init__", one_row_a_question)
        finetune(make_run(tiny_opt, drawn, tmp_path / "single", *exact))
    shared, single = adapter_of(tmp_path / "shared"), adapter_of(tmp_path / "single")
    for key in shared:
        torch.testing.assert_close(shared[key], single[key], rtol=1e-4, atol=1e-6)
    assert max(value.abs().max() for key, value in shared.items() if "lora_B" in key) > 1e-4


def test_tokens_per_row_too_small_names_the_least_that_works(tiny_opt, drawn, tmp_path):
    with pytest.raises(
        InputError, match=r"--tokens_per_row 10: too small .* the least that works here is (\d+)"
    ) as caught:
        finetune(make_run(tiny_opt, drawn, tmp_path / "run", "--tokens_per_row", "10"))
    least = str(caught.value).rsplit(" ", 1)[1]
    stop = ("--max_steps", "1", "--eval_strategy", "no", "--save_strategy", "no", "--no_load_best_model_at_end")
    finetune(make_run(tiny_opt, drawn, tmp_path / "run", "--tokens_per_row", least, *stop))


def interrupted(base, drawn, out, *extra):
    """A run stopped behind its first checkpoint."""
    from blip2vqa.training.trainer import VQATrainer

    save = VQATrainer._save_checkpoint

    def save_and_stop(self, *args, **kwargs):
        save(self, *args, **kwargs)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VQATrainer, "_save_checkpoint", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            finetune(make_run(base, drawn, out, *extra))


def test_a_run_goes_on_as_it_began_or_not_at_all(tiny_opt, drawn, tmp_path):
    out = tmp_path / "run"
    interrupted(tiny_opt, drawn, out)
    with pytest.raises(InputError, match="stopped on its way"):
        finetune(make_run(tiny_opt, drawn, out))
    before = (out / "run.json").read_text()
    with pytest.raises(InputError) as caught:
        finetune(make_run(tiny_opt, drawn, out, "--resume_from_checkpoint", "--lora_alpha", "8", "--seed", "7"))
    assert "--lora_alpha: the run in" in str(caught.value) and "--seed" in str(caught.value)
    assert (out / "run.json").read_text() == before
    finetune(make_run(tiny_opt, drawn, out, "--resume_from_checkpoint", "--logging_steps", "3"))
    # What a resumed run leaves behind repeats the whole run, from nothing.
    parts, resolved = parse(
        FINETUNE_ARGUMENTS, "test", [str(out / "run.json"), "--output_dir", str(tmp_path / "again")]
    )
    finetune(Run(*parts, resolved))
    assert same_weights(adapter_of(out), adapter_of(tmp_path / "again"))


def test_a_finished_run_is_not_gone_on_with(finished, tiny_opt, drawn):
    out, _ = finished
    with pytest.raises(InputError, match="holds a finished run"):
        finetune(make_run(tiny_opt, drawn, out, "--resume_from_checkpoint", "--epochs", "5"))


@pytest.mark.parametrize("init", INITIALISATIONS)
def test_every_initialisation_reloads_as_it_was_trained(init, tiny_opt, drawn, tmp_path):
    from blip2vqa import load

    out = tmp_path / init
    finetune(make_run(tiny_opt, drawn, out, "--init_lora_weights", init, "--epochs", "1"))
    rows = [line.split(",") for line in (out / "predictions.csv").read_text().splitlines()[1:]]
    answers = load(str(out), dtype="float32").answer_batch(
        [str(drawn[0] / row[0]) for row in rows], [row[1] for row in rows]
    )
    for answer, row in zip(answers, rows, strict=True):
        assert answer.text == row[5] and answer.confidence == pytest.approx(float(row[6]), abs=2e-3)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--lora_roles", "gate"), "no gate layers"),
        (("--prompt", "<image> {question}"), "the picture is put in front of it by itself"),
        (("--report_to", "none", "crystal_ball"), "--report_to crystal_ball: not installed"),
        (("--seed", "-1"), "--seed: -1"),
        (("--epochs", "inf"), "--num_train_epochs: inf"),
        (("--weight_decay", "-1"), "--weight_decay: -1"),
    ],
)
def test_wrong_settings_are_found_before_anything_is_written(flags, message, tiny_opt, drawn, tmp_path):
    with pytest.raises(InputError, match=message):
        finetune(make_run(tiny_opt, drawn, tmp_path / "run", *flags))
    assert not (tmp_path / "run").exists()


def test_trainers_fp16_is_refused_for_t5(tiny_t5, drawn, tmp_path):
    run = make_run(tiny_t5, drawn, tmp_path / "run")
    run.training.fp16 = True
    with pytest.raises(InputError, match="--fp16"):
        finetune(run)


def test_a_broken_scorer_is_found_before_training(tiny_opt, drawn, tmp_path, monkeypatch):
    from blip2vqa.training import recipe

    monkeypatch.setattr(recipe, "load_base", lambda *a, **k: pytest.fail("weights were loaded"))
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    (encoder / "config.json").write_text('{"model_type": "bert", "num_hidden_layers": 2}')
    with pytest.raises(InputError, match="BERTScore's encoder"):
        finetune(make_run(tiny_opt, drawn, tmp_path / "run", "--bertscore_model", str(encoder)))


def test_bad_images_of_both_tables_are_named_in_one_go(tiny_opt, drawn, tmp_path):
    for name in ("train", "val"):
        (tmp_path / f"{name}.csv").write_text(f"image_name,question,answer\n0.png,Red?,yes\n{name}.png,Red?,no\n")
    with pytest.raises(InputError) as caught:
        finetune(
            make_run(
                tiny_opt, (drawn[0], tmp_path / "train.csv"), tmp_path / "run", "--eval_csv_path",
                str(tmp_path / "val.csv"),
            )
        )  # fmt: skip
    assert "image train.png" in str(caught.value) and "image val.png" in str(caught.value)
    assert "train.png" in (tmp_path / "run" / "bad_images.csv").read_text()
    assert "val.png" in (tmp_path / "run" / "eval_bad_images.csv").read_text()


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
