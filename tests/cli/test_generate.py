"""generate_vqa.py as a user runs it: each back end once, what is there already, and the whole way to an answer."""

import csv
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest

from blip2vqa.config.generate import VQA_ARGUMENTS
from blip2vqa.config.parser import parse
from blip2vqa.data.examples import load_examples
from blip2vqa.data.splits import check_disjoint
from blip2vqa.generate.generating import generate
from blip2vqa.utils.errors import InputError
from helpers.abo_archive import drawn_archive
from helpers.paths import ROOT

DATA = Path(os.environ.get("BLIP2VQA_DATA", ROOT.parent / "shared" / "data"))
COLUMNS = ["image_name", "question", "answer", "question_type", "item_id", "product_type", "source"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return drawn_archive(tmp_path_factory.mktemp("abo"), products=60)


def run(*argv: object) -> dict | None:
    """In this process."""
    parts, resolved = parse(VQA_ARGUMENTS, "test", [str(word) for word in argv])
    return generate(*parts, resolved)


def script(*argv: object, **environment: str) -> subprocess.CompletedProcess:
    """As a user does."""
    return subprocess.run(
        [sys.executable, ROOT / "generate_vqa.py", *map(str, argv)],
        capture_output=True, text=True, timeout=300, env=os.environ | environment,
    )  # fmt: skip


def rows(path: Path) -> list[dict]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def made(archive, tmp_path_factory):
    """(table, what was printed) of the templates, from a process of its own."""
    table = tmp_path_factory.mktemp("made") / "vqa.csv"
    done = script(
        "--abo_dir", archive, "--output_path", table, "--preview", 4, "--json_output", table.with_name("all.json")
    )
    assert done.returncode == 0, done.stderr
    return table, done.stdout


def test_templates_make_a_data_set(made):
    table, printed = made
    whole = rows(table)
    assert list(whole[0]) == COLUMNS
    assert {row["source"] for row in whole} == {"templates"}
    assert all(" " not in row["answer"] and row["question"].endswith("?") for row in whole)
    assert {"object", "color", "material", "comparison", "yes/no"} <= {row["question_type"] for row in whole}
    splits = [rows(table.with_suffix(f".{split}.csv")) for split in ("train", "val", "test")]
    assert sorted(map(str, whole)) == sorted(str(row) for split in splits for row in split)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not {row["item_id"] for row in splits[one]} & {row["item_id"] for row in splits[other]}
    assert all(
        text in printed for text in ("Filters", "balance", "blind", "right without the picture", f"{len(whole):,}")
    )
    provenance = [json.loads(line) for line in table.with_suffix(".jsonl").read_text().splitlines()]
    assert [row for row in provenance if row["kept"]] and len([row for row in provenance if row["kept"]]) == len(whole)
    assert json.loads(table.with_name("all.json").read_text())["summary"]["counts"]["questions"] == len(whole)
    assert table.with_suffix(".html").read_text().count("<img") == 4
    assert "CC BY 4.0" in table.with_suffix(".md").read_text() and table.with_suffix(".png").stat().st_size > 10_000


def test_the_same_seed_makes_the_same_files(made, tmp_path):
    table, _ = made
    again = tmp_path / "again.csv"
    done = script(table.with_suffix(".run.json"), "--output_path", again, PYTHONHASHSEED="7")
    assert done.returncode == 0, done.stderr
    for ending in (".csv", ".train.csv", ".val.csv", ".test.csv", ".jsonl"):
        assert again.with_suffix(ending).read_bytes() == table.with_suffix(ending).read_bytes()


def test_another_seed_makes_other_questions(archive, made, tmp_path):
    run("--abo_dir", archive, "--output_path", tmp_path / "vqa.csv", "--seed", 7)
    assert (tmp_path / "vqa.csv").read_bytes() != made[0].read_bytes()


def test_what_is_there_is_not_written_over(archive, made):
    table, _ = made
    before = table.read_bytes()
    done = script("--abo_dir", archive, "--output_path", table)
    assert done.returncode == 2 and done.stderr.splitlines() == [
        f"error: --output_path {table}: is already there, finished; name another, or --overwrite true"
    ]
    assert table.read_bytes() == before


def test_a_table_is_a_catalogue_too(archive, tmp_path):
    images = archive / "images/small"
    names = sorted(str(path.relative_to(images)) for path in images.rglob("*.png")) or sorted(
        str(path.relative_to(images)) for path in images.rglob("*.jpg")
    )
    frame = pd.DataFrame({"image_name": names, "name": "Lamp", "color": "Red", "material": "Steel"})
    frame.to_csv(tmp_path / "catalogue.csv", index=False)
    summary = run("--csv_path", tmp_path / "catalogue.csv", "--image_dir", images, "--output_path", tmp_path / "vqa.csv",
                  "--max_product_type_share", 1, "--max_answer_share", 1, "--max_blind_accuracy", 1)  # fmt: skip
    assert summary["catalogue"]["kind"] == "table"
    assert {"lamp", "metal"} <= {row["answer"] for row in rows(tmp_path / "vqa.csv")}
    assert "CC BY" not in (tmp_path / "vqa.md").read_text()


@pytest.mark.parametrize("argv, line", [
    ([], "--abo_dir: name the archive's folder, or another catalogue's table by --csv_path; one of them"),
    (["--csv_path", "x.csv"], "--image_dir: missing; name the folder of the pictures of x.csv"),
    (["--abo_dir", "ABO", "--num_questions", "0"], "--num_questions: 0 is out of range; it must be at least 1"),
    (["--abo_dir", "ABO", "--val_split", "0.5", "--test_split", "0.5"],
     "--val_split + test_split: 1.0 is out of range; it must be below 1"),
    (["--abo_dir", "ABO", "--output_path", "vqa.json"], "--output_path vqa.json: a table of another kind; name a .csv"),
    (["--abo_dir", "ABO", "--max_answer_share", "0"], "--max_answer_share: 0.0 is out of range; it must be above 0, at most 1"),
    (["--abo_dir", "ABO", "--output_path", "/dev/null/x/vqa.csv"],
     "--output_path /dev/null/x/vqa.csv: its folder cannot be written to: Not a directory"),
])  # fmt: skip
def test_wrong_arguments_are_one_line(argv, line):
    with pytest.raises(InputError) as caught:
        run(*argv)
    assert caught.value.problems == [line]


def test_no_usable_picture_is_one_line(archive, tmp_path):
    empty = tmp_path / "images" / "00"
    empty.mkdir(parents=True)
    with pytest.raises(
        InputError, match=r"no usable picture .*picture not usable: 60.*check the folder of the pictures"
    ):
        run("--abo_dir", archive, "--image_dir", tmp_path / "images", "--output_path", tmp_path / "vqa.csv")


def test_a_full_disk_is_one_line(archive, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "vqa.md")

    monkeypatch.setattr("blip2vqa.generate.outputs.write_text_atomic", full)
    with pytest.raises(InputError, match=r"vqa\.md: cannot be written: No space left on device; make room"):
        run("--abo_dir", archive, "--output_path", tmp_path / "vqa.csv")
    assert not (tmp_path / "vqa.csv").exists()


FULL = OSError(28, "No space left on device", "vqa.png")


@pytest.mark.parametrize("at, stop", [
    ("write_provenance", KeyboardInterrupt()), ("draw_distributions", FULL), ("write_tables", KeyboardInterrupt()),
])  # fmt: skip
def test_stopped_while_the_files_are_written_the_same_command_goes_on(archive, made, tmp_path, monkeypatch, at, stop):
    def stopped(*_):
        raise stop

    argv = [
        "--abo_dir",
        archive,
        "--output_path",
        tmp_path / "vqa.csv",
        "--json_output",
        tmp_path / "all.json",
        "--preview",
        4,
    ]
    with monkeypatch.context() as patch:
        patch.setattr(f"blip2vqa.generate.outputs.{at}", stopped)
        with pytest.raises((KeyboardInterrupt, InputError)):
            run(*argv)
    assert not (tmp_path / "vqa.csv").exists() and (tmp_path / "vqa.unfinished.txt").exists()
    run(*argv)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in made[0].parent.iterdir()}
    for ending in (".csv", ".train.csv", ".val.csv", ".test.csv", ".jsonl", ".html", ".png"):
        assert (tmp_path / f"vqa{ending}").read_bytes() == made[0].with_suffix(ending).read_bytes()


