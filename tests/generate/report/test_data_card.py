"""The card, the picture and the tables of a made data set say what its summary says, and claim nothing else."""

import copy
import io

import numpy as np
import pytest
from huggingface_hub import DatasetCard
from PIL import Image

from blip2vqa.generate.report.data_card import data_card
from blip2vqa.generate.report.data_summary import print_summary
from blip2vqa.generate.report.distributions import draw_distributions

SUMMARY = {
    "output_path": "/home/someone/out/vqa.csv",
    "catalogue": {"kind": "abo", "path": "/data/abo mini", "listings": 14_702, "left_out": {}, "unsaid": {}},
    "backend": "templates", "model": None, "check_model": None, "preview": None, "seed": 42,
    "command": "python generate_vqa.py --abo_dir '/data/abo mini' --output_path=/home/someone/out/vqa.csv --seed 42",
    "versions": {"python": "3.11.9"}, "counts": {"pictures": 1_601, "products": 1_502, "questions": 9_003},
    "splits": {
        "train": {"questions": 7_204, "pictures": 1_281, "products": 1_205},
        "val": {"questions": 1_799, "pictures": 320, "products": 297},
        "test": {"questions": 0, "pictures": 0, "products": 0},
    },
    "question_types": {
        "color": {"n": 4_000, "answers": {f"shade{number:02}": 100 for number in range(39)} | {"black": 100}},
        "yes/no": {"n": 5_003, "answers": {"yes": 2_503, "no": 2_500}}, "style": {"n": 0, "answers": {}},
    },
    "product_types": {"cellular_phone_case": 900, "chair": 701},
    "funnel": [
        {"step": "asked", "dropped": 0, "left": 12_986, "reasons": {}},
        {"step": "balance", "dropped": 3_983, "left": 9_003, "reasons": {f"r{place}": 2_000 >> place for place in range(8)}},
    ],
    "blind": {"before": 0.481, "after": 0.333, "limit": 0.35}, "cost": None,
}  # fmt: skip
NOTHING = {"questions": 0, "pictures": 0, "products": 0}
EMPTY = dict.fromkeys(SUMMARY["splits"], NOTHING)
UNKNOWN = {"before": None, "after": None, "limit": 0.35}


def changed(**more) -> dict:
    return copy.deepcopy(SUMMARY) | more


def cells(text: str, first: str) -> list[str]:
    """The cells of the one row of a Markdown table that begins with `first`."""
    (row,) = [line for line in text.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in row.strip("|").split(" | ")]


# Card


def test_the_front_matter_is_what_the_hub_reads():
    data = DatasetCard(data_card(SUMMARY)).data.to_dict()
    assert data == {
        "language": ["en"], "license": "cc-by-4.0", "task_categories": ["visual-question-answering"],
        "size_categories": ["1K<n<10K"], "pretty_name": "vqa", "annotations_creators": ["machine-generated"],
        "source_datasets": ["extended"],
        "configs": [
            {"config_name": "default", "data_files": [
                {"split": "train", "path": "vqa.train.csv"}, {"split": "validation", "path": "vqa.val.csv"},
            ]},
        ],
    }  # fmt: skip


@pytest.mark.parametrize(("questions", "size"), [(0, "n<1K"), (999, "n<1K"), (1_000, "1K<n<10K"), (10**6, "1M<n<10M")])
def test_size_categories_end_where_the_hubs_do(questions, size):
    counts = SUMMARY["counts"] | {"questions": questions}
    assert DatasetCard(data_card(changed(counts=counts))).data.size_categories == [size]


