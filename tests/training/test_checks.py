"""All that is wrong with a run is said at once, before any weight is loaded and before anything is written."""

import pytest
from accelerate.utils.deepspeed import HfDeepSpeedConfig

from blip2vqa.training.checks import check
from blip2vqa.training.recipe import finetune
from blip2vqa.utils.errors import InputError
from helpers.finetune_runs import make_run


def test_all_problems_are_found_in_one_go_and_before_the_weights(tiny_opt, tmp_path, monkeypatch):
    from blip2vqa.training import recipe

    monkeypatch.setattr(recipe, "load_base", lambda *a, **k: pytest.fail("weights were loaded"))
    table = tmp_path / "table.csv"
    table.write_text("where,question,answer\n1.png,What?,red\n")
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


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--lora_roles", "gate"), "no gate layers"),
        (("--prompt", "<image> {question}"), "the picture is put in front of it by itself"),
        (("--report_to", "none", "crystal_ball"), "--report_to crystal_ball: no such logger; choose from"),
        (("--seed", "-1"), "--seed: -1"),
        (("--epochs", "inf"), "--num_train_epochs: inf"),
        (("--weight_decay", "-1"), "--weight_decay: -1"),
        (
            ("--metric_for_best_model", "f1"),
            "--metric_for_best_model f1: is no metric of --task vqa; choose from accuracy",
        ),
    ],
)
def test_wrong_settings_are_found_before_anything_is_written(flags, message, tiny_opt, drawn, tmp_path):
    with pytest.raises(InputError, match=message):
        finetune(make_run(tiny_opt, drawn, tmp_path / "run", *flags))
    assert not (tmp_path / "run").exists()


def test_float16_is_refused_for_t5(tiny_t5, drawn, tmp_path):
    with pytest.raises(InputError, match="overflows"):
        finetune(make_run(tiny_t5, drawn, tmp_path / "run", "--dtype", "float16"))


def test_trainers_fp16_is_refused_for_t5(tiny_t5, drawn, tmp_path):
    run = make_run(tiny_t5, drawn, tmp_path / "run")
    run.training.fp16 = True
    with pytest.raises(InputError, match="--fp16"):
        finetune(run)


def test_the_launchers_fp16_is_refused_for_t5_alone(tiny_t5, tiny_opt, drawn, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(InputError) as caught:
        finetune(make_run(tiny_t5, drawn, tmp_path / "run"))
    (line,) = caught.value.problems
    assert line.startswith("--mixed_precision fp16: BLIP-2 with T5 overflows in float16; ")
    assert check(make_run(tiny_opt, drawn, tmp_path / "run"))


def test_deepspeeds_fp16_is_refused_for_t5(tiny_t5, drawn, tmp_path):
    run = make_run(tiny_t5, drawn, tmp_path / "run")
    run.training.hf_deepspeed_config = HfDeepSpeedConfig({"fp16": {"enabled": True}})
    with pytest.raises(InputError, match=r"fp16\.enabled: BLIP-2 with T5 overflows"):
        finetune(run)


@pytest.mark.parametrize("flag", ["--fp16_full_eval", "--bf16_full_eval"])
def test_an_evaluation_that_casts_the_adapter_is_refused(flag, tiny_opt, drawn, tmp_path):
    with pytest.raises(InputError, match=f"{flag}: casts the adapter"):
        finetune(make_run(tiny_opt, drawn, tmp_path / "run", flag))


def test_tokens_per_row_too_small_names_the_least_that_works(tiny_opt, drawn, tmp_path):
    with pytest.raises(
        InputError, match=r"--tokens_per_row 10: too small .* the least that works here is (\d+)"
    ) as caught:
        finetune(make_run(tiny_opt, drawn, tmp_path / "run", "--tokens_per_row", "10"))
    least = str(caught.value).rsplit(" ", 1)[1]
    stop = ("--max_steps", "1", "--eval_strategy", "no", "--save_strategy", "no", "--no_load_best_model_at_end")
    finetune(make_run(tiny_opt, drawn, tmp_path / "run", "--tokens_per_row", least, *stop))


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


def test_a_broken_scorer_is_found_before_training(tiny_opt, drawn, tmp_path, monkeypatch):
    from blip2vqa.training import recipe

    monkeypatch.setattr(recipe, "load_base", lambda *a, **k: pytest.fail("weights were loaded"))
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    (encoder / "config.json").write_text('{"model_type": "bert", "num_hidden_layers": 2}')
    with pytest.raises(InputError, match="BERTScore's encoder"):
        finetune(make_run(tiny_opt, drawn, tmp_path / "run", "--bertscore_model", str(encoder)))


def test_budgets_out_of_range(tiny_opt, drawn, tmp_path):
    with pytest.raises(InputError, match="--tokens_per_batch: -1 is out of range"):
        finetune(make_run(tiny_opt, drawn, tmp_path / "run", "--tokens_per_batch", "-1"))
