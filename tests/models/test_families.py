"""InstructBLIP and BLIP beside BLIP-2: they say and lose what upstream does, from pictures and from what is kept of them."""

import hashlib

import pytest
import torch
from PIL import Image
from transformers import BertConfig, BlipConfig, GitConfig, InstructBlipConfig, OPTConfig

from blip2vqa import load
from blip2vqa.adapters.ref import BASE, AdapterRef
from blip2vqa.config.common import KeptFeatures
from blip2vqa.config.roles import SCOPES
from blip2vqa.features.encode import Pixels, load_with_features
from blip2vqa.inference.generation import answer_by_batch
from blip2vqa.inference.model_spec import find_model_spec
from blip2vqa.models.families import family_of
from blip2vqa.models.loading import load_config
from blip2vqa.models.text import IGNORE
from blip2vqa.training.collators import COLLATORS
from blip2vqa.training.micro_batches import split_by_tokens
from blip2vqa.training.recipe import finetune
from blip2vqa.utils.errors import InputError
from helpers.family_bases import (
    GENERATIVE,
    MAKERS,
    NEW,
    QUESTIONS,
    Bases,
    adapted,
    examples_of,
    load_float32,
    random_adapter,
    upstream,
    upstream_answer,
)
from helpers.finetune_runs import make_run


@pytest.fixture(scope="session")
def bases(tmp_path_factory) -> Bases:
    return Bases(tmp_path_factory.mktemp("families"))


def training_batch(loaded, images, rows: slice = slice(None)) -> dict[str, torch.Tensor]:
    """Questions and answers of unlike length about different pictures, as training gets them."""
    answers = (("blue",), ("yes no yes",), ("one two",))
    asked = [(f"{row}.png", question, answers[row]) for row, question in enumerate(QUESTIONS)]
    examples = examples_of(images, asked)
    pixels = Pixels({example.digest: example.image for example in examples}, loaded.processor.image_processor)
    text = loaded.family.text_encoder(loaded.processor, loaded.base.config)
    batch = COLLATORS[text.answers_with](text, pixels)([(example, example.answers[0]) for example in examples[rows]])
    return batch | {"pixel_values": batch["pixel_values"].to(loaded.base.dtype)}


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("kind", GENERATIVE)
def test_answers_are_upstreams_alone_and_in_mixed_batches(kind, beams, bases, drawn):
    model = load(bases[kind], dtype="float32", num_beams=beams, max_new_tokens=8)
    images = [drawn[0] / f"{row}.png" for row in range(2) for _ in QUESTIONS]
    asked = list(QUESTIONS) * 2
    single = [model.answer_batch([image], [question])[0] for image, question in zip(images, asked, strict=True)]
    for image, question, answer in zip(images, asked, single, strict=True):
        prompt, end = model.text.fill([question])[0], model.text.end_token_id
        expected = upstream_answer(kind, bases[kind], Image.open(image), prompt, end, num_beams=beams, max_new_tokens=8)
        assert answer.text == expected
    assert len({answer.text for answer in single}) > 2
    for size in (4, 6):
        together = model.answer_batch(images, asked, batch_size=size)
        assert [answer.text for answer in together] == [answer.text for answer in single]
        assert [a.confidence for a in together] == pytest.approx([a.confidence for a in single], rel=1e-4)


@pytest.mark.parametrize("kind", GENERATIVE)
def test_the_loss_of_one_row_is_upstreams(kind, bases, drawn):
    loaded = load_float32(bases[kind], for_training=True)
    text, (_, model) = loaded.family.text_encoder(loaded.processor, loaded.base.config), upstream(kind, bases[kind])
    for row in range(len(QUESTIONS)):
        batch = training_batch(loaded, drawn[0], slice(row, row + 1))
        labels, given = batch["labels"], {name: tensor for name, tensor in batch.items() if name != "keep"}
        if kind == "blip-vqa":  # labels are the decoder's ids, start token included, and shifted in the model
            whole = torch.cat([batch["decoder_input_ids"][:, :1], labels], dim=1)
            given |= {"decoder_input_ids": whole, "labels": whole}
        with torch.no_grad():
            ours = COLLATORS[text.answers_with].LOSS()(
                loaded.model(**{n: t for n, t in batch.items() if n != "labels"}), labels
            )
            assert ours.item() == pytest.approx(model(**given).loss.item(), rel=1e-5)


