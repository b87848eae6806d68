"""Adapters moved to another base: exact ones to the last bit, others measured or called an initialisation."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Blip2ForConditionalGeneration,
    InstructBlipForConditionalGeneration,
)

from blip2vqa import load
from blip2vqa.adapters.algebra import Factors, norm, read_deltas
from blip2vqa.adapters.base.fingerprints import fingerprint_base
from blip2vqa.adapters.resolve import open_adapter
from blip2vqa.config.exchange import MovingArguments
from blip2vqa.data.examples import load_examples
from blip2vqa.evaluation.compare import SystemRun
from blip2vqa.exchange import check, measuring, swap, transfer
from blip2vqa.exchange.measuring import BASE, DIRECT, MOVED, RANDOM, SWAPPED, ZERO, random_like
from blip2vqa.exchange.transferring import is_better, project
from blip2vqa.utils.errors import InputError
from helpers.family_bases import random_adapter
from helpers.finetune_runs import adapter_of, make_run, same_weights
from helpers.tiny_blip2 import make_base
from helpers.tiny_families import make_instructblip

PROMPT = "Question: {question} Answer in one word:"
ASKED = {"task": "vqa", "prompt": PROMPT, "decoding": {"max_new_tokens": 3}}


@pytest.fixture(scope="module")
def adapter(tiny_opt, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("moves") / "adapter"
    family = "BLIP-2 with OPT"
    return random_adapter(tiny_opt, folder, 1, base=fingerprint_base(tiny_opt), rank=4, family=family, **ASKED)


@pytest.fixture(scope="module")
def eyes(tiny_opt, tmp_path_factory) -> Path:
    """The same language model behind another Q-Former, as opt-2.7b and its -coco version."""
    folder = tmp_path_factory.mktemp("eyes") / "base"
    model = Blip2ForConditionalGeneration.from_pretrained(tiny_opt)
    with torch.no_grad():
        model.query_tokens.mul_(1.5)
    shutil.copytree(tiny_opt, folder)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bare(tiny_opt, tmp_path_factory) -> Path:
    """The language model alone, as OPT-2.7B."""
    folder = tmp_path_factory.mktemp("bare") / "opt"
    Blip2ForConditionalGeneration.from_pretrained(tiny_opt).language_model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_opt).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """Of the same shapes, and nothing else."""
    return make_base(tmp_path_factory.mktemp("other") / "base", seed=7)


def logits(model, adapter: Path, embeddings: torch.Tensor) -> torch.Tensor:
    """Of a base or a language model under an adapter that plain PEFT loads."""
    model = PeftModel.from_pretrained(model, adapter).eval().get_base_model()
    language_model = getattr(model, "language_model", model)
    with torch.inference_mode():
        return language_model(inputs_embeds=embeddings).logits


def manifest(folder) -> dict:
    return json.loads((Path(folder) / "blip2vqa.json").read_text())


def test_to_itself_it_is_the_identity(adapter, tiny_opt, tmp_path):
    moved = transfer(str(adapter), str(tiny_opt), str(tmp_path / "same"))
    assert (moved["method"], moved["state"], moved["measured"]) == ("exact", "exact", None)
    assert same_weights(adapter_of(adapter), adapter_of(tmp_path / "same"))
    assert check(str(tmp_path / "same"), str(tiny_opt))["verdict"] == "ok"


def test_an_exact_move_is_exact_to_the_last_bit(adapter, tiny_opt, eyes, tmp_path):
    moved = transfer(str(adapter), str(eyes), str(tmp_path / "moved"))
    assert (moved["method"], moved["state"]) == ("exact", "exact")
    features = torch.randn(2, 7, 64, generator=torch.Generator().manual_seed(0))
    before = logits(Blip2ForConditionalGeneration.from_pretrained(tiny_opt), adapter, features)
    after = logits(Blip2ForConditionalGeneration.from_pretrained(eyes), tmp_path / "moved", features)
    assert torch.equal(before, after)
    known = manifest(tmp_path / "moved")
    assert known["base_model_id"] == str(eyes) and known["prompt"] == PROMPT and "metrics" not in known
    assert known["base"] == fingerprint_base(eyes)
    assert known["origin"]["method"] == "exact" and known["origin"]["of"][0]["sha256"] == open_adapter(adapter).digest
    config = json.loads((tmp_path / "moved" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(eyes)
    assert load(str(tmp_path / "moved")).spec.base_model_id == str(eyes)


def test_to_the_bare_language_model_and_back(adapter, tiny_opt, bare, tmp_path):
    transfer(str(adapter), str(bare), str(tmp_path / "text"))
    features = torch.randn(2, 7, 64, generator=torch.Generator().manual_seed(0))
    before = logits(Blip2ForConditionalGeneration.from_pretrained(tiny_opt), adapter, features)
    assert torch.equal(before, logits(AutoModelForCausalLM.from_pretrained(bare), tmp_path / "text", features))
    transfer(str(tmp_path / "text"), str(tiny_opt), str(tmp_path / "back"))
    assert same_weights(adapter_of(adapter), adapter_of(tmp_path / "back"))


def test_between_families_that_share_a_language_model(tiny_t5, tmp_path):
    """As blip2-flan-t5-xl and instructblip-flan-t5-xl; the second's vocabulary has a few rows to spare."""
    other = make_instructblip(tmp_path / "instruct", text="t5")
    source = Blip2ForConditionalGeneration.from_pretrained(tiny_t5).language_model.state_dict()
    model = InstructBlipForConditionalGeneration.from_pretrained(other)
    with torch.no_grad():
        for name, weight in model.language_model.state_dict().items():
            weight[: len(source[name])] = source[name]
    model.save_pretrained(other)
    adapter = random_adapter(tiny_t5, tmp_path / "adapter", 1, base=fingerprint_base(tiny_t5), **ASKED)
    moved = transfer(str(adapter), str(other), str(tmp_path / "moved"))
    assert (moved["method"], moved["state"]) == ("exact", "exact")
    assert check(str(tmp_path / "moved"), str(other))["verdict"] == "ok"
    assert manifest(tmp_path / "moved")["family"] == "InstructBLIP with T5"


