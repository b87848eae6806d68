"""The sheet of captions is one file that is safe to open, whatever the captions say."""

import base64
import io
import re

import pytest
from PIL import Image

from blip2vqa.reporting.pages.sheet import write_sheet
from helpers.html_page import Page

NASTY = '"><script>alert("1")</script><img src=http://example.org/x onerror=x> & $title'
STYLES = [("short", "prompt and decoding alone"), (f"odd {NASTY}", f"adapter {NASTY}"), ("plain", "")]


@pytest.fixture
def sheet(tmp_path):
    def sheet(rows, styles=STYLES, **more) -> tuple[str, Page]:
        path = tmp_path / "new" / "sheet.html"
        write_sheet(path, rows, styles, **more)
        text = path.read_text(encoding="utf-8")
        assert [item.name for item in path.parent.iterdir()] == ["sheet.html"]
        return text, Page(text)

    return sheet


def test_pictures_are_embedded_as_thumbnails(sheet):
    large, small = Image.new("RGBA", (2000, 1000), (0, 0, 0, 0)), Image.new("L", (20, 10), 77)
    captions = {"short": "a square", "plain": None}
    _, page = sheet((name, image, captions, None) for name, image in (("a.png", large), ("b.png", small)))
    sizes = []
    for attributes in page.all("img"):
        kind, data = attributes["src"].split(",")
        image = Image.open(io.BytesIO(base64.b64decode(data)))
        assert kind == "data:image/jpeg;base64" and image.format == "JPEG"
        assert image.size == (int(attributes["width"]), int(attributes["height"]))
        sizes.append((image.size, image.getpixel((0, 0))))
    assert sizes == [((512, 256), (255, 255, 255)), ((20, 10), (77, 77, 77))]  # transparent is white
    assert large.size == (2000, 1000)  # the caller's own stays as it is
    assert [attributes["alt"] for attributes in page.all("img")] == ["a.png: a square", "b.png: a square"]
    assert page.text.count("a square") == 2 and page.text.count("no caption") == 4


def test_everything_the_user_wrote_is_escaped(sheet):
    rows = [
        (NASTY, Image.new("RGB", (4, 4)), {"short": NASTY, STYLES[1][0]: NASTY}, None), (NASTY, None, {}, NASTY),
    ]  # fmt: skip
    text, page = sheet(rows, title=NASTY)
    assert {name for name, _ in page.tags} == {
        "html", "head", "meta", "title", "style", "body", "h1", "p", "article", "figure", "img", "figcaption", "dl", "div",
        "dt", "dd", "small", "header",
    }  # fmt: skip
    assert len(page.all("img")) == 1 and page.all("img")[0]["alt"] == f"{NASTY}: {NASTY}"
    assert not any(key.startswith("on") or key == "href" for _, attributes in page.tags for key in attributes)
    assert "".join(page.text).count(NASTY) == 9  # title, names and captions twice; style, its subtitle, reason
    assert "http" not in re.sub("http-equiv|http://example.org/x", "", text)
    assert "url(" not in text and "@import" not in text


def test_a_picture_that_failed_says_why(sheet):
    rows = [("a.png", None, {}, "cannot be decoded"), ("failed.png", Image.new("RGB", (4, 4)), {"plain": "x"}, None)]
    _, page = sheet(rows)
    assert [attributes.get("class") for attributes in page.all("article")] == ["failed", None]
    assert "cannot be decoded" in page.text and "2 pictures, 1 of them failed" in page.text
    assert len(page.all("dl")) == 1


def test_an_empty_sheet_is_a_page(sheet):
    _, page = sheet([], [], title="Nothing")
    assert page.text.count("Nothing") == 2 and "0 pictures" in page.text
    assert page.all("html") == [{"lang": "en"}] and {"charset": "utf-8"} in page.all("meta")