@pytest.mark.parametrize("kind", NEW)
def test_a_batch_loses_what_its_rows_lose(kind, bases, drawn):
    loaded = adapted(bases[kind], seed=0)
    loaded.model.double()  # random weights are steep: in 32 bits two orders of one sum may differ in the second digit
    text = loaded.family.text_encoder(loaded.processor, loaded.base.config)
    batch = training_batch(loaded, drawn[0])
    labels = batch["labels"]
    count = labels.numel() if kind == "vilt" else int((labels != IGNORE).sum())
    rows = [training_batch(loaded, drawn[0], slice(row, row + 1)) for row in range(len(labels))]
    splits = {"whole": [batch], "rows": rows}
    if not kind == "vilt":
        splits["parts"] = split_by_tokens(batch, batch["input_ids"].shape[1])
        assert 1 < len(splits["parts"])
        full = {name: tensor for name, tensor in batch.items() if name not in ("keep", "labels")}
        with torch.no_grad():
            kept, every = loaded.model(**full, keep=batch["keep"]).logits, loaded.model(**full).logits
        torch.testing.assert_close(kept, every[batch["keep"]], rtol=1e-9, atol=1e-9)
        assert len(kept) == count
    found = {}
    for name, parts in splits.items():
        loaded.model.zero_grad()
        losses = []
        for part in parts:
            loss = COLLATORS[text.answers_with].LOSS()(loaded.model(**part), part["labels"], count)
            loss.backward()
            losses.append(loss.item())
        gradients = {key: p.grad.clone() for key, p in loaded.model.named_parameters() if p.requires_grad}
        found[name] = sum(losses), gradients
    loss, gradients = found.pop("whole")
    for other, theirs in found.values():
        assert other == pytest.approx(loss, rel=1e-5)
        for key in gradients:
            torch.testing.assert_close(theirs[key], gradients[key], rtol=1e-5, atol=1e-7)
    assert min(gradient.abs().max() for gradient in gradients.values()) > 0


@pytest.mark.parametrize("kind", GENERATIVE)
def test_logits_are_the_same_bits_from_what_is_kept(kind, bases, drawn, tmp_path):
    whole = load_float32(bases[kind])
    asked = [(f"{row}.png", question, ("blue",)) for row, question in enumerate(QUESTIONS)]
    examples = examples_of(drawn[0], asked)
    images = {hashlib.sha256((drawn[0] / e.image_name).read_bytes()).hexdigest(): e.image for e in examples}
    part, features, lines = load_with_features(
        lambda parts: load_float32(bases[kind], parts=parts), images, whole.family, ("language_model",),
        KeptFeatures(tmp_path, 1.0), batch_size=3, progress=False,
    )  # fmt: skip
    assert features.name == "image_embeds" and part.base.vision_model is None
    assert lines[0][1].startswith("image_embeds of 3 images, 3 of them new: ")
    text = whole.family.text_encoder(whole.processor, whole.base.config)
    batch = text.training_batch(QUESTIONS, ["blue"] * 3)
    batch.pop("labels")
    with torch.no_grad():
        seen = whole.model(pixel_values=Pixels(images, whole.processor.image_processor).of(images), **batch).logits
        assert torch.equal(part.model(image_embeds=features.of(images), **batch).logits, seen)


def test_vilt_keeps_nothing_and_says_why(bases, drawn, tmp_path):
    family = family_of(load_config(str(bases["vilt"])))
    _, features, (line,) = load_with_features(
        lambda parts: load_float32(bases["vilt"], parts=parts), {}, family, ("language_model",),
        KeptFeatures(tmp_path, 1.0), batch_size=3, progress=False,
    )  # fmt: skip
    assert isinstance(features, Pixels) and not list(tmp_path.iterdir())
    assert line[1].endswith("it looks at picture and question together, so nothing is frozen in front")


@pytest.mark.parametrize("kind", ["instructblip-llama", "instructblip-t5"])
def test_a_question_too_long_for_the_qformer_is_named_by_its_row(kind, bases, drawn):
    loaded = load_float32(bases[kind])
    text = loaded.family.text_encoder(loaded.processor, loaded.base.config)
    # "question", ":", "short", "answer", ":", "[CLS]" and "[SEP]" make letters and words of their own.
    around = int(text.more_inputs([""])["qformer_attention_mask"].sum())
    fits, long = "red " * (512 - around), "red " * (513 - around)
    with pytest.raises(InputError) as caught:
        text.check_lengths(examples_of(drawn[0], [("0.png", fits, ("no",)), ("0.png", long, ("no",))]), 10)
    named = [line for line in caught.value.problems if "Q-Former" in line]
    assert named == ["row 1: 513 tokens for the Q-Former, which has 512 positions; shorten it"]