def test_an_adapter_that_peft_saved_from_the_bare_language_model(bare, tiny_opt, tmp_path):
    """Put on the whole model it loads with a warning and does nothing; renamed, it does what it did."""
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(bare), config)
    model.save_pretrained(tmp_path / "text")
    found = check(str(tmp_path / "text"), str(tiny_opt))
    assert (found["verdict"], found["move"]) == ("convertible", "exact")
    transfer(str(tmp_path / "text"), str(tiny_opt), str(tmp_path / "moved"))
    features = torch.randn(1, 5, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = model.eval()(inputs_embeds=features).logits
    after = logits(Blip2ForConditionalGeneration.from_pretrained(tiny_opt), tmp_path / "moved", features)
    assert torch.equal(before, after)
    assert check(str(tmp_path / "moved"), str(tiny_opt))["verdict"] == "ok"


def test_other_weights_make_an_initialisation_and_no_more(adapter, other, tmp_path):
    with pytest.raises(InputError, match=r"does not go to .* by exact: other weights than it was made for"):
        transfer(str(adapter), str(other), str(tmp_path / "no"), method="exact")
    moved = transfer(str(adapter), str(other), str(tmp_path / "copy"))
    assert moved["method"] == "copy"
    assert moved["state"] == "initialisation" == manifest(tmp_path / "copy")["origin"]["state"]
    assert same_weights(adapter_of(adapter), adapter_of(tmp_path / "copy"))
    moved = transfer(str(adapter), str(other), str(tmp_path / "projected"), method="subspace", subspace=0.5)
    assert (moved["method"], moved["state"]) == ("subspace", "initialisation")
    assert "of the adapter's squared norm lies in the target's singular subspaces" in moved["reasons"][-1]
    assert check(str(tmp_path / "projected"), str(other), quick=True)["verdict"] == "ok"


@pytest.mark.parametrize("how", ["cast", "other words"])
def test_what_is_not_proved_the_same_is_not_exact(how, adapter, tiny_opt, tmp_path):
    """A copy in another precision; the same layers behind other embeddings."""
    model = Blip2ForConditionalGeneration.from_pretrained(tiny_opt)
    other = shutil.copytree(tiny_opt, tmp_path / "other")
    if how == "cast":
        model.to(torch.float16)
    else:
        with torch.no_grad():
            model.language_model.model.decoder.embed_tokens.weight[7] += 1
    model.save_pretrained(other)
    with pytest.raises(InputError, match=r"does not go to .* by exact"):
        transfer(str(adapter), str(other), str(tmp_path / "no"), method="exact")
    moved = transfer(str(adapter), str(other), str(tmp_path / "moved"))
    assert (moved["method"], moved["state"]) == ("copy", "initialisation")
    assert manifest(tmp_path / "moved")["origin"]["state"] == "initialisation"


def adapter_of_qformer(base, folder) -> Path:
    """As plain PEFT saves it."""
    torch.manual_seed(0)
    model = Blip2ForConditionalGeneration.from_pretrained(base)
    config = LoraConfig(r=2, target_modules=["attention.query", "attention.value"], init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(folder)
    return folder


def test_an_adapter_of_the_qformer_is_exact_on_the_whole_base_alone(tiny_opt, tmp_path):
    """What it sees with is the same there, what it works for is not."""
    model = Blip2ForConditionalGeneration.from_pretrained(tiny_opt)
    with torch.no_grad():
        model.language_model.model.decoder.final_layer_norm.bias += 1
    other = shutil.copytree(tiny_opt, tmp_path / "other")
    model.save_pretrained(other)
    mine = str(adapter_of_qformer(tiny_opt, tmp_path / "adapter"))
    moved = transfer(mine, str(tiny_opt), str(tmp_path / "same"))
    assert (moved["method"], moved["state"]) == ("exact", "exact")
    moved = transfer(mine, str(other), str(tmp_path / "moved"))
    assert (moved["method"], moved["state"]) == ("copy", "initialisation")
    assert "other weights than it was made for: language_model" in moved["reasons"][0]


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (8, 8)])
def test_projection_against_the_whole_decomposition(shape):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator)
    factors = Factors(torch.randn(3, shape[1], generator=generator), torch.randn(shape[0], 3, generator=generator))
    u, s, v = torch.linalg.svd(weight.double(), full_matrices=False)
    count = int(((s**2).cumsum(0) < 0.8 * (s**2).sum()).sum()) + 1
    assert 0 < count < min(shape)
    u, v = u[:, :count], v[:count].T
    expected = u @ u.T @ factors.dense().double() @ v @ v.T
    torch.testing.assert_close(project(factors, weight, 0.8).dense().double(), expected, rtol=1e-4, atol=1e-4)
    if shape == (8, 8):  # all of the space
        torch.testing.assert_close(project(factors, weight, 1.0).dense(), factors.dense(), rtol=1e-3, atol=1e-3)