def test_its_numbers_are_those_of_the_summary():
    text = data_card(SUMMARY, "vqa.png")
    assert "9,003 questions on 1,601 pictures of 1,502 products" in text
    assert cells(text, "train") == ["train", "7,204", "1,281", "1,205"]
    assert cells(text, "validation") == ["validation", "1,799", "320", "297"]
    assert cells(text, "all") == ["all", "9,003", "1,601", "1,502"]
    _, n, different, common = cells(text, "color")
    assert (n, different) == ("4,000", "40") and common.split(", ") == [
        f"{answer} 2.5%" for answer in ["black", *(f"shade{number:02}" for number in range(9))]
    ]
    assert cells(text, "yes/no")[1:] == ["5,003", "2", "yes 50.0%, no 50.0%"]
    assert "| style |" not in text and "![Distributions](vqa.png)" in text
    assert cells(text, "asked") == ["asked", "12,986", "0", ""]
    why = "r0 2,000; r1 1,000; r2 500; r3 250; r4 125; others 108"
    assert cells(text, "balance") == ["balance", "9,003", "3,983", why]
    for share in ("33.3%", "48.1%", "35.0%"):
        assert share in text
    assert "within the limit" in text and "cellular phone case 900, chair 701" in text
    assert "listings read: 14,702" in text and "seed: 42" in text and "python 3.11.9" in text
    assert "finetune.py --image_dir IMAGES --csv_path vqa.train.csv --eval_csv_path vqa.val.csv" in text


def test_only_what_was_measured_is_said():
    text = data_card(SUMMARY)
    assert "Distributions" not in text and "dollars" not in text
    text = data_card(changed(blind={"before": 0.5, "after": 0.4, "limit": 0.35}))
    assert "**above** the limit" in text
    cost = {"answers": 1_234, "input_tokens": 5, "output_tokens": 6, "usd": 1.5}
    text = data_card(changed(blind=UNKNOWN, backend="api", model="gpt", cost=cost, splits=EMPTY))
    assert "was not measured" in text
    assert "1,234 answers, 5 tokens sent, 6 received, 1.50 US dollars" in text and "model: `gpt`" in text
    assert "--csv_path vqa.csv\n" in text and "terms of the model" in text


def test_the_archive_is_credited_as_it_asks():
    text = " ".join(data_card(SUMMARY).split())
    for words in (
        "Amazon.com", "Matthieu Guillaumin (Amazon.com), Thomas Dideriksen (Amazon.com), Kenan Deng (Amazon.com), Himanshu "
        "Arora (Amazon.com), Jasmine Collins (UC Berkeley) and Jitendra Malik (UC Berkeley)",
        "https://creativecommons.org/licenses/by/4.0/", "Changes were made",
    ):  # fmt: skip
        assert words in text


def test_no_licence_is_invented_for_another_catalogue():
    card = DatasetCard(data_card(changed(catalogue=SUMMARY["catalogue"] | {"kind": "table", "path": "shop.csv"})))
    assert card.data.license is None and card.data.source_datasets is None
    assert not any(words in card.text for words in ("Amazon", "Creative Commons", "on white"))
    assert "None is stated here" in card.text and "`shop.csv`" in card.text


def test_folders_and_passwords_stay_at_home():
    command = (
        "python generate_vqa.py --api_base_url https://me:secret@host/v1 --csv_path ~/x.csv --image_dir /data/in `y`"
    )
    text = data_card(SUMMARY) + data_card(changed(command=command, backend="model", model="/home/someone/my-base"))
    assert "--abo_dir 'abo mini' --output_path=vqa.csv --seed 42" in text
    assert "--api_base_url https://host/v1 --csv_path x.csv --image_dir in" in text and "model: `my-base`" in text
    assert not any(words in text for words in ("someone", "secret", "/data"))
    assert "--name it's" in data_card(changed(command="generate_vqa.py --name it's"))  # cannot be taken apart


def test_words_of_a_listing_cannot_write_markdown():
    nasty = "a|b\n# c <script>x</script> [l](http://e.org) www.e.org `t` *s* _u_ \ud800"
    types = {nasty: {"n": 1, "answers": {nasty: 1}}}
    funnel = [{"step": nasty, "dropped": 1, "left": 1, "reasons": {nasty: 1}}]
    text = data_card(changed(question_types=types, product_types={nasty: 1}, funnel=funnel), "a b.png")
    text.encode()
    safe = r"a\|b # c \<script\>x\</script\> \[l\](http\://e.org) www\.e.org \`t\` \*s\* \_u\_ ?"
    assert f"| {safe} | 1 | 1 | {safe} 100.0% |" in text and f"| {safe} | 1 | 1 | {safe} 1 |" in text
    assert "<script>" not in text and "](a%20b.png)" in text


# Picture


