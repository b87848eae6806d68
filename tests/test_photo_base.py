"""How the photo base is made: what it may not see, what it is asked, and that a stopped training ends as one that was not."""

import csv
import io
import random
import sys
import tarfile
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import CountVectorizer
from transformers import AutoTokenizer, Blip2ForConditionalGeneration

from blip2vqa import load
from blip2vqa.generate.catalogue.vocabulary import vocabulary, words
from blip2vqa.utils.errors import InputError
from helpers.drawn_catalogue import PAINTS, drawn_items, photograph
from helpers.paths import ROOT

sys.path.append(str(ROOT / "assets"))

import make_photo_base
import new_picture_side
from photo_base import language, meanings, model, teacher, vision
from photo_base.data import Photographs, look_alikes, plain_name, product_groups, read_photographs
from photo_base.heads import Heads, Targets, count_facts, encode_facts, measure_colors
from photo_base.progress import Checkpoint, Progress
from photo_base.qformer import CellTargets
from photo_base.texts import Text, ask_sort, find_sorts, write_texts, wrong_value
from photo_base.vision import SIDE, augment

NAMES = ("leather boot", "wooden chair", "steel knife", "cotton towel", "glass vase", "travel backpack")
UNKNOWN = 20
"""Photographs of which the catalogue says nothing."""