def test_projection_onto_a_weight_that_lacks_ranks():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 2, generator=generator) @ torch.randn(2, 10, generator=generator)
    factors = Factors(torch.randn(3, 10, generator=generator), torch.randn(8, 3, generator=generator))
    u, _, v = torch.linalg.svd(weight.double(), full_matrices=False)
    expected = u[:, :2] @ u[:, :2].T @ factors.dense().double() @ v[:2].T @ v[:2]
    torch.testing.assert_close(project(factors, weight, 1.0).dense().double(), expected, rtol=1e-3, atol=1e-3)


def test_random_adapters_have_the_same_norms(adapter):
    deltas = read_deltas(open_adapter(adapter))
    for name, drawn in random_like(deltas, 0).items():
        assert norm(drawn) == pytest.approx(norm(deltas[name]), rel=1e-5)
        assert drawn.shape == deltas[name].shape and not torch.equal(drawn.a, deltas[name].a)


def test_a_table_measures_it_beside_its_controls(adapter, eyes, drawn, tmp_path):
    images, table = drawn
    direct = random_adapter(eyes, tmp_path / "direct", 5, **ASKED)
    moved = transfer(
        str(adapter), str(eyes), str(tmp_path / "moved"), eval_csv_path=str(table), image_dir=str(images), dtype="float32",
        direct=str(direct),
    )  # fmt: skip
    measured = moved["measured"]
    rows = {row["name"]: row for row in measured["systems"]}
    assert {BASE, MOVED, ZERO, RANDOM, SWAPPED, DIRECT, "source adapter", "source base"} < rows.keys()
    assert measured["agreement"][BASE][ZERO] == 1.0  # nothing added is nothing changed
    accuracy = {name: row["accuracy"] for name, row in rows.items()}
    gain = measured["gain"]
    assert gain["moved"] == pytest.approx(accuracy[MOVED] - accuracy[BASE])
    assert gain["direct"] == pytest.approx(accuracy[DIRECT] - accuracy[BASE])
    assert gain["recovered"] == (pytest.approx(gain["moved"] / gain["direct"]) if gain["direct"] > 0 else None)
    metrics = json.loads((tmp_path / "moved" / "metrics.json").read_text())
    assert metrics["adapter"]["accuracy"] == accuracy[MOVED] and set(metrics) == {"base", "adapter", "blind", "swapped"}
    assert manifest(tmp_path / "moved")["metrics"] == metrics


