"""Flags, JSON, both seeds' spellings, and mistakes in each."""

import json
import sys
from types import SimpleNamespace

import pytest
from accelerate.utils.deepspeed import HfDeepSpeedConfig

from blip2vqa.config import common, finetune
from blip2vqa.config.generate import QuestionArguments
from blip2vqa.config.inference import InferenceArguments
from blip2vqa.config.parser import parse, parse_command
from blip2vqa.exchange.commands import COMMANDS
from blip2vqa.utils.errors import InputError

PARTS = finetune.FINETUNE_ARGUMENTS


def parsed(*argv: str):
    return parse(PARTS, "test", list(argv))


def config_file(tmp_path, **values) -> str:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values))
    return str(path)


def test_the_seeds_defaults():
    (model, data, lora, *_, training), _ = parsed("--use_cpu")
    assert model.base_model_id == "Salesforce/blip2-opt-2.7b"
    assert (lora.lora_r, lora.lora_alpha, lora.lora_dropout) == (16, 32, 0.05)
    assert (training.per_device_train_batch_size, training.num_train_epochs) == (4, 3)
    assert (training.learning_rate, training.warmup_steps, training.seed, data.val_split) == (1e-4, 50, 42, 0.2)


def test_both_spellings_and_trainers_own():
    argv = ("--model_id", "m", "--batch_size", "7", "--epochs", "2", "--weight_decay", "0.1", "--use_cpu")
    (model, *_, training), _ = parsed(*argv)
    assert model.base_model_id == "m"
    assert (training.per_device_train_batch_size, training.num_train_epochs, training.weight_decay) == (7, 2, 0.1)


def test_flags_stand_above_json(tmp_path):
    config = config_file(
        tmp_path, model_id="m", learning_rate=1e-3, epochs=5, use_cpu=True, load_best_model_at_end=False
    )
    (model, *_, training), resolved = parsed(config, "--learning_rate", "2e-4")
    assert (model.base_model_id, training.learning_rate, training.num_train_epochs) == ("m", 2e-4, 5)
    assert training.load_best_model_at_end is False
    assert resolved["learning_rate"] == 2e-4


def test_the_resolved_values_repeat_the_run(tmp_path):
    _, resolved = parsed(
        "--csv_path", "t.csv", "--prompt=--{question}--", "--weight_decay", "0.1", "--use_cpu", "--lr_scheduler_kwargs",
        '{"num_cycles": 2}', "--no_load_best_model_at_end",
    )  # fmt: skip
    again, resolved_again = parsed(config_file(tmp_path, **resolved))
    assert resolved_again == resolved
    assert again[1].prompt == "--{question}--"
    assert again[-1].lr_scheduler_kwargs == {"num_cycles": 2}
    assert again[-1].load_best_model_at_end is False


def test_resume_needs_no_value():
    (*_, training), _ = parsed("--resume_from_checkpoint", "--use_cpu")
    assert training.resume_from_checkpoint == "true"
    (*_, training), _ = parsed("--use_cpu", "--resume_from_checkpoint")
    assert training.resume_from_checkpoint == "true"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--lerning_rate", "1"], "argument --lerning_rate: unknown; did you mean --learning_rate?"),
        (["--learning_rate", "fast"], "invalid float value: 'fast'"),
        (["--quantization", "3bit"], "invalid choice: '3bit'"),
        (["absent.json"], "configuration absent.json: no such file"),
        (["--prompt", "Question: {question}", "and", "more"], "argument 'and': not expected here"),
        (["--eval_strategy", "epoch", "--save_strategy", "steps"], "requires the save and eval strategy to match"),
        (["--init_lora_weights", "nonsense"], "invalid choice: 'nonsense'"),
    ],
)
def test_mistakes_are_one_clear_line(argv, message):
    with pytest.raises(InputError) as caught:
        parsed(*argv)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batchsize": 4}, "key batchsize: unknown; did you mean batch_size?"),
        ({"learning_rate": "fast"}, "invalid float value: 'fast'"),
        ({"seed": 1.5}, "invalid int value: '1.5'"),
        ({"load_best_model_at_end": "perhaps"}, "Truthy value expected"),
    ],
)
def test_mistakes_in_json(tmp_path, values, message):
    with pytest.raises(InputError) as caught:
        parsed(config_file(tmp_path, **values))
    assert message in str(caught.value)


def test_two_spellings_of_one_option_in_json(tmp_path):
    with pytest.raises(InputError, match="batch_size and per_device_train_batch_size are the same option"):
        parsed(config_file(tmp_path, batch_size=4, per_device_train_batch_size=8))


