"""caption.py: each picture encoded once, each style as it is alone, what is wrong in one line."""

import os
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pandas as pd
import pytest
from PIL import Image

import caption
from blip2vqa import load
from blip2vqa.config.caption import CaptionArguments
from blip2vqa.config.common import FeatureArguments
from blip2vqa.inference.captioning import NO_ADAPTER, caption_images, find_requests, parse_styles
from blip2vqa.utils.console import run_script
from blip2vqa.utils.errors import InputError
from helpers.caption_adapters import BASE, NAMES, SCENES, caption_adapters, count_encoded
from helpers.family_bases import random_adapter
from helpers.html_page import Page
from helpers.paths import ROOT
from helpers.tiny_families import make_vilt


@pytest.fixture(scope="module")
def adapters(tmp_path_factory) -> dict[str, str]:
    return caption_adapters(tmp_path_factory.mktemp("adapters"))


@pytest.fixture
def encoded(monkeypatch) -> list[int]:
    return count_encoded(monkeypatch)


def arguments(out, *styles: str, **changes) -> CaptionArguments:
    given = {"images": [str(SCENES / "val-000.png"), str(SCENES / "val-00[1-4].png")], "styles": list(styles)}
    return CaptionArguments(
        **given | {"output_path": str(out), "base_model_id": str(BASE), "dtype": "float32"} | changes
    )