def made_up(gain: float, more_than_noise: bool) -> dict:
    """What `measure` returns, as far as a state and the files beside an adapter need it; other pairs differ for sure."""
    pairs = [(MOVED, ZERO, True), (BASE, MOVED, more_than_noise), (BASE, RANDOM, True), (MOVED, SWAPPED, True)]
    return {
        "systems": [{"name": BASE, "accuracy": 0.5}, {"name": MOVED, "accuracy": 0.5 + gain}],
        "differences": [{"a": a, "b": b, "more_than_noise": sure} for a, b, sure in pairs],
        "gain": {"moved": gain, "direct": None, "recovered": None},
    }


@pytest.mark.parametrize(
    ("gain", "sure", "expected"), [(0.2, True, True), (0.2, False, False), (-0.2, True, False), (0.0, False, False)]
)
def test_better_is_more_than_noise(gain, sure, expected):
    found = made_up(gain, sure)
    other_way = [pair | {"a": pair["b"], "b": pair["a"]} for pair in found["differences"]]
    assert is_better(found) is is_better(found | {"differences": other_way}) is expected


@pytest.mark.parametrize(
    ("method", "sure", "state"),
    [("copy", True, "measured"), ("copy", False, "initialisation"), ("exact", True, "exact")],
)
def test_a_state_says_what_was_measured(method, sure, state, adapter, other, eyes, drawn, tmp_path, monkeypatch):
    found = made_up(0.2, sure)
    monkeypatch.setattr("blip2vqa.exchange.transferring.measure", lambda *args, **options: found)
    moved = transfer(
        str(adapter), str(eyes if method == "exact" else other), str(tmp_path / "moved"), method=method,
        eval_csv_path=str(drawn[1]), image_dir=str(drawn[0]),
    )  # fmt: skip
    assert (moved["measured"], moved["state"]) == (found, state)
    origin = manifest(tmp_path / "moved")["origin"]
    assert (origin["gain"], origin["state"]) == (found["gain"], state)


@pytest.mark.parametrize(
    ("right", "direct", "recovered"), [(18, 27, 0.5), (3, 18, -2 / 3), (18, 9, None), (18, 3, None)]
)
def test_the_share_of_the_gain_that_a_move_recovers(right, direct, recovered, adapter, drawn, monkeypatch):
    """Of 36 answers, the base has 9 right."""
    examples = load_examples(str(drawn[1]), str(drawn[0]))[0]
    rights = {BASE: 9, MOVED: right, DIRECT: direct, ZERO: 9, RANDOM: 2, SWAPPED: 5}

    def run(args, base, revision, adapters, asked, like, base_name, swapped=None):
        names = [base_name, *adapters, SWAPPED]
        answers = {n: [e.answer if i < rights[n] else "nothing" for i, e in enumerate(asked)] for n in names}
        return [SystemRun(name, said, base, None, "none", PROMPT) for name, said in answers.items()]

    monkeypatch.setattr(measuring, "run_systems", run)
    gain = measuring.measure(open_adapter(adapter), "base", None, examples, MovingArguments(), direct="direct")["gain"]
    assert gain["moved"] == pytest.approx((right - 9) / 36) and gain["direct"] == pytest.approx((direct - 9) / 36)
    assert gain["recovered"] == (None if recovered is None else pytest.approx(recovered))


@pytest.mark.parametrize("method", ["exact", "copy"])
def test_a_table_without_answers_measures_nothing(method, adapter, eyes, drawn, write, tmp_path):
    table = write("questions.csv", "image_name,question\n0.png,What color is the square?\n")
    moved = transfer(
        str(adapter), str(eyes), str(tmp_path / "moved"), method=method, csv_path=table, image_dir=str(drawn[0])
    )
    assert moved["measured"] is None and moved["state"] == "exact"
    assert "not measured: the table has no answers to measure by" in moved["reasons"]
    assert not {"metrics", "gain"} & {*manifest(tmp_path / "moved"), *manifest(tmp_path / "moved")["origin"]}
    assert not any((tmp_path / "moved" / name).exists() for name in ("metrics.json", "transfer.json"))