def noisy_photograph(number: int) -> Image.Image:
    """A product that no other number looks like."""
    rng = random.Random(number)
    paints = [rng.choice(list(PAINTS)) for _ in range(rng.randint(1, 4))]
    picture = photograph(
        *paints, form=rng.choice(("box", "ellipse")), size=(rng.randint(40, 110), rng.randint(40, 110))
    )
    spots = np.asarray(picture).copy()
    for _ in range(6):
        x, y = rng.randrange(100), rng.randrange(100)
        spots[y : y + 28, x : x + 28] = [rng.randrange(256) for _ in range(3)]
    return Image.fromarray(spots)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Eighty photographs in two tar files, the catalogue of sixty, and a table of pictures that may not be seen."""
    folder = tmp_path_factory.mktemp("photos")
    rows = []
    for archive in (0, 1):
        with tarfile.open(folder / f"photos-{archive}.tar", "w") as tar:
            for number in range(archive * 40, archive * 40 + 40):
                noisy_photograph(number).save(data := io.BytesIO(), "JPEG", quality=90)
                member = tarfile.TarInfo(f"{number:02d}.jpg")
                member.size = len(data.getvalue())
                tar.addfile(member, io.BytesIO(data.getvalue()))
                name = NAMES[number % len(NAMES)]
                if number >= UNKNOWN:
                    rows.append(
                        (f"{number:02d}.jpg", f"{name} no {'abcdefghij'[number // 8]}", name.split()[1], "", "")
                    )
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image_name", "name", "product_type", "color", "keywords"), *rows])
    unseen = folder / "unseen"
    (unseen / "images").mkdir(parents=True)
    for number in (3, 33):
        noisy_photograph(number).resize((200, 200)).save(unseen / "images" / f"other{number}.jpg", quality=70)
    (unseen / "table.csv").write_text("image_name,question,answer\nother3.jpg,what?,boot\nother33.jpg,what?,boot\n")
    return folder


def test_nothing_is_learnt_from_what_is_held_out_or_unseen(photos, tmp_path):
    found = read_photographs(photos, photos / "unseen" / "table.csv", tmp_path, 12, seed=0)
    assert len(found.held_items) == 12
    held = {item.image_name for item in found.held_items}
    assert not held & set(found.names) and not {"03.jpg", "33.jpg"} & set(found.names)
    with (photos / "metadata.csv").open(newline="") as file:
        titles = {row["image_name"]: plain_name(row["name"]) for row in csv.DictReader(file)}
    same = {name for name, title in titles.items() if title in {titles[one] for one in held}}
    assert len(found.names) == 80 - len(same | {"03.jpg", "33.jpg"})
    shown = Image.open(found.folder / found.names[5]).convert("RGB").resize((128, 128), Image.Resampling.BICUBIC)
    assert np.array_equal(found.pixels[found.rows[5]], np.asarray(shown))
    learnt = {plain_name(title) for title in found.titles if title}
    assert not {plain_name(item.name) for item in found.held_items} & learnt
    again = read_photographs(photos, photos / "unseen" / "table.csv", tmp_path, 12, seed=0)
    assert again.names == found.names and np.array_equal(again.rows, found.rows)
    with pytest.raises(InputError, match="from other photographs or another --seed; give a new folder"):
        read_photographs(photos, None, tmp_path, 12, seed=0)


def test_groups_follow_looks_and_names_through():
    def product(name: str, group: int):
        return replace(drawn_items(1)[0], name=name, group=group)

    looks = [
        product("Boot, 38", 1),
        product("Shoe", 1),
        product("boot 39 (M)", 2),
        product("Chair", 3),
        product("Shoe", 4),
    ]
    one, two, three, four, five = product_groups(looks)
    assert one == two == three == five != four


@pytest.mark.parametrize(
    "photographs, unseen, held_out, message",
    [
        ("absent", None, 12, "--photos .*absent: no such folder"),
        ("", "absent.csv", 12, "--unseen .*absent.csv: no table with a column image_name"),
        ("", "metadata.csv", 12, "--unseen .*metadata.csv: .*images/20.jpg: cannot be read"),
        ("", None, 0, "--held_out 0: give the number of photographs"),
    ],
)
def test_what_is_missing_is_said(photos, tmp_path, photographs, unseen, held_out, message):
    with pytest.raises(InputError, match=message):
        read_photographs(photos / photographs, unseen and photos / unseen, tmp_path, held_out, seed=0)


def test_look_alikes_differ_in_few_bits():
    hashes = np.array([0b1111, 0b11111111, 1 << 63], np.uint64)
    assert look_alikes(hashes, np.array([0], np.uint64)).tolist() == [True, False, True]


@pytest.fixture(scope="module")
def questions():
    items = dict(enumerate(drawn_items(80)))
    return items, write_texts(items, {0: "AmazonBasics 4-piece steel knife (black), pack of 2"}, seed=0, rounds=2)


def test_wrong_values_are_wrong(questions):
    items, _ = questions
    rng, could = random.Random(0), vocabulary().could_both_be
    kinds = ("object", "color", "material", "pattern")
    values = {kind: Counter(item.facts[kind] for item in items.values() if kind in item.facts) for kind in kinds}
    drawn = [(item, kind, wrong_value(item, kind, values, rng)) for item in items.values() for kind in kinds]
    told = [(item, kind, value) for item, kind, value in drawn if value]
    assert len(told) > 100
    for item, kind, value in told:
        assert not could(kind, item.facts[kind], value) and value not in item.not_wrong | item.named


@pytest.mark.parametrize("form, agreeing", [("yes/no", "yes"), ("negated", "no")])
def test_yes_and_no_follow_the_facts(questions, form, agreeing):
    items, (_, asked) = questions
    checked = Counter()
    for text in asked:
        if text.kind == f"{form} color":
            (value,) = vocabulary().phrases["color"].meanings(text.prompt)
            is_true = value == items[text.row].facts["color"]
            assert text.target == (agreeing if is_true else {"yes": "no", "no": "yes"}[agreeing])
            checked[text.target] += 1
    assert min(checked["yes"], checked["no"]) > 10


def test_captions_say_facts_and_cleaned_names(questions):
    items, (told, _) = questions
    assert {text.target for text in told if text.kind == "name"} == {"steel knife"}
    captions = {text.row: text.target for text in told if text.kind == "caption"}
    assert len(captions) == len(items)
    articles = {"scissors": ["a", "pair", "of"], "headphones": ["a", "pair", "of"], "dinnerware": []}
    for row, caption in captions.items():
        facts = items[row].facts
        kinds = ("color", "pattern", "material", "object")
        said = list(dict.fromkeys(facts[kind] for kind in kinds if facts.get(kind, "solid") != "solid"))
        article = articles.get(facts["object"], ["an" if said[0][0] in "aeiou" else "a"])
        assert words(caption) == [*article, *said]


def test_sorts_of_things_and_of_their_parts_are_asked_about():
    names = ["Ankle boot, block heel", "Ankle boot, kitten heel", "Chelsea boot, block heel", "Ankle boot", "Red boot"]
    titles = dict(enumerate([*names, "Shoe with block heel", "Red boot", "Red boot", ""]))
    ankle, block = ("ankle", "boot"), ("block", "heel")
    assert find_sorts(titles) == {0: [ankle, block], 1: [ankle], 2: [block], 3: [ankle], 5: [block]}
    asked = {ask_sort(0, "block", "heel", random.Random(seed)).prompt for seed in range(40)}
    assert all("heel" in prompt for prompt in asked) and any("does it have" in prompt for prompt in asked)
    (one,) = {ask_sort(0, "ankle", "boot", random.Random(seed)).target for seed in range(5)}
    assert one == "ankle"


def test_maps_are_cut_and_mirrored_as_the_pictures_are():
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 128), torch.linspace(0, 1, 128), indexing="ij")
    images = torch.stack([rows, columns, (rows + columns) / 2])[None].repeat(16, 1, 1, 1)
    maps, _ = measure_colors(images, SIDE)
    images, maps = augment(images, maps, np.random.default_rng(0))
    colors, _ = measure_colors(images, SIDE)
    inside = slice(None), [row * SIDE + column for row in range(1, SIDE - 1) for column in range(1, SIDE - 1)]
    brightness = (colors[inside].mean((1, 2)) / maps[inside].mean((1, 2)))[:, None, None]
    assert torch.allclose(colors[inside], (maps[inside] * brightness).clamp(max=1), atol=0.03)
    assert (colors[:, 0] - colors[:, SIDE - 1])[:, 1].sign().unique().tolist() == [-1, 1]  # some are mirrored


def test_cells_follow_a_mirrored_picture():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 128, 128, 3), np.uint8)
    maps = rng.normal(size=(3, SIDE * SIDE, teacher.DEPTH)).astype(np.float16)
    other = {"pooled": np.zeros((3, teacher.WIDTH), np.float16), "classes": np.zeros((3, teacher.CLASSES), np.float16)}
    targets = Targets(maps, **other, facts=torch.zeros(3, 6).long(), names=torch.zeros(3, teacher.NAME_WIDTH))
    photographs = Photographs(Path(), [], pixels, np.arange(3), [], [], [], np.arange(0))
    cells = CellTargets(photographs, targets)
    plain, mirrored = cells.batch(np.array([2, 0]), False), cells.batch(np.array([2, 0]), True)
    for name in ("maps", "colors"):
        square = plain[name].unflatten(1, (4, 4))
        assert torch.allclose(square.flip(2).flatten(1, 2), mirrored[name], atol=1e-5), name
    assert torch.allclose(
        plain["maps"][0, 0], torch.tensor(maps[2].astype(np.float32)).unflatten(0, (SIDE, SIDE))[:2, :2].mean((0, 1))
    )


def fake_network():
    """In place of the ImageNet network: features that depend on the picture's colors."""
    turn = torch.randn(3, teacher.WIDTH, generator=torch.Generator().manual_seed(0))

    def run(pictures):
        colors, _ = measure_colors(vision.to_images(np.ascontiguousarray(pictures)), SIDE)
        features = colors @ turn
        return features, features.mean(1)[:, : teacher.CLASSES]

    return run