def test_a_data_set_to_be_written_over_stands_until_the_other_is_made(archive, tmp_path, monkeypatch):
    argv = ["--abo_dir", archive, "--output_path", tmp_path / "vqa.csv", "--num_images", 20]
    run(*argv, "--preview", 4)
    before = {path: path.read_bytes() for path in tmp_path.glob("*.csv")}
    with monkeypatch.context() as patch:
        patch.setattr("blip2vqa.generate.outputs.draw_distributions", lambda _: (_ for _ in ()).throw(FULL))
        with pytest.raises(InputError, match=r"vqa\.png: cannot be written: No space left on device; make room"):
            run(*argv, "--overwrite", "true", "--test_split", 0, "--val_split", 0)
    assert len(before) == 4 and all(path.read_bytes() == text for path, text in before.items())
    run(*argv, "--test_split", 0, "--val_split", 0)
    assert {path.name for path in tmp_path.glob("*.csv")} == {"vqa.csv", "vqa.train.csv"}
    assert not (tmp_path / "vqa.html").exists() and not (tmp_path / "vqa.unfinished.txt").exists()


def test_an_endpoint_is_asked_once(archive, tmp_path):
    from helpers.chat_server import ChatServer, questions

    asked = [
        ("What color is it?", "red", "color"),
        ("Is it made of wood?", "yes", "yes/no"),
        ("What is it?", "a red chair", "object"),
    ]
    with ChatServer(reply=questions(*asked)) as server:
        argv = ["--abo_dir", archive, "--output_path", tmp_path / "vqa.csv", "--backend", "api", "--api_model", "seer",
                "--api_base_url", server.url, "--num_images", 8, "--requests_per_minute", 100_000, "--max_blind_accuracy", 1,
                "--max_yes_no_share", 1]  # fmt: skip
        summary = run(*argv)
        first = rows(tmp_path / "vqa.csv")
        assert summary["cost"]["requests"] == len(server.requests) == 8
        assert {row["source"] for row in first} == {"api:seer"}
        assert summary["funnel"][0] == {
            "step": "single word", "dropped": 8, "left": 16, "reasons": {"more than one word": 8}
        }  # fmt: skip
        summary = run(*argv, "--overwrite", "true")
        assert len(server.requests) == 8 and summary["cost"]["requests"] == 0
        assert rows(tmp_path / "vqa.csv") == first
        assert run(*argv, "--dry_run", "true") is None and len(server.requests) == 8