@pytest.fixture(scope="module")
def distilled(tiny_opt, tiny_t5, drawn, tmp_path_factory):
    """An OPT adapter that knows the drawn table, distilled into a T5."""
    from blip2vqa.training.recipe import finetune

    folder = tmp_path_factory.mktemp("distil")
    finetune(make_run(tiny_opt, drawn, folder / "source", "--epochs", "12", "--lora_r", "4", "--lora_dropout", "0"))
    (folder / "how.json").write_text('{"epochs": 8, "learning_rate": 0.01, "warmup_steps": 2, "disable_tqdm": true}')
    moved = transfer(
        str(folder / "source"), str(tiny_t5), str(folder / "moved"), csv_path=str(drawn[1]), image_dir=str(drawn[0]),
        dtype="float32", finetune=str(folder / "how.json"), min_confidence=0.3, val_split=0.25,
    )  # fmt: skip
    return folder, moved


def test_distilled_into_another_family(distilled, tiny_t5):
    folder, moved = distilled
    assert moved["method"] == "distil" and "of the source, those it gave 0.3 or more" in moved["reasons"][0]
    known = manifest(folder / "moved")
    assert known["family"] == "BLIP-2 with T5" and known["rank"] == 4
    assert known["origin"]["method"] == "distil" and known["origin"]["state"] == moved["state"]
    gained = moved["measured"]["gain"]["moved"]
    assert gained > 0.2, "it learns the words at least"
    assert check(str(folder / "moved"), str(tiny_t5))["verdict"] == "ok"


def test_distillation_learns_from_what_the_source_said_and_is_measured_on_other_images(distilled, drawn):
    import pandas as pd

    folder, _ = distilled
    taught, held = (pd.read_csv(folder / "moved" / name) for name in ("distilled.csv", "held-out.csv"))
    assert not {*taught.image_name} & {*held.image_name} and len(held) == 9
    model = load(str(folder / "source"), dtype="float32")
    row = taught.iloc[0]
    assert model.answer(drawn[0] / row.image_name, row.question) == row.answer


def test_a_source_that_is_sure_of_nothing(distilled, tiny_t5, drawn, tmp_path):
    folder, _ = distilled
    with pytest.raises(InputError, match="that sure of none of 27 answers; the surest has 0"):
        transfer(
            str(folder / "source"), str(tiny_t5), str(tmp_path / "no"), csv_path=str(drawn[1]), image_dir=str(drawn[0]),
            min_confidence=1.0, val_split=0.25,
        )  # fmt: skip
    assert not (tmp_path / "no").exists()


def test_what_does_not_apply_says_why(adapter, tiny_t5, bare, drawn, tmp_path):
    out = str(tmp_path / "no")
    with pytest.raises(InputError) as refused:
        transfer(str(adapter), str(tiny_t5), out)
    said = str(refused.value)
    assert "by exact, copy: 12 of its 12 layers" in said and "by distil: it needs --csv_path" in said
    with pytest.raises(InputError, match="a bare language model sees no picture"):
        transfer(str(adapter), str(bare), out, eval_csv_path=str(drawn[1]), image_dir=str(drawn[0]))
    with pytest.raises(InputError, match="is already there"):
        transfer(str(adapter), str(tiny_t5), str(tmp_path))
    with pytest.raises(InputError, match="needs --image_dir"):
        transfer(str(adapter), str(tiny_t5), out, csv_path=str(drawn[1]))
    assert not Path(out).exists()


def test_swap(adapter, eyes, tiny_opt, tmp_path):
    other = random_adapter(eyes, tmp_path / "other", 3, base=fingerprint_base(eyes), **ASKED)
    moves = swap(str(adapter), str(other), str(tmp_path / "both"))
    assert [move["method"] for move in moves.values()] == ["exact", "exact"]
    for move, base in zip(moves.values(), (eyes, tiny_opt), strict=True):
        assert check(move["output"], str(base))["verdict"] == "ok"


def test_swap_when_one_moves(adapter, tiny_opt, bare, tmp_path):
    text, eye = str(tmp_path / "text"), str(adapter_of_qformer(tiny_opt, tmp_path / "eye"))
    transfer(str(adapter), str(bare), text)
    moves = swap(text, eye, str(tmp_path / "one"))
    assert (moves[text]["method"], moves[eye]["method"]) == ("exact", None)
    assert same_weights(adapter_of(Path(moves[text]["output"])), adapter_of(adapter))
    assert moves[eye].keys() == moves[text].keys() and "layers are not in this base" in moves[eye]["reasons"][0]
    assert [path.name for path in (tmp_path / "one").iterdir()] == [Path(moves[text]["output"]).name]


