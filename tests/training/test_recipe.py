"""Fine-tuning in this process: it sees the picture, repeats itself, resumes, refuses what would be lost."""

import json

import pytest
import torch

from blip2vqa.config.common import INITIALISATIONS
from blip2vqa.training.recipe import finetune
from blip2vqa.training.trainer import VQATrainer
from helpers.finetune_runs import adapter_of, make_run, parse_run, same_weights


def test_everything_is_written(finished):
    out, metrics = finished
    names = {path.name for path in out.iterdir()}
    assert names == {
        "adapter_config.json", "adapter_model.safetensors", "blip2vqa.json", "metrics.json", "predictions.csv", "run.json",
        "split.json", "training_data.json", "README.md", "checkpoints", "history.json", "report.html",
    }  # fmt: skip
    assert json.loads((out / "metrics.json").read_text()) == metrics
    assert set(metrics) == {"base", "adapter", "blind", "swapped"}
    assert all({"accuracy", "n", "by_question_type"} <= set(part) for part in metrics.values())
    manifest = json.loads((out / "blip2vqa.json").read_text())
    assert manifest["prompt"] == "Question: {question} Answer in one word:"
    assert manifest["roles"] == ["q", "k", "v", "o", "up", "down"]
    assert manifest["data"]["rows_train"] + manifest["data"]["rows_val"] == 36


def test_weights_may_be_read_by_whoever_may_read_the_rest(finished):
    for weights in finished[0].rglob("adapter_model.safetensors"):
        assert weights.stat().st_mode == weights.with_name("adapter_config.json").stat().st_mode


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
    assert finetune(parse_run(str(out / "run.json"), "--output_dir", str(tmp_path / "again"))) == metrics
    assert same_weights(adapter_of(out), adapter_of(tmp_path / "again"))


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

    def one_row_a_question(*args):
        trainer = VQATrainer(*args)
        trainer.data_collator = TrainingCollator(trainer.data_collator.text, trainer.data_collator.features)
        return trainer

    finetune(make_run(tiny_opt, drawn, tmp_path / "single", *exact), one_row_a_question)
    shared, single = adapter_of(tmp_path / "shared"), adapter_of(tmp_path / "single")
    for key in shared:
        torch.testing.assert_close(shared[key], single[key], rtol=1e-4, atol=1e-6)
    assert max(value.abs().max() for key, value in shared.items() if "lora_B" in key) > 1e-4


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
