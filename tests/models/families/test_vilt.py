"""ViLT, which chooses among a head's outputs: its answers, targets, head and pictures, and what it is refused."""

import json

import pytest
import torch
from PIL import Image
from transformers import ViltForQuestionAnswering

from blip2vqa import load
from blip2vqa.adapters.attach import find_adapter
from blip2vqa.adapters.ref import BASE, AdapterRef
from blip2vqa.features.encode import Pixels
from blip2vqa.inference.generation import answer_by_batch
from blip2vqa.inference.model_spec import find_model_spec
from blip2vqa.models.answer_lists import RANKED, AnswerList
from blip2vqa.models.classes import ClassEncoder, head_answers
from blip2vqa.models.families import family_of
from blip2vqa.models.loading import load_config, load_processor
from blip2vqa.training.checks import check
from blip2vqa.training.collators import ClassCollator, ClassLoss
from blip2vqa.training.recipe import finetune
from blip2vqa.utils.errors import InputError
from helpers.family_bases import QUESTIONS, examples_of, load_float32, random_adapter, watch
from helpers.finetune_runs import adapter_of, make_run
from helpers.tiny_families import ANSWERS, PATCH_SIZE, make_blip_vqa, make_vilt

FEW = ("--max_steps", "2", "--eval_strategy", "no", "--save_strategy", "no")