def test_swap_when_neither_moves(adapter, tiny_opt, tiny_t5, tmp_path):
    foreign = random_adapter(tiny_t5, tmp_path / "foreign", 3, **ASKED)
    with pytest.raises(InputError) as refused:
        swap(str(adapter), str(foreign), str(tmp_path / "none"))
    for name, base in ((adapter, tiny_t5), (foreign, tiny_opt)):
        assert any(f"{name}: does not go to {base} by" in problem for problem in refused.value.problems)
    assert {path.name for path in tmp_path.iterdir()} == {"foreign"}


def test_swap_when_neither_can_be_measured(adapter, eyes, drawn, tmp_path, monkeypatch):
    def fails(*args, **options):
        raise InputError("--dtype float16: overflows")

    monkeypatch.setattr("blip2vqa.exchange.transferring.measure", fails)
    other = random_adapter(eyes, tmp_path / "other", 3, base=fingerprint_base(eyes), **ASKED)
    with pytest.raises(InputError, match="overflows"):
        swap(
            str(adapter), str(other), str(tmp_path / "both"), eval_csv_path=str(drawn[1]), image_dir=str(drawn[0])
        )  # fmt: skip
    assert len([path for path in (tmp_path / "both").iterdir() if path.is_dir()]) == 2  # what was written before it


def test_a_stopped_swap_goes_on(adapter, eyes, drawn, tmp_path, monkeypatch):
    other = random_adapter(eyes, tmp_path / "other", 3, base=fingerprint_base(eyes), **ASKED)
    measure, measured = measuring.measure, []

    def stop_at_the_second(*args, **options):
        measured.append(args[0].folder.name)
        if len(measured) == 2:
            raise KeyboardInterrupt
        return measure(*args, **options)

    def both(folder: str) -> dict:
        return swap(str(adapter), str(other), folder, eval_csv_path=str(drawn[1]), image_dir=str(drawn[0]))

    monkeypatch.setattr("blip2vqa.exchange.transferring.measure", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        both(str(tmp_path / "both"))
    moves = both(str(tmp_path / "both"))
    assert measured == ["1-adapter-on-base", "2-other-on-opt", "2-other-on-opt"]
    assert all(move["method"] == "exact" and move["measured"]["gain"] for move in moves.values())
    assert {path.name for path in (tmp_path / "both").iterdir()} == set(measured)
    with pytest.raises(InputError, match="is already there"):
        both(str(tmp_path / "both"))


def test_one_adapter_is_not_swapped_with_itself(adapter, tmp_path):
    again = shutil.copytree(adapter, tmp_path / "again")
    for second in (adapter, again):
        with pytest.raises(InputError, match="are one adapter"):
            swap(str(adapter), str(second), str(tmp_path / "no"))
    assert not (tmp_path / "no").exists()


def test_swap_of_folders_with_one_name(tiny_opt, eyes, tmp_path):
    """Of two users, say: `opt` and `adapter` at both."""
    other = shutil.copytree(eyes, tmp_path / "theirs" / "opt")
    bases = {"mine": tiny_opt, "theirs": other}
    names = [random_adapter(base, tmp_path / who / "adapter", len(who)) for who, base in bases.items()]
    moves = swap(*map(str, names), str(tmp_path / "both"))
    assert len({move["output"] for move in moves.values()}) == 2
    for name, base in zip(names, (other, tiny_opt), strict=True):
        moved = Path(moves[str(name)]["output"])
        assert same_weights(adapter_of(moved), adapter_of(name)) and manifest(moved)["base_model_id"] == str(base)


def test_training_starts_from_an_adapter(distilled, tiny_opt, drawn, tmp_path):
    """A step too small to change anything leaves what it knew."""
    from blip2vqa.training.recipe import finetune

    folder, _ = distilled
    source = str(folder / "source")
    same = ("--start_from", source, "--lora_dropout", "0", "--learning_rate", "1e-12", "--epochs", "1")
    metrics = finetune(make_run(tiny_opt, drawn, tmp_path / "on", *same, "--lora_r", "4"))
    before = json.loads((folder / "source" / "metrics.json").read_text())
    assert metrics["adapter"]["accuracy"] == before["adapter"]["accuracy"] > metrics["base"]["accuracy"]
    with pytest.raises(InputError, match=r"--start_from .*: has r 4, not 16; give --lora_r 4"):
        finetune(make_run(tiny_opt, drawn, tmp_path / "no", *same))
    with pytest.raises(InputError, match="and it has 10 others; give the --lora_roles"):
        finetune(make_run(tiny_opt, drawn, tmp_path / "no", *same, "--lora_r", "4", "--lora_roles", "q"))