def test_an_unfinished_data_set_goes_on_by_the_same_command(archive, tmp_path):
    from helpers.chat_server import ChatServer, error, questions

    asked = questions(("How many are there?", "two", "count"), ("What word is printed on it?", "hello", "other"))
    with ChatServer([error(500)], reply=asked) as server:
        argv = ["--abo_dir", archive, "--output_path", tmp_path / "vqa.csv", "--backend", "api", "--api_model", "seer",
                "--api_base_url", server.url, "--num_images", 6, "--requests_per_minute", 100_000, "--max_retries", 0,
                "--parallel_requests", 1, "--max_blind_accuracy", 1, "--max_answer_share", 1]  # fmt: skip
        run(*argv)
        note = tmp_path / "vqa.unfinished.txt"
        assert note.read_text() == "1 of 6 pictures have no answer yet; the same command goes on\n"
        assert len(rows(tmp_path / "vqa.csv")) == 10
        run(*argv)
        assert len(server.requests) == 7 and len(rows(tmp_path / "vqa.csv")) == 12 and not note.exists()
        with pytest.raises(InputError, match="is already there, finished"):
            run(*argv)


@pytest.mark.parametrize("argv, line", [
    (["--dry_run", "true"], "--dry_run: goes with --backend api, not with templates"),
    (["--api_model", "seer"], "--api_model: goes with --backend api, not with templates"),
    (["--base_model_id", "BASE"], "--base_model_id: goes with --backend model, not with templates"),
    (["--backend", "model", "--lora_model_path", "A", "--spending_limit_usd", "1"],
     "--spending_limit_usd: goes with --backend api, not with model"),
])  # fmt: skip
def test_an_option_that_would_do_nothing_is_told_of(argv, line, archive, tmp_path):
    with pytest.raises(InputError) as caught:
        run("--abo_dir", archive, "--output_path", tmp_path / "vqa.csv", *argv)
    assert caught.value.problems == [line] and not list(tmp_path.iterdir())