def test_unknown_keys_are_named_together(tmp_path):
    with pytest.raises(InputError) as caught:
        parsed(config_file(tmp_path, batchsize=4, lora_rang=3))
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize("text", ["{", "[1]", ""])
def test_json_that_is_no_configuration(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json"):
        parsed(str(tmp_path / "config.json"))


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (common.LoraArguments(lora_dropout=1.0), "--lora_dropout: 1.0"),
        (common.GenerationArguments(num_beams=0), "--num_beams: 0"),
        (common.DataArguments(csv_path="t", eval_annotations_path="a"), "without --eval_csv_path"),
        (InferenceArguments(csv_path="t", batch_size=0), "--batch_size: 0"),
        (finetune.FinetuneArguments(learning_rate=-1, use_cpu=True), "--learning_rate: -1"),
        (finetune.FinetuneArguments(num_train_epochs=0, use_cpu=True), "--num_train_epochs: 0"),
    ],
)
def test_numbers_out_of_range(part, message):
    assert any(message in problem for problem in part.check())


def test_every_argument_has_a_line_of_help():
    from dataclasses import fields

    for part in [*PARTS, InferenceArguments, *(command.arguments for command in COMMANDS.values())]:
        for field in fields(part):
            assert field.metadata.get("help"), f"{part.__name__}.{field.name}"


def test_the_api_back_end_needs_its_package(monkeypatch):
    assert QuestionArguments(backend="api").check() == []
    monkeypatch.setitem(sys.modules, "openai", None)
    (problem,) = QuestionArguments(backend="api").check()
    assert problem == "--backend api: needs the package openai; pip install 'blip2vqa[api]' brings it in"
    assert QuestionArguments().check() == []


@pytest.mark.parametrize(
    ("argv", "found"),
    [
        (["--model_name_or_path", "m", "--dataset_name", "t", "--image_folder", "i"], ("m", "t", "i", None)),
        (["--model_id=m", "--csv-path", "t", "--adapter_name_or_path", "a"], ("m", "t", None, "a")),
    ],
)
def test_spellings_of_other_projects(argv, found):
    (model, data, lora, *_), _ = parsed(*argv, "--use_cpu")
    assert (model.base_model_id, data.csv_path, data.image_dir, lora.start_from) == found
    aliases = ["--model_name_or_path", "m", "--adapter_name_or_path", "a", "b", "--image_folder", "i"]
    (args,), _ = parse([InferenceArguments], "", aliases)
    assert (args.base_model_id, args.lora_model_path, args.image_dir) == ("m", ["a", "b"], "i")


@pytest.mark.parametrize(
    "argv",
    [
        ["--model_name_or_path", "m", "--base_model_id", "n"],
        ["--batch_size=4", "--per_device_train_batch_size", "8"],
        ["--dataset_name", "a", "--epochs", "3", "--csv_path=b"],
        ["--load_best_model_at_end", "--no_load_best_model_at_end"],
    ],
)
def test_two_spellings_of_one_option_are_refused(argv):
    with pytest.raises(InputError, match=r"--\w+ and --\w+ are the same option; keep one"):
        parsed(*argv, "--use_cpu")


def test_one_spelling_twice_is_no_mistake_and_the_last_counts(tmp_path):
    (_, *_, training), _ = parsed("--epochs", "3", "--epochs", "4", "--use_cpu")
    assert training.num_train_epochs == 4
    config = config_file(tmp_path, epochs=5, use_cpu=True)
    assert parsed(config, "--num_train_epochs", "6")[0][-1].num_train_epochs == 6  # above the file in any spelling


@pytest.mark.parametrize("key", ["help", "h", "version"])
def test_a_configuration_asks_for_no_help(tmp_path, key):
    with pytest.raises(InputError, match=f"key {key}: unknown"):
        parsed(config_file(tmp_path, **{key: "all"}))


def test_other_ways_of_sharding_are_refused_plainly():
    part = finetune.FinetuneArguments(use_cpu=True)
    plugin = SimpleNamespace(hf_ds_config=HfDeepSpeedConfig({"bf16": {"enabled": True}}))
    part.fsdp, part.deepspeed_plugin, part.tokens_per_batch = True, plugin, 100
    said = "\n".join(part.check())
    assert "--fsdp: the launcher says it" in said and "--bf16: DeepSpeed's configuration" in said
    assert "--tokens_per_batch: not with DeepSpeed" in said


# Commands


def command(line: str):
    name, *argv = line.split()
    return parse_command(name, COMMANDS[name].arguments, argv)