@pytest.fixture(scope="module")
def vilt(tmp_path_factory):
    return make_vilt(tmp_path_factory.mktemp("vilt") / "base")


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A base of masked words, without a head for answers."""
    return make_vilt(tmp_path_factory.mktemp("vilt") / "bare", answers=None)


@pytest.fixture(scope="module")
def unlike(tmp_path_factory):
    """Pictures of unlike proportions."""
    folder, draw = tmp_path_factory.mktemp("unlike"), torch.Generator().manual_seed(0)
    for number, (width, height) in enumerate([(16, 16), (24, 16), (16, 25), (40, 16), (8, 8)]):
        pixels = torch.randint(0, 256, (height, width, 3), generator=draw, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{number}.png")
    return folder


def encoder(base, answers=None) -> ClassEncoder:
    config = load_config(str(base))
    return family_of(config).text_encoder(load_processor(str(base), config), config, answers=answers)


def asked(folder, *answers: tuple[str, ...]):
    return examples_of(folder, [("0.png", "Red?", given) for given in answers])


def test_answers_are_upstreams_and_ranked_by_their_probability(vilt, unlike):
    model, upstream = load(vilt, dtype="float32"), ViltForQuestionAnswering.from_pretrained(vilt).eval()
    images = [unlike / f"{number}.png" for number in range(5) for _ in QUESTIONS]
    questions = list(QUESTIONS) * 5
    together = model.answer_batch(images, questions)
    for image, question, answer in zip(images, questions, together, strict=True):
        inputs = model.loaded.processor(images=Image.open(image), text=question, return_tensors="pt")
        with torch.no_grad():
            scores = upstream(**inputs).logits[0].sigmoid()
        order = scores.argsort(descending=True).tolist()
        assert answer.text == upstream.config.id2label[order[0]]
        assert [name for name, _ in answer.ranked] == [upstream.config.id2label[place] for place in order[:RANKED]]
        assert [score for _, score in answer.ranked] == pytest.approx(scores[order[:RANKED]].tolist(), abs=1e-5)
        (single,) = model.answer_batch([image], [question])
        assert single.text == answer.text and single.confidence == pytest.approx(answer.confidence, abs=1e-6)
        assert answer.ranked[0] == (answer.text, answer.confidence)
    assert len({tuple(name for name, _ in answer.ranked) for answer in together}) > 1


def test_answers_from_a_shorter_list_are_the_likeliest_of_it(vilt, drawn):
    source = find_model_spec(str(vilt), dtype="float32")
    loaded = load_float32(vilt)
    request = source.request(answers=["Yes.", "no"])
    examples = examples_of(drawn[0], [("0.png", question, ()) for question in QUESTIONS])
    pixels = Pixels({"0.png": examples[0].image}, loaded.processor.image_processor)
    (batch,) = answer_by_batch(loaded, pixels, examples, [request] * 3, batch_size=3)
    plain = load(vilt, dtype="float32").answer_batch([drawn[0] / "0.png"] * 3, QUESTIONS)
    for index, answer in batch:
        expected = {name: score for name, score in plain[index].ranked if name in ("yes", "no")}
        assert dict(answer.ranked) == pytest.approx(expected, abs=1e-6) and len(answer.ranked) == 2
        assert answer.text == max(expected, key=expected.get)
    with pytest.raises(InputError, match="the model has no output for 'purple'"):
        source.request(answers=["yes", "purple"])


def test_upstreams_loss_and_hand_computed_soft_targets(vilt, drawn):
    text, loaded = encoder(vilt), load_float32(vilt)
    ten = ("yes",) * 2 + ("Yes.",) + ("no",) * 3 + ("red",) + ("purple",) * 3
    given = [ten, ("blue",), ("The Red", "red", "red"), ("no",) * 10]
    # Of ten annotators, nine at a time: three that agree are (7 · 1 + 3 · ⅔) / 10 = 0.9, one is 9 · ⅓ / 10 = 0.3.
    expected = torch.tensor(
        [[0.3, 0.0, 0.0, 0.9, 0.9], [0.0, 0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0]]
    )
    torch.testing.assert_close(text.targets(given), expected)
    examples = asked(drawn[0], *given)
    pixels = Pixels({"0.png": examples[0].image}, loaded.processor.image_processor)
    batch = ClassCollator(text, pixels)([(example, example.answers[0]) for example in examples])
    torch.testing.assert_close(batch["labels"], expected)
    upstream = ViltForQuestionAnswering.from_pretrained(vilt).eval()
    with torch.no_grad():
        loss = ClassLoss()(loaded.model(**batch), batch["labels"])
        assert loss.item() == pytest.approx(upstream(**batch).loss.item(), rel=1e-6)


def test_the_list_of_answers_comes_from_the_training_table(drawn):
    rows = asked(drawn[0], ("Red",), ("red",), ("red",), ("a cat",), ("Cat",), ("cat",), ("two",), ("2",), ("no",))
    listed = AnswerList.of(rows, 1)
    assert listed == AnswerList(("red", "a cat", "two", "no"), 0)  # the most frequent first, in its commonest spelling
    assert AnswerList.of(rows, 2) == AnswerList(("red", "a cat", "two"), 1)
    assert AnswerList.of(rows, 3) == AnswerList(("red", "a cat"), 2)
    with pytest.raises(InputError, match="_count 4: no answer is that frequent; the most frequent counts 3"):
        AnswerList.of(rows, 4)


def test_rows_without_an_answer_that_can_be_learnt_are_left_out_and_counted(vilt, drawn, tmp_path):
    whole = check(make_run(vilt, drawn, tmp_path / "whole"))
    assert set(whole.answers) == {"one", "no", "red", "green", "yellow", "yes", "blue"} and len(whole.train) == 30
    assert whole.note == "0 rarer ones and 0 training questions left out; 0 of 6 validation questions ask for others"
    few = check(make_run(vilt, drawn, tmp_path / "few", "--min_answer_count", "4"))
    frequent = {name for name in whole.answers if sum(e.answer == name for e in whole.train) >= 4}
    kept = [example for example in whole.train if example.answer in frequent]
    assert set(few.answers) == frequent and few.train == kept and few.val == whole.val
    lost = sum(example.answer not in frequent for example in whole.val)
    assert 0 < len(kept) < 30 and few.note == (
        f"{7 - len(frequent)} rarer ones and {30 - len(kept)} training questions left out; "
        f"{lost} of 6 validation questions ask for others"
    )


def test_a_head_knows_again_what_the_base_knew(vilt, bare):
    own = load_float32(vilt).base.classifier
    answers = ("purple", "yes", "red", "cat")
    first, second = (load_float32(vilt, answers=answers).base for _ in range(2))
    assert "answer head: 4 answers, 2 of which the base knew" in load_float32(vilt, answers=answers).notes
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)  # new ones, too, are drawn alike
    for place, source in ((1, ANSWERS.index("yes")), (2, ANSWERS.index("red"))):
        assert torch.equal(first.classifier[-1].weight[place], own[-1].weight[source])
        assert torch.equal(first.classifier[-1].bias[place], own[-1].bias[source])
    fresh = first.classifier[-1].weight[[0, 3]]
    assert 0 < fresh.abs().max() < 0.1 and not first.classifier[-1].bias[[0, 3]].any()
    assert torch.equal(first.classifier[0].weight, own[0].weight)
    assert first.config.id2label == dict(enumerate(answers)) and head_answers(first.config) == answers
    one, other = (load_float32(bare, answers=answers).base.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)  # a whole head of random weights


def test_patches_are_upstreams_without_its_random_numbers(vilt, unlike):
    loaded, upstream = load_float32(vilt), ViltForQuestionAnswering.from_pretrained(vilt).eval()
    found = loaded.processor.image_processor([Image.open(unlike / f"{n}.png") for n in range(5)], return_tensors="pt")
    pixels, mask = found["pixel_values"], found["pixel_mask"]
    assert 0 < mask.float().mean() < 1
    embeddings = upstream.vilt.embeddings
    with torch.no_grad():
        before = torch.get_rng_state()
        ours, seen, _ = loaded.base.vilt.embeddings.visual_embed(pixels, mask)
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(1)
        theirs, their_mask, (indices, _) = embeddings.visual_embed(pixels, mask, max_image_length=-1)
    assert seen.sum(1).tolist() == their_mask.sum(1).tolist() and ours.shape == theirs.shape
    for row, rectangle in enumerate(mask):
        tall, wide = int(rectangle[:, 0].sum()) // PATCH_SIZE, int(rectangle[0].sum()) // PATCH_SIZE
        length = int(seen[row].sum())
        assert length == tall * wide + 1 and seen[row, :length].all()
        places = {tuple(place.tolist()): 1 + at for at, place in enumerate(indices[row][: length - 1])}
        order = [0, *(places[y, x] for y in range(tall) for x in range(wide))]
        torch.testing.assert_close(ours[row, :length], theirs[row, order], rtol=0, atol=1e-6)


def test_a_base_without_a_head_answers_under_an_adapter_alone(bare, drawn, tmp_path):
    with pytest.raises(InputError, match="it has no head for answers yet; fine-tune it, or name an adapter"):
        load(bare)
    finetune(make_run(bare, drawn, tmp_path / "run", *FEW))
    rows = [line.split(",") for line in (tmp_path / "run" / "predictions.csv").read_text().splitlines()[1:]]
    said = load(tmp_path / "run", dtype="float32").answer_batch(
        [drawn[0] / row[0] for row in rows], [row[1] for row in rows]
    )
    assert [answer.text for answer in said] == [row[5] for row in rows]
    assert any("classifier.3" in name for name in adapter_of(tmp_path / "run"))


def test_the_head_trains_and_answers_in_32_bits_on_a_base_of_16(vilt, drawn, tmp_path):
    """In 16 bits, steps of a usual size would leave it as it was."""
    run = watch(make_run(vilt, drawn, tmp_path / "run", *FEW, "--dtype", "bfloat16", "--learning_rate", "1e-5"))
    head = load_float32(vilt, answers=tuple(run.manifest["answers"])).base.classifier.state_dict()
    saved = {name.split("classifier.")[1]: value for name, value in adapter_of(run.folder).items() if "classi" in name}
    model = load(run.folder, dtype="bfloat16")
    loaded = model.loaded.base.classifier.state_dict()
    for name, before in head.items():
        assert saved[name].dtype == loaded[name].dtype == torch.float32 and torch.equal(saved[name], loaded[name])
        assert 0 < (saved[name] - before.bfloat16().float()).abs().max() < 1e-4
    assert next(model.loaded.base.vilt.parameters()).dtype == torch.bfloat16
    rows = run.predictions
    said = model.answer_batch([drawn[0] / row["image_name"] for row in rows], [row["question"] for row in rows])
    for answer, row in zip(said, rows, strict=True):
        assert answer.confidence == pytest.approx(float(row["confidence"]), abs=2e-2)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--task", "caption"), "--task caption: ViLT chooses or writes answers to questions"),
        (("--tokens_per_batch", "100"), "--tokens_per_batch: this base does not split batches"),
        (("--label_smoothing_factor", "0.1"), "--label_smoothing_factor: this base's targets are soft by themselves"),
        (("--lora_roles", "gate"), "ViLT has no gate layers; it has q, k, v, o, up, down"),
        (("--min_answer_count", "0"), "--min_answer_count: 0 is out of range"),
    ],
)
def test_what_does_not_go_with_it_is_one_line(flags, message, vilt, drawn, tmp_path):
    images, table = drawn
    if "caption" in flags:
        table = tmp_path / "captions.csv"
        table.write_text("image_name,caption\n" + "".join(f"{n}.png,a square\n" for n in range(12)))
    with pytest.raises(InputError) as caught:
        finetune(make_run(vilt, (images, table), tmp_path / "run", *flags))
    (problem,) = caught.value.problems
    assert problem.startswith(message) or message in problem
    assert not (tmp_path / "run" / "run.json").exists()


def test_captions_are_refused_by_blip_for_questions(drawn, tmp_path):
    base, table = make_blip_vqa(tmp_path / "base"), tmp_path / "captions.csv"
    table.write_text("image_name,caption\n" + "".join(f"{n}.png,a square\n" for n in range(12)))
    with pytest.raises(InputError, match="--task caption: BLIP for questions chooses or writes") as caught:
        finetune(make_run(base, (drawn[0], table), tmp_path / "run", "--task", "caption"))
    assert len(caught.value.problems) == 1


def test_a_question_of_more_than_forty_tokens_is_named_by_its_row(vilt, drawn, tmp_path):
    table = tmp_path / "table.csv"
    fits, long = "red " * 37 + "?", "red " * 38 + "?"  # with "[CLS]" and "[SEP]" 40 and 41
    table.write_text("image_name,question,answer\n" + f"0.png,{fits},yes\n1.png,{long},no\n2.png,Red?,no\n")
    with pytest.raises(InputError) as caught:
        check(make_run(vilt, (drawn[0], table), tmp_path / "run"))
    problem, total = caught.value.problems
    assert problem == "row 3: 41 tokens, but the base model has 40 positions; shorten it"
    assert "1 of 3 rows cannot be used" in total and "--on_bad_row skip" in total


def test_adapters_of_unlike_answers_side_by_side_answer_as_alone(vilt, drawn, tmp_path):
    lists = {"one": ("red", "yes", "purple"), "two": ("no", "cat", "blue", "two"), "": ANSWERS}
    adapters = {
        name: random_adapter(vilt, tmp_path / name, seed, prompt="{question}", answers=list(answers))
        for seed, (name, answers) in enumerate(lists.items())
        if name
    }
    for name, path in adapters.items():
        assert find_adapter(str(path)).answers == lists[name]
    given = {AdapterRef.named(name): (str(path), None) for name, path in adapters.items()}
    source = find_model_spec(None, None, given, with_base=True)
    loaded = load_float32(vilt)
    source.attach(loaded)
    names = [*lists] * 4
    requests = [source.request(AdapterRef.named(name) if name else BASE) for name in names]
    examples = examples_of(drawn[0], [(f"{row}.png", QUESTIONS[row // 4], ()) for row in range(12)])
    pixels = Pixels({example.digest: example.image for example in examples}, loaded.processor.image_processor)
    for size in (1, 5, 12):
        batches = answer_by_batch(loaded, pixels, examples, requests, batch_size=size)
        said = dict(pair for batch in batches for pair in batch)
        for name in lists:
            alone = load(adapters[name], dtype="float32") if name else load(vilt, dtype="float32")
            assert alone.text.answers == lists[name]
            for row, example in enumerate(examples):
                if names[row] == name:
                    expected = alone.answer_batch([example.image.path], [example.question])[0]
                    assert said[row].text == expected.text
                    assert dict(said[row].ranked) == pytest.approx(dict(expected.ranked), abs=1e-5)


def test_the_manifests_answers_are_the_heads(vilt, drawn, tmp_path):
    listed = tmp_path / "answers.txt"
    listed.write_text("yes\nno\nred\ngreen\nblue\nyellow\none\ntwo\n")
    finetune(make_run(vilt, drawn, tmp_path / "run", "--answers", str(listed), *FEW))
    answers = listed.read_text().split()
    assert json.loads((tmp_path / "run" / "blip2vqa.json").read_text())["answers"] == answers
    model = load(tmp_path / "run", dtype="float32")
    assert list(model.text.answers) == answers and len(model.loaded.base.classifier[-1].bias) == 8
    assert model.request.tree is None or list(model.request.tree.answers) == answers


def test_answers_alike_to_the_tokenizer_are_two_outputs(vilt, unlike, tmp_path):
    """No answer is ever tokenized: words that the vocabulary has not, and long ones, are as good as others."""
    table = tmp_path / "table.csv"
    said = ["日本", "中国", "a very long answer " * 20]
    rows = [f"{number}.png,Where is it?,{answer}" for number in range(4) for answer in said]
    table.write_text("\n".join(["image_name,question,answer", *rows]))
    tables = check(make_run(vilt, (unlike, table), tmp_path / "run", "--max_new_tokens", "50"))
    assert {"日本", "中国"} < set(tables.answers)


def test_a_run_does_not_go_on_with_other_answers(vilt, unlike, tmp_path):
    table, out = tmp_path / "table.csv", tmp_path / "run"
    rows = [
        f"{number}.png,What is it?,{answer}" for number, answer in enumerate(["red", "green", "red", "blue", "red"])
    ]
    table.write_text("\n".join(["image_name,question,answer", *rows]))
    flags = ("--epochs", "1", "--seed", "3")
    finetune(make_run(vilt, (unlike, table), out, *flags))
    for name in ("metrics.json", "adapter_config.json"):
        (out / name).unlink()
    table.write_text(table.read_text().replace("green", "violet"))
    with pytest.raises(InputError, match=r"are not those that the run in .* was begun with"):
        check(make_run(vilt, (unlike, table), out, *flags, "--epochs", "2", "--resume_from_checkpoint", "true"))
