"""The card, the picture and the tables of a made data set say what its summary says, and claim nothing else."""

import pytest
from huggingface_hub import DatasetCard

from blip2vqa.generate.report.data_card import data_card
from helpers.data_set_summary import EMPTY, SUMMARY, UNKNOWN, changed


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
    assert "![Distributions](vqa.png)" in text
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


# Screen