LAST = {
    "opt": {"language_model": "query_output", "projection": "query_output", "qformer": "image_embeds"},
    "t5": {"language_model": "query_output", "projection": "query_output", "qformer": "image_embeds"},
    "instructblip-llama": {"language_model": "image_embeds", "projection": "image_embeds", "qformer": "image_embeds"},
    "instructblip-t5": {"language_model": "image_embeds", "projection": "image_embeds", "qformer": "image_embeds"},
    "blip-vqa": {"language_model": "image_embeds"},
    "blip-caption": {"language_model": "image_embeds"},
    "vilt": {"language_model": "pixel_values"},
}


@pytest.mark.parametrize("kind", MAKERS)
def test_every_scope_has_its_stage_and_what_a_family_lacks_is_one_error(kind, bases, drawn, tmp_path):
    family = family_of(load_config(str(bases[kind])))
    stages = LAST[kind] | ({} if kind == "vilt" else {"vision": "pixel_values"})
    assert set(family.scopes) == set(stages)
    for scope, stage in stages.items():
        found, why = family.last_frozen_stage((scope,))
        assert found == stage and why
        both, _ = family.last_frozen_stage((scope, "language_model"))
        assert both == found
    absent = [scope for scope in SCOPES if scope not in family.scopes]
    for scope in absent:
        with pytest.raises(InputError) as caught:
            finetune(make_run(bases[kind], drawn, tmp_path / "run", "--lora_scope", scope))
        known = ", ".join(family.scopes)
        assert caught.value.problems == [f"--lora_scope: {family.name} has no {scope}; it has {known}"]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("config", "found"),
    [
        (BertConfig(), "bert"),
        (GitConfig(), "git"),
        (BlipConfig(architectures=["BlipForImageTextRetrieval"]), "blip/BlipForImageTextRetrieval"),
        (BlipConfig(), "blip"),
        (InstructBlipConfig(text_config=OPTConfig()), "instructblip/opt"),
    ],
)  # fmt: skip
def test_a_base_of_no_known_family_is_one_line_that_names_them(config, found, tmp_path):
    config.save_pretrained(tmp_path)
    with pytest.raises(InputError) as caught:
        load_config(str(tmp_path))
    (line,) = caught.value.problems
    assert line.startswith(f"base model: its architecture is {found}, which is not supported; known are ")
    named = (
        "BLIP-2 with OPT",
        "with T5",
        "InstructBLIP with LLaMA",
        "InstructBLIP with T5",
        "BLIP for questions",
        "BLIP for captions",
        "ViLT",
    )
    assert all(known in line for known in named) and "\n" not in line


@pytest.mark.parametrize("kind", [kind for kind in MAKERS if kind != "vilt"])
def test_adapters_side_by_side_in_one_batch_answer_as_alone(kind, bases, drawn, tmp_path):
    names = {name: random_adapter(bases[kind], tmp_path / name, seed) for seed, name in enumerate(("one", "two"))}
    adapters = {AdapterRef.named(name): (str(path), None) for name, path in names.items()}
    source = find_model_spec(None, None, adapters, with_base=True)
    loaded = load_float32(bases[kind])
    source.attach(loaded)
    asked = [(f"{number // 4}.png", QUESTIONS[number % 3 - number // 6], ()) for number in range(9)]
    examples = examples_of(drawn[0], asked)
    pixels = Pixels({example.digest: example.image for example in examples}, loaded.processor.image_processor)

    def said(beams: int, batch_size: int) -> list:
        decoding = {"num_beams": beams, "max_new_tokens": 6}
        requests = [source.request(ref, decoding=decoding) for ref in (*adapters, BASE)] * 3
        batches = answer_by_batch(loaded, pixels, examples, requests, batch_size=batch_size)
        return [answer for _, answer in sorted((pair for batch in batches for pair in batch), key=lambda pair: pair[0])]

    for beams, size in ((1, 9), (3, 5)):
        alone, together = said(beams, 1), said(beams, size)
        texts = [answer.text for answer in alone]
        assert texts[0::3] != texts[1::3] != texts[2::3] != texts[0::3]
        assert [answer.text for answer in together] == texts
        assert [a.confidence for a in together] == pytest.approx([a.confidence for a in alone], abs=1e-5)
    for start, name in enumerate((names["one"], names["two"], bases[kind])):
        plain = load(name, dtype="float32", num_beams=3, max_new_tokens=6)  # merged
        for row in range(start, 9, 3):
            assert plain.answer(drawn[0] / asked[row][0], asked[row][1]) == texts[row]