def fake_encoder(names):
    """In place of the sentence encoder: numbers that depend on each text alone."""
    seeds = [zlib.crc32(name.encode()) for name in names]
    rows = [torch.randn(teacher.NAME_WIDTH, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.nn.functional.normalize(torch.stack(rows), dim=1)


def make(monkeypatch, photos, work: Path, output: Path, *more: str | Path) -> None:
    """Run the script with few steps."""
    monkeypatch.setattr(make_photo_base, "load_network", fake_network)
    monkeypatch.setattr(make_photo_base, "QUESTIONS", 200)
    kinds = ("caption", "question", "meaning")
    schedule = tuple(((place + 0.5) / 3, {kind: 1}) for place, kind in enumerate(kinds))
    monkeypatch.setattr(make_photo_base, "WHOLE_SCHEDULE", schedule)
    for module in (make_photo_base, meanings, model):
        monkeypatch.setattr(module, "encode_names", fake_encoder)
    options = {"--photos": photos, "--unseen": photos / "unseen" / "table.csv", "--work": work, "--output": output}
    sizes = {"--held_out": 12, "--vision_epochs": 6, "--qformer_epochs": 6, "--language_steps": 3}
    given = [*more, *(word for pair in (options | sizes).items() for word in pair)]
    monkeypatch.setattr(sys, "argv", ["make_photo_base.py", *map(str, given)])
    make_photo_base.main()


def test_a_stopped_training_ends_as_one_that_was_not(monkeypatch, photos, tmp_path):
    monkeypatch.setattr(Checkpoint, "EVERY", 0)
    make(monkeypatch, photos, tmp_path / "work", tmp_path / "base")
    counted, step = [], Progress.step

    def stop(self, number, losses, rows):
        step(self, number, losses, rows)
        counted.append(self.name)
        if counted.count(self.name) == 2 and stops.count(self.name) == 0:
            stops.append(self.name)
            raise KeyboardInterrupt

    stops: list[str] = []
    monkeypatch.setattr(Progress, "step", stop)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            make(monkeypatch, photos, tmp_path / "stopped-work", tmp_path / "stopped")
    make(monkeypatch, photos, tmp_path / "stopped-work", tmp_path / "stopped")
    assert stops == ["ViT", "Q-Former", "texts"]
    assert (tmp_path / "stopped" / "model.safetensors").read_bytes() == (
        tmp_path / "base" / "model.safetensors"
    ).read_bytes()

    base = load(str(tmp_path / "base"), dtype="float32")
    assert isinstance(base.answer(photos / "unseen" / "images" / "other3.jpg", "What is it?"), str)


@pytest.fixture(scope="module")
def small_base(photos, tmp_path_factory) -> tuple[Path, Path]:
    """A base of few steps, and the work folder that it was made in."""
    folder = tmp_path_factory.mktemp("base")
    with pytest.MonkeyPatch.context() as monkeypatch:
        make(monkeypatch, photos, folder / "work", folder / "base")
    return folder / "base", folder / "work"


def test_a_base_may_take_the_vit_of_another(monkeypatch, photos, small_base, tmp_path):
    base, _ = small_base
    make(monkeypatch, photos, tmp_path / "work", tmp_path / "new", "--vision_of", base, "--seed", "1")
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "new"))
    same = {name.split(".")[0] for name in before if torch.equal(before[name], after[name])}
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert "vision_model" in same - changed and {"qformer", "language_model"} <= changed
    with pytest.raises(InputError, match="absent: no base is there"):
        make(monkeypatch, photos, tmp_path / "other", tmp_path / "other", "--vision_of", "absent")
    with pytest.raises(InputError, match="tiny-blip2-opt: its ViT has another size"):
        other = tmp_path / "other"
        make(monkeypatch, photos, other, other, "--vision_of", ROOT / "assets" / "tiny-blip2-opt")