@pytest.mark.parametrize(
    "line",
    [
        "check a base --quick --json",
        "check --quick --json a base",
        "check a --quick base --json",
        "check --json true --quick yes a base",
        "check --json=true a base --quick=1",
        "check --base_model_id base a --quick --json",
        "check base --adapter a --quick --json",
        "check --adapter=a base --quick --json",
        "check --adapter a --base-model-id base --quick --json",
    ],
)
def test_words_and_flags_of_a_command_stand_in_any_order(line):
    args = command(line)
    assert (args.adapter, args.base_model_id, args.quick, args.json) == ("a", "base", True, True)


@pytest.mark.parametrize(
    "line",
    [
        "merge a=0.7 b=-1 --output c --rank 3",
        "merge --output c --rank 3 a=0.7 b=-1",
        "merge a=0.7 --output c b=-1 --rank 3",
        "merge --rank 3 --adapters a=0.7 b=-1 --output c",
    ],
)
def test_a_command_takes_a_list_of_words(line):
    args = command(line)
    assert (args.adapters, args.output, args.rank, args.method) == (["a=0.7", "b=-1"], "c", 3, "linear")


def test_a_switch_is_off_where_it_is_said_and_numbers_may_be_negative():
    args = command("check a base --quick false --json no")
    assert (args.quick, args.json) == (False, False)
    assert command("transfer a base --output c --seed -1").seed == -1
    assert command("push a me/a --private false").private is False


@pytest.mark.parametrize("name", COMMANDS)
def test_what_a_command_needs(name):
    needed = COMMANDS[name].arguments.needed()
    if not needed:
        assert command(name).store is None
        return
    shown = ", ".join(
        option.upper() if option in COMMANDS[name].arguments.words() else f"--{option}" for option in needed
    )
    with pytest.raises(InputError) as caught:
        command(name)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{shown}: missing; for example: exchange.py {name} ")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["check", "a", ""], "BASE_MODEL_ID: missing"),
        (["check", "a", "b", "c"], "argument 'c': not expected here"),
        (["check", "a", "b", "--adapter", "c"], "argument 'b': not expected here"),
        (["check", "a", "b", "--base-model-id", "c"], "argument 'b': not expected here"),
        (["merge", "a", "--adapters", "b", "--output", "c"], "argument 'a': not expected here"),
        (["inspect", "a", "--plto", "b"], "argument --plto: unknown; did you mean --plot?"),
        (["inspect", "a", "--plto=b"], "argument --plto: unknown; did you mean --plot?"),
        (["inspect", "a", "--plot"], "argument --plot: expected one argument"),
        (["inspect", "a", "--plot", "--json"], "argument --plot: expected one argument"),
        (["check", "a", "b", "--quick=perhaps"], "Truthy value expected"),
        (["merge", "a", "--output", "c", "--method", "mean"], "invalid choice: 'mean'"),
        (["merge", "a", "--output", "c", "--rank", "1.5"], "invalid int value: '1.5'"),
        (["merge", "--output", ""], "ADAPTERS, --output: missing"),
    ],
)
def test_mistakes_in_a_command_are_one_clear_line(argv, message):
    with pytest.raises(InputError) as caught:
        parse_command(argv[0], COMMANDS[argv[0]].arguments, argv[1:])
    assert message in str(caught.value) and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "usage"),
    [
        ("list", "list [STORE] [--option VALUE …]"),
        ("transfer", "transfer ADAPTER TARGET --output OUTPUT [--option VALUE …]"),
    ],
)
def test_the_help_of_a_command_shows_how_it_is_called(name, usage, capsys):
    with pytest.raises(SystemExit) as ended:
        command(f"{name} --help")
    shown = capsys.readouterr().out
    assert ended.value.code == 0 and usage in shown.splitlines()[0] and "None" not in shown
    assert all(f"--{option}" in shown for option in vars(COMMANDS[name].arguments()))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("extract a b --output c --rank 0", "--rank: 0"),
        ("transfer a b --output c --val_split 1", "--val_split: 1.0"),
        ("transfer a b --output c --direct d", "--direct: is compared on a table"),
        ("swap a b --output c --method distil", "--method distil: needs --csv_path"),
    ],
)
def test_numbers_of_a_command_out_of_range(line, message):
    (problem,) = command(line).check()
    assert problem.startswith(message)


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e999"])
def test_numbers_without_end_are_refused(value):
    with pytest.raises(InputError, match=r"--logging_steps: .* is no number that can be computed with"):
        parsed("--output_dir", "out", f"--logging_steps={value}")