def test_a_model_that_is_not_there_is_told_of_before_anything_is_asked(archive, tmp_path):
    from helpers.chat_server import ChatServer

    with ChatServer() as server, pytest.raises(InputError, match="no such folder"):
        run("--abo_dir", archive, "--output_path", tmp_path / "vqa.csv", "--backend", "api", "--api_model", "seer",
            "--api_base_url", server.url, "--check_model", tmp_path / "nothing")  # fmt: skip
    assert not server.requests


def test_products_too_much_alike_are_told_of(archive, tmp_path, caplog):
    names = sorted(str(path.relative_to(archive / "images/small")) for path in archive.rglob("*.jpg"))
    pd.DataFrame({"image_name": names, "name": "Chair"}).to_csv(tmp_path / "chairs.csv", index=False)
    argv = ["--csv_path", tmp_path / "chairs.csv", "--image_dir", archive / "images/small"]
    with suppress(InputError):  # where not one question is left
        summary = run(*argv, "--output_path", tmp_path / "vqa.csv")
        assert summary["blind"]["after"] <= 0.35 or "above --max_blind_accuracy 0.35" in caplog.text


def test_a_base_answers_and_checks(archive, tiny_opt, tmp_path):
    argv = ["--abo_dir", archive, "--num_images", 6, "--quantization", "none", "--dtype", "float32"]
    for name, more in (("a", ["--backend", "model", "--base_model_id", tiny_opt]), ("b", ["--check_model", tiny_opt])):
        with suppress(InputError):  # a random base seldom says what is kept
            run(*argv, "--output_path", tmp_path / f"{name}.csv", *more)
        said = [json.loads(line) for line in (tmp_path / f"{name}.responses.jsonl").read_text().splitlines()]
        assert len(said) > 20 and {record["model"] for record in said} == {tiny_opt.name}
        assert len({record["image_name"] for record in said}) == 6


def test_generated_finetuned_answered(made, archive, tiny_opt, tmp_path):
    """The documented sequence, on a random base."""
    from blip2vqa.config.common import FeatureArguments
    from blip2vqa.config.inference import InferenceArguments
    from blip2vqa.inference.answering import answer_table
    from blip2vqa.training.recipe import finetune
    from helpers.finetune_runs import make_run

    table, _ = made
    images = archive / "images/small"
    train, val = (load_examples(str(table.with_suffix(f".{side}.csv")), str(images))[0] for side in ("train", "val"))
    assert check_disjoint(train, val) == 0
    out = tmp_path / "adapter"
    metrics = finetune(make_run(tiny_opt, (images, table.with_suffix(".train.csv")), out, "--epochs", "1",
                                "--eval_csv_path", str(table.with_suffix(".val.csv"))))  # fmt: skip
    assert metrics["adapter"]["n"] == len(val)
    test = table.with_suffix(".test.csv")
    answer_table(InferenceArguments(
        image_dir=str(images), csv_path=str(test), output_path=str(tmp_path / "answers.csv"), lora_model_path=[str(out)],
        bertscore_model="none", batch_size=16,
    ), FeatureArguments())  # fmt: skip
    assert len(rows(tmp_path / "answers.csv")) == len(rows(test))


@pytest.mark.skipif(not (DATA / "abo-vqa").is_dir(), reason=f"no photographs of the archive in {DATA}")
def test_real_photographs_give_questions_that_need_them(tmp_path):
    """At least five questions a picture, and other classifiers than the filter's guess at most 35 % of the answers."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.naive_bayes import ComplementNB
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    subprocess.run([sys.executable, DATA.parent / "tools/make_abo_mini.py", tmp_path / "abo"], check=True, timeout=60)
    summary = run("--abo_dir", tmp_path / "abo", "--output_path", tmp_path / "vqa.csv")
    table = pd.read_csv(tmp_path / "vqa.csv", keep_default_na=False)
    assert len(table) >= 5 * 1680
    assert table.groupby("image_name").size().mean() >= 5 and summary["blind"]["after"] <= 0.35
    for classifier in (LinearSVC(), ComplementNB()):
        pipeline = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"[\w']+"), classifier)
        said = cross_val_predict(pipeline, table.question, table.answer, groups=table.item_id, cv=GroupKFold(3))
        assert (said == table.answer).mean() <= 0.35