@torch.no_grad()
def test_texts_about_one_photograph_do_not_see_each_other(small_base):
    base = Blip2ForConditionalGeneration.from_pretrained(small_base[0], attn_implementation="eager").eval()
    encoder = language.build_encoder(base, AutoTokenizer.from_pretrained(small_base[0]))
    texts = [Text(0, "", "Question: What is it? Answer:", "boot"), Text(0, "", "", "a boot"), Text(0, "", "Say:", "")]
    pairs = language.encode_texts(encoder, texts)
    queries = torch.randn(1, model.QUERIES, model.WIDTH, generator=torch.Generator().manual_seed(0))
    states, labels = language.run_language_model(base, encoder, queries.expand(2, -1, -1), [pairs, pairs[1:]])
    together, said = language.supervised_logits(base, states[-1], labels)
    alone = []
    for text, (_, target) in zip(texts + texts[1:], pairs + pairs[1:], strict=True):
        batch = encoder.tokenizer([text.prompt], return_tensors="pt")["input_ids"]
        ids = torch.cat([batch, torch.tensor([target])], 1)
        embeds = torch.cat([base.language_projection(queries), base.get_input_embeddings()(ids)], 1)
        logits = base.language_model(inputs_embeds=embeds, attention_mask=torch.ones(embeds.shape[:2])).logits
        alone.append(logits[0, -len(target) - 1 : -1])
    assert said.tolist() == [token for _, target in pairs + pairs[1:] for token in target]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-4)


def renew(monkeypatch, photos: Path, base: Path, work: Path, output: Path) -> None:
    """Fit a new picture side to a base, in few steps."""
    monkeypatch.setattr(model, "encode_names", fake_encoder)
    options = {"--photos": photos, "--unseen": photos / "unseen" / "table.csv", "--work": work, "--output": output}
    given = [base, "--held_out", 12, "--steps", 3, *(word for pair in options.items() for word in pair)]
    monkeypatch.setattr(sys, "argv", ["new_picture_side.py", *map(str, given)])
    new_picture_side.main()