def read(path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


@contextmanager
def served(folder):
    """A folder at an address of this machine."""
    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *args: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


# The script


def test_the_script_captions_what_it_can_and_names_the_rest(adapters, tmp_path):
    folder = tmp_path / "some"
    folder.mkdir()
    for number in (1, 2):
        Image.open(SCENES / f"val-00{number}.png").save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    (tmp_path / "page.html").write_text("<p>no picture</p>")
    (tmp_path / "web.png").write_bytes((SCENES / "val-005.png").read_bytes())
    with served(tmp_path) as address:
        places = [
            SCENES / "val-000.png",
            folder,
            SCENES / "val-01[0-1].png",
            f"{address}/web.png",
            f"{address}/page.html",
        ]
        done = subprocess.run(
            [
                sys.executable, "caption.py", "--images", *map(str, places), "absent.png", "--allow_private_addresses",
                "true", "--styles", f"concise={adapters['concise']}", "creative", "--base_model_id", str(BASE),
                "--output_path", str(tmp_path / "out.csv"), "--compare", str(tmp_path / "new" / "sheet.html"),
            ],
            cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and f"{NO_ADAPTER}; 'A playful line about the picture:'" in done.stdout
    assert "captions: 12 of 6 images" in done.stdout and "not usable: 3 pictures" in done.stdout
    table = read(tmp_path / "out.csv")
    assert list(table) == ["image", "style", "caption", "confidence", "adapter", "status"] and len(table) == 18
    good = table[table["status"] == "ok"]
    assert good["style"].tolist() == ["concise", "creative"] * 6 and good["caption"].any()
    alone = good[good["style"] == "creative"]["caption"]
    assert alone.str.contains(r"\b(?:a|an|the) ").all()  # the base's own sentences
    assert good["confidence"].astype(float).between(0, 1).all()
    assert set(table[table["style"] == "concise"]["adapter"]) == {adapters["concise"]}
    assert set(table[table["style"] == "creative"]["adapter"]) == {""}
    order = [str(SCENES / "val-000.png"), str(folder / "1.png"), str(folder / "2.png")]
    order += [str(SCENES / "val-010.png"), str(SCENES / "val-011.png"), f"{address}/web.png"]
    assert good["image"].tolist()[::2] == order
    bad = dict(table[table["status"] != "ok"][["image", "status"]].drop_duplicates().to_numpy())
    assert [status.startswith("bad image: ") for status in bad.values()] == [True] * 3
    assert "not an image (text/html)" in bad[f"{address}/page.html"] and "no such file" in bad["absent.png"]
    text = (tmp_path / "new" / "sheet.html").read_text()
    page = Page(text)
    assert len(page.all("article")) == 9 and len(page.all("img")) == 6
    assert all(attributes["src"].startswith("data:image/jpeg;base64,") for attributes in page.all("img"))
    assert not page.all("script") and not page.all("link") and page.text.count(NO_ADAPTER) == 6
    assert all(said in page.text for said in alone) and "adapter " + adapters["concise"] in page.text


@pytest.fixture
def wrong(monkeypatch, tmp_path, capsys):
    """The one line that caption.py ends with, at exit code 2."""

    def wrong(*argv: str) -> str:
        given = ("--images", str(SCENES / "val-000.png"), "--output_path", str(tmp_path / "out.csv"))
        monkeypatch.setattr(sys, "argv", ["caption.py", *given, "--base_model_id", str(BASE), *argv])
        with pytest.raises(SystemExit) as ended:
            run_script(caption.main)
        assert ended.value.code == 2 and not (tmp_path / "out.csv").exists()
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        return line

    return wrong


def test_what_is_wrong_is_one_line(wrong, adapters, write, tiny_opt, tmp_path, monkeypatch):
    monkeypatch.setattr("blip2vqa.inference.model_spec.load_base", lambda *a, **k: pytest.fail("weights were loaded"))
    assert "style pirate: not known; choose from concise, creative, detailed" in wrong("--styles", "pirate")
    assert "--styles: concise is given twice; keep one" in wrong("--styles", "concise", "concise")
    assert "is already there; name another, or --overwrite it" in wrong("--compare", write("sheet.html", "mine"))
    unfit = f"concise={adapters['concise']}"
    assert "does not fit base model" in wrong("--styles", unfit, "--base_model_id", str(tiny_opt))
    assert "adapter nowhere: no such folder" in wrong("--styles", "concise=nowhere")
    vilt = str(make_vilt(tmp_path / "vilt"))
    assert "ViLT cannot write captions" in wrong("--styles", "concise", "--base_model_id", vilt)
    assert "did you mean --styles?" in wrong("--style", "concise")
    line = wrong("--styles", "detailed", "--base_model_id", str(tiny_opt))
    assert "style detailed: " in line and "the base model has 64 positions" in line


def test_without_a_usable_picture_it_says_why(monkeypatch, tmp_path, capsys):
    with served(SCENES) as address:
        places = ["absent.png", str(tmp_path / "*.png"), str(tmp_path), f"{address}/val-000.png"]
        with pytest.raises(InputError) as caught:
            caption_images(arguments(tmp_path / "out.csv", "concise", images=places), FeatureArguments())
    reasons = [
        "no such file or folder",
        "nothing there matches",
        "no picture in this folder",
        "a private address (127.0.0.1)",
    ]
    *lines, last = caught.value.problems
    assert last == "--images: no usable picture" and len(lines) == 4
    for line, place, reason in zip(lines, places, reasons, strict=True):
        assert line.startswith(f"--images {place}: ") and reason in line
    assert not (tmp_path / "out.csv").exists()


def test_the_output_is_never_replaced_unasked(tmp_path):
    out = tmp_path / "out.csv"
    out.write_text("mine")
    with pytest.raises(InputError, match="--overwrite it"):
        caption_images(arguments(out, "concise"), FeatureArguments())
    assert out.read_text() == "mine"


# Several styles


def test_together_each_says_what_it_says_alone(adapters, encoded, tmp_path):
    """Three adapters, and the base in a style of the user's own, in common batches."""
    own = tmp_path / "own.json"
    own.write_text('{"prompt": "it is", "max_new_tokens": 12}')
    given = [*(f"{name}={path}" for name, path in adapters.items()), str(own)]
    features = FeatureArguments(feature_cache=str(tmp_path / "features"))
    assert caption_images(arguments(tmp_path / "all.csv", *given, batch_size=3), features)["captions"] == 20
    assert sum(encoded) == 5  # each picture is encoded once
    together = read(tmp_path / "all.csv")
    said = set()
    for number, item in enumerate(given):
        caption_images(arguments(tmp_path / f"{number}.csv", item), features)
        alone, mine = read(tmp_path / f"{number}.csv"), together[number::4].reset_index(drop=True)
        assert mine.drop(columns="confidence").equals(alone.drop(columns="confidence"))
        confidences = [table["confidence"].astype(float).tolist() for table in (mine, alone)]
        assert confidences[0] == pytest.approx(confidences[1], abs=2e-5)
        said.add(tuple(alone["caption"]))
    assert len(said) == 4 and sum(encoded) == 5
    assert set(together["style"]) == {*NAMES, "own"}


def test_drawn_captions_repeat_with_their_seed(tmp_path):
    for name in ("one", "two"):
        caption_images(arguments(tmp_path / f"{name}.csv", "creative"), FeatureArguments())
    one = read(tmp_path / "one.csv")
    assert one.equals(read(tmp_path / "two.csv"))
    other = tmp_path / "creative.json"
    other.write_text(
        (ROOT / "blip2vqa/config/styles/creative.json").read_text().replace('"sampling_seed": 42', '"sampling_seed": 7')
    )
    caption_images(arguments(tmp_path / "other.csv", str(other)), FeatureArguments())
    assert read(tmp_path / "other.csv")["caption"].tolist() != one["caption"].tolist()


def test_styles_are_parsed():
    adapter, alone = parse_styles(["concise=folder", "creative"])
    assert (adapter.name, adapter.adapter, alone.name, alone.adapter) == ("concise", "folder", "creative", None)
    (free,) = parse_styles(["anything=folder"])
    assert free.options == {}
    with pytest.raises(InputError) as caught:
        parse_styles(["pirate", "concise", "concise=folder", "nope"])
    assert len(caught.value.problems) == 3
    for item in ("concise=", "=folder"):
        with pytest.raises(InputError, match=f"--styles {item}: is STYLE=ADAPTER"):
            parse_styles([item])


def test_an_adapter_for_questions_is_warned_of(tmp_path, caplog):
    folder = random_adapter(BASE, tmp_path / "vqa", 0, prompt="Question: {question} Answer:")
    args = CaptionArguments(images=["absent.png"], styles=[f"concise={folder}"], output_path=str(tmp_path / "out.csv"))
    find_requests(args)
    assert f"adapter {folder}: was trained to answer questions, not to write captions" in caplog.text


def test_an_instruction_is_a_style_of_its_own(tmp_path):
    asked = arguments(tmp_path / "out.csv", prompt="A detailed description:", styles=None)
    assert caption_images(asked, FeatureArguments())["captions"] == 5
    table = read(tmp_path / "out.csv")
    assert set(table["style"]) == {"prompt"}
    model = load(BASE, dtype="float32", prompt="A detailed description:")
    assert model.caption(SCENES / "val-000.png") == table["caption"][0]


def test_without_a_cache_pictures_are_encoded_once_too(tmp_path, adapters, encoded):
    given = [f"{name}={path}" for name, path in adapters.items()]
    caption_images(arguments(tmp_path / "out.csv", *given), FeatureArguments(feature_cache="none"))
    assert sum(encoded) == 5