def decoded(summary: dict) -> np.ndarray:
    image = Image.open(io.BytesIO(draw_distributions(summary)))
    assert image.format == "PNG" and [round(dots) for dots in image.info["dpi"]] == [150, 150]
    return np.asarray(image.convert("RGB"))


def height(slots: list[int]) -> int:
    """Pixels that so many bars take, in each row of panels."""
    return int(150 * sum(60 + 24 * bars for bars in slots) / 100)


def test_the_picture_shows_the_numbers():
    pixels = decoded(SUMMARY)
    slots = [3, 9]  # bars above: two types, two product types, but room for three; below: eight answers and the others
    assert pixels.shape == (height(slots), 1800, 3)
    assert np.array_equal(pixels, decoded(changed()))
    other = changed()
    other["question_types"]["color"]["answers"]["black"] = 900
    assert not np.array_equal(pixels, decoded(other))
    for more in ({"product_types": {"chair": 2, "lamp": 1}}, {"blind": {"before": 0.5, "after": 0.1, "limit": 0.35}}):
        drawn = decoded(changed(**more))
        assert drawn.shape == pixels.shape and not np.array_equal(drawn, pixels)


def test_longer_bars_mean_more():
    def blue(share: int) -> int:
        cell = {"n": 100, "answers": {"a": share, "b": 100 - share}}
        pixels = decoded(changed(question_types={"color": cell}, product_types={}, blind=UNKNOWN)).astype(int)
        return int((abs(pixels - (0x56, 0xB4, 0xE9)).sum(axis=2) == 0).sum())

    assert blue(50) > 1.2 * blue(90)  # b is half as long as a, or a ninth of it


def test_odd_summaries_are_drawn():
    empty = decoded(changed(question_types={}, product_types={}, blind=UNKNOWN))
    assert empty.shape == (height([3]), 1800, 3)
    types = {
        rf"$\frac$ {number} " + "w" * 80: {"n": 3, "answers": {"六" * 90: 2, r"$\frac$": 1}} for number in range(20)
    }
    odd = changed(question_types=types, product_types={f"{'p' * 90}{number}": 1 for number in range(40)} | {"": 7})
    assert decoded(odd).shape == (height([15, 2, 2, 2, 2]), 1800, 3)


# Screen


def test_the_screen_shows_the_summary(capsys, monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    left_out = {"not English": 3, "no usable picture": 12}
    summary = changed(
        catalogue=SUMMARY["catalogue"] | {"left_out": left_out},
        cost={"answers": 3, "input_tokens": 40, "output_tokens": 5, "usd": None},
    )
    summary["question_types"]["[bold]odd[/bold]"] = {"n": 1, "answers": {"[red]x": 1}}
    print_summary(summary)
    output = capsys.readouterr().out
    rows = [
        [cell.strip() for cell in line.strip("│").split("│")] for line in output.splitlines() if line.startswith("│")
    ]
    assert ["balance", "9,003", "3,983", "r0 2,000; r1 1,000; r2 500; r3 250; r4 125; others 108"] in rows
    assert rows[-3:] == [
        ["yes/no", "5,003", "2", "50.0%", "yes"], ["color", "4,000", "40", "2.5%", "black"],
        ["[bold]odd[/bold]", "1", "1", "100.0%", "[red]x"],
    ]  # fmt: skip
    assert "after 33.3%, before 48.1%, limit 35.0%" in output
    assert "from 14,702 listings" in output and "12 no usable picture\n" in output
    assert "3 not English\n" in output and "/home/someone/out/vqa.csv, and train, val and test beside it\n" in output
    assert "9,003, 5.6 a picture" in output and "3 answers, 40 tokens sent, 5 received\n" in output
    assert max(map(len, output.splitlines())) <= 100


def test_nothing_made_is_shown_too(capsys):
    counts = dict.fromkeys(SUMMARY["counts"], 0)
    empty = changed(counts=counts, splits=EMPTY, question_types={}, product_types={}, funnel=[], blind=UNKNOWN)
    print_summary(empty)
    assert "not measured" in capsys.readouterr().out
    assert "0 questions on 0 pictures" in data_card(empty) and "## Filters" not in data_card(empty)