def test_a_new_picture_side_leaves_the_language_model_and_goes_on_where_it_stopped(
    monkeypatch, photos, small_base, tmp_path
):
    base, _ = small_base
    monkeypatch.setattr(Checkpoint, "EVERY", 0)
    renew(monkeypatch, photos, base, tmp_path / "work", tmp_path / "new")
    step, counted = Progress.step, []

    def stop(self, number, losses, rows):
        step(self, number, losses, rows)
        counted.append(number)
        if len(counted) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "step", stop)
    with pytest.raises(KeyboardInterrupt):
        renew(monkeypatch, photos, base, tmp_path / "stopped", tmp_path / "again")
    renew(monkeypatch, photos, base, tmp_path / "stopped", tmp_path / "again")
    assert counted == [0, 1, 1, 2]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("new", "again")]
    assert weights[0] == weights[1]
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "new"))
    same = {name.split(".")[0] for name in before if torch.equal(before[name], after[name])}
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"query_tokens", "qformer", "language_projection"} and {"vision_model", "language_model"} <= same


@pytest.mark.parametrize(
    "base, output, message",
    [("absent", "new", "absent: no base is there"), ("base", "base", "it is the base that is read")],
)
def test_what_is_taught_is_checked(monkeypatch, photos, small_base, tmp_path, base, output, message):
    folder = small_base[0].parent
    with pytest.raises(InputError, match=message):
        renew(monkeypatch, photos, folder / base, tmp_path / "work", folder / output)


def test_questions_of_all_sorts_are_told_apart_by_what_they_mean(small_base):
    """The layer that says what a question means learns it of questions that it has never read."""
    words = ["boot", "heel", "buckle", "red", "leather", "lamp", "shade", "how", "round", "chair", "wheels", "lid"]
    asked = meanings.write_questions(words, 600, seed=0)
    assert len(set(asked)) == 600 and meanings.write_questions(words, 600, seed=0) == asked
    bags = CountVectorizer(token_pattern=r"\w+", ngram_range=(1, 2)).fit_transform(asked)
    means = TruncatedSVD(teacher.NAME_WIDTH // 2, random_state=0).fit_transform(bags)
    means = np.concatenate([means - means.mean(0)] * 2, 1).astype(np.float32)
    torch.manual_seed(0)
    base = Blip2ForConditionalGeneration.from_pretrained(small_base[0], attn_implementation="eager")
    encoder = language.build_encoder(base, AutoTokenizer.from_pretrained(small_base[0]))
    head, rng = meanings.Meaning(), random.Random(0)
    sampler, others = (meanings.MeaningSampler(asked[part], means[part]) for part in (slice(0, 500), slice(500, None)))
    optimizer = torch.optim.AdamW([*base.language_model.parameters(), *head.parameters()], lr=1e-3)

    def lose(drawn: meanings.MeaningSampler) -> torch.Tensor:
        prompts, wanted = drawn.draw(64, rng)
        pairs = language.encode_texts(encoder, [Text(0, "meaning", prompt, "") for prompt in prompts])
        groups = [pairs[at : at + 4] for at in range(0, 64, 4)]
        states, labels = language.run_language_model(base, encoder, torch.zeros(16, model.QUERIES, model.WIDTH), groups)
        return head.loss(language.states_before(states[meanings.MEANING_LAYER], labels), wanted)

    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = lose(sampler)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        assert lose(others).item() < 0.8 * losses[0]
    later = base.language_model.model.decoder.layers[meanings.MEANING_LAYER]
    assert all(weight.grad is None or not weight.grad.any() for weight in later.parameters())


def test_the_embedded_base_is_small_and_sees():
    folder = ROOT / "assets" / "photo-blip2-opt"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 24e6
    with (ROOT / "assets" / "photos" / "products.csv").open(newline="", encoding="utf-8") as file:
        colors = {
            row["image_name"]: row["color"] for row in csv.DictReader(file) if row["color"] in ("black", "red", "blue")
        }
    pictures = [ROOT / "assets" / "photos" / "images" / name for name in colors]
    base = load(str(folder))
    said = [answer.text for answer in base.answer_batch(pictures, ["What color is it?"] * len(pictures))]
    right = [answer == color for answer, color in zip(said, colors.values(), strict=True)]
    assert len(right) > 80 and sum(right) / len(right) > 0.8


def test_facts_are_numbered_by_kind():
    items = [*drawn_items(20), None]
    values = count_facts(items)
    numbers = encode_facts(items, values)
    place = list(values).index("color")
    for item, number in zip(items[:-1], numbers[:, place].tolist(), strict=False):
        assert item.facts.get("color") == (values["color"][number] if number >= 0 else None)
    assert (numbers[-1] == -100).all() and Heads(values).sizes == list(map(len, values.values()))
