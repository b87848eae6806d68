"""The page to look through is one file that is safe to open, with every picture, question and answer on it."""

import base64
import io
import re
import weakref
from pathlib import Path

import pytest
from PIL import Image

from blip2vqa.generate.report.contact_sheet import write_contact_sheet
from blip2vqa.generate.rows import Item, Question
from helpers.html_page import Page

NASTY = '"><script>alert("1")</script><img src=http://example.org/x onerror=x>\'& $title'


@pytest.fixture
def sheet(tmp_path):
    def sheet(pictures, title: str = "Questions", summary: str = "A look.") -> tuple[str, Page]:
        path = tmp_path / "new" / "vqa.html"
        write_contact_sheet(path, pictures, title, summary)
        text = path.read_text(encoding="utf-8")
        assert [item.name for item in path.parent.iterdir()] == ["vqa.html"]
        return text, Page(text)

    return sheet


def item(name: str = "a chair", image_name: str = "00/1.jpg", product_type: str = "dining_chair") -> Item:
    return Item(image_name, Path(image_name), "", "B0", product_type, name, {})


def question(asked: str, answer: str, kind: str = "color", source: str = "templates") -> Question:
    return Question(item(), asked, answer, kind, source)


def test_pictures_are_numbered_and_stand_with_their_questions(sheet):
    first = [question("What color is it?", "red"), question("Is it round?", "no", "yes/no", "model:tiny")]
    shown = [
        (item(), Image.new("RGB", (900, 300), (200, 10, 10)), first),
        (
            item("", "plain.jpg", ""),
            Image.new("RGBA", (20, 10), (0, 0, 0, 0)),
            [question("What is it?", "box", "object")],
        ),
        (item("a lamp", "00/3.jpg", ""), None, []),
    ]
    _, page = sheet(iter(shown), title="Chairs", summary="Drawn with seed 3.")
    assert page.inside("h1") == ["Chairs"] and page.inside("h2") == ["1 dining chair", "2", "3"]
    assert page.inside("li") == [
        "What color is it? red color · templates", "Is it round? no yes/no · model:tiny", "What is it? box object · templates",
    ]  # fmt: skip
    assert page.all("input") == [{"type": "checkbox"}] * 3
    assert page.inside("code") == ["00/1.jpg", "plain.jpg", "00/3.jpg"]
    articles = page.inside("article")
    assert "a chair" in articles[0] and "red" in articles[0] and "box" in articles[1]
    assert articles[2] == "3 This picture cannot be shown. a lamp 00/3.jpg No questions."
    assert page.inside("p")[0] == "Drawn with seed 3." and page.inside("p")[1].startswith("3 pictures, 3 questions.")
    assert page.inside("footer") == ["of 3 questions ticked"]


def test_pictures_are_embedded_as_thumbnails(sheet):
    large, small = Image.new("RGB", (900, 300), (200, 10, 10)), Image.new("RGBA", (20, 10), (0, 0, 0, 0))
    _, page = sheet([(item(image_name="a"), large, []), (item(image_name="b"), small, [])])
    decoded = []
    for attributes in page.all("img"):
        kind, data = attributes["src"].split(",")
        image = Image.open(io.BytesIO(base64.b64decode(data)))
        assert kind == "data:image/jpeg;base64" and image.format == "JPEG"
        assert image.size == (int(attributes["width"]), int(attributes["height"]))
        decoded.append((image.size, tuple(round(value, -1) for value in image.getpixel((0, 0)))))
    assert decoded == [((384, 128), (200, 10, 10)), ((20, 10), (260, 260, 260))]  # transparent is white
    assert large.size == (900, 300)  # the caller's own stays as it is


def test_everything_from_a_listing_is_escaped(sheet):
    asked = [Question(item(), NASTY, NASTY[:50], NASTY[:40], NASTY[:45])]
    text, page = sheet([(item(NASTY, NASTY, NASTY), Image.new("RGB", (4, 4)), asked)], title=NASTY, summary=NASTY)
    assert {name for name, _ in page.tags} == {
        "html", "head", "meta", "title", "style", "body", "h1", "p", "main", "article", "h2", "small", "figure", "img", "code",
        "ol", "li", "label", "input", "span", "bdi", "b", "footer", "header",
    }  # fmt: skip
    for tag in ("title", "h1"):
        assert page.inside(tag) == [NASTY]
    assert page.inside("p")[0] == NASTY and NASTY in page.inside("p") and page.inside("code") == [NASTY]
    assert page.inside("h2") == [f"1 {NASTY}"]
    assert page.inside("li") == [f"{NASTY} {NASTY[:50]} {NASTY[:40]} · {NASTY[:45]}"]
    assert not any(key.startswith("on") or key == "href" for _, attributes in page.tags for key in attributes)
    assert "http" not in re.sub("http-equiv|http://example.org/x|http://", "", text)
    assert "url(" not in text and "@import" not in text
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';") and "script" not in policy


def test_long_and_odd_words_stay_in_their_place(sheet):
    hebrew = "כיסא"
    asked = [question("q" * 500, f"{hebrew}\u202e", source="model:" + "m" * 500)]
    _, page = sheet([(item("n" * 500, "i\x00\ud800.jpg"), None, asked), (item(f"{hebrew}\n two  lines"), None, [])])
    names = page.inside("p")
    assert "n" * 119 + "…" in names and f"{hebrew} two lines" in names
    assert page.inside("code")[0] == "i\ufffd\ufffd.jpg"
    assert page.inside("bdi") == ["q" * 239 + "…", f"{hebrew}\u202e", f"color · {('model:' + 'm' * 500)[:59]}…"]
    assert [p for p in page.all("p") if p.get("dir") == "auto"] == [{"dir": "auto"}] * 2


def test_one_picture_is_held_at_a_time(sheet):
    seen = []

    def shown():
        for number in range(60):
            image = Image.new("RGB", (8, 8), (number, 0, 0))
            seen.append(weakref.ref(image))
            yield item(image_name=f"{number}.png", product_type=""), image, [question("What color?", "red")] * 30
            assert not any(reference() for reference in seen[:-1])

    text, page = sheet(shown())
    assert page.inside("h2") == [str(number) for number in range(1, 61)] and len(page.all("input")) == 1800
    assert "60 pictures, 1,800 questions." in text


def test_no_pictures_are_a_page_too(sheet):
    _, page = sheet([], title="Nothing")
    assert page.inside("p")[1].startswith("0 pictures, 0 questions.") and page.all("article") == []


def test_a_page_that_fails_leaves_the_old_one(tmp_path):
    path = tmp_path / "vqa.html"
    path.write_text("old")

    def shown():
        yield item(image_name="a.png"), None, []
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        write_contact_sheet(path, shown(), "Questions", "A look.")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("vqa.html", "old")]
