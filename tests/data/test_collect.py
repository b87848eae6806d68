"""Pictures from files, folders and globs; one bad place never costs the others."""

import hashlib
import os

import pytest

from blip2vqa.data.collect import gather_images
from helpers.pictures import png


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a.JPG", "sub/c.webp", "sub/deep/d.png", ".hidden.png", ".thumbs/e.png", "other/f.png"):
        path = tmp_path / "pics" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png("blue"))
    (tmp_path / "pics/notes.txt").write_text("notes")
    (tmp_path / "empty").mkdir()
    return tmp_path


ALL = ["pics/a.JPG", "pics/b.png", "pics/other/f.png", "pics/sub/c.webp", "pics/sub/deep/d.png"]


@pytest.mark.parametrize(
    ("places", "names"),
    [
        (["pics"], ALL),
        (["pics/"], ALL),
        (["pics/b.png", "pics/a.JPG"], ["pics/b.png", "pics/a.JPG"]),
        (["pics/b.png", "./pics/b.png", "pics/link.png", "pics"], ["pics/b.png", ALL[0], *ALL[2:]]),
        (["pics/sub", "pics/*.png"], ["pics/sub/c.webp", "pics/sub/deep/d.png", "pics/b.png"]),
        (["pics/**/*.png"], ["pics/b.png", "pics/other/f.png", "pics/sub/deep/d.png"]),
        (["pics/s*"], ["pics/sub/c.webp", "pics/sub/deep/d.png"]),
        (["pics/[ab].*"], ["pics/a.JPG", "pics/b.png"]),
        (["pics/.hidden.png"], ["pics/.hidden.png"]),
    ],
)
def test_files_folders_and_globs(folder, places, names):
    if "pics/link.png" in places:
        (folder / "pics/link.png").symlink_to("b.png")
    pictures, bad = gather_images(places, progress=False)
    assert [picture.source.name for picture in pictures] == names and bad == []
    assert all(picture.digest == hashlib.sha256(png("blue")).hexdigest() for picture in pictures)


def test_a_file_with_the_name_of_a_glob(folder):
    (folder / "pics/[ab].png").write_bytes(png("green"))
    assert [picture.source.name for picture in gather_images(["pics/[ab].png"])[0]] == ["pics/[ab].png"]


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("gone.png", "no such file or folder"),
        ("", "no such file or folder"),
        ("a\0*", "no such file or folder"),
        ("n" * 300, "no such file or folder"),
        ("empty", "no picture in this folder"),
        ("pics/*.tiff", "nothing there matches"),
        ("emp*", "nothing there matches"),
        ("pics/notes.txt", "not an image"),
        ("pics/notes.*", "not an image"),
        ("pipe", "neither a file nor a folder"),
        ("file:///etc/hostname", '"file:" is not read'),
        ("ftp://host/a.png", '"ftp:" is not read'),
        ("s3://bucket/*.png", '"s3:" is not read'),
        ("data:image/png;base64," + "A" * 1000, '"data:" is not read'),
        ("http:", "not a web address"),
        ("http://", "not a web address"),
        ("http://host:port/a.png", "not a web address"),
        (f"http://{'a' * 70}.test/", "not a web address"),
    ],
)
def test_one_bad_place_never_costs_the_others(folder, place, reason):
    os.mkfifo(folder / "pipe")
    pictures, bad = gather_images(["pics/b.png", place, place, "pics/sub"], progress=False)
    assert [picture.source.name for picture in pictures] == ["pics/b.png", "pics/sub/c.webp", "pics/sub/deep/d.png"]
    [(name, why)] = bad
    assert reason in why and len(name) <= 301
    assert place.startswith(name.rstrip("…")) or name == "pics/notes.txt"


def test_bad_files_among_good_ones_are_named(folder, monkeypatch):
    (folder / "pics/sub/c.webp").write_bytes(png("blue")[:40])
    (folder / "pics/sub/gone.png").symlink_to("nothing.png")
    os.mkfifo(folder / "pics/sub/pipe.png")
    real = os.scandir

    def scandir(path):
        if str(path) == "pics/sub/deep":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    pictures, bad = gather_images(["pics", "pics/b.png"], progress=False)
    assert [picture.source.name for picture in pictures] == ALL[:3]
    reasons = dict(bad)
    assert set(reasons) == {"pics/sub/c.webp", "pics/sub/gone.png", "pics/sub/deep"}
    assert reasons["pics/sub/deep"] == "cannot be read: Permission denied"
    assert "No such file" in reasons["pics/sub/gone.png"]


def test_names_that_are_no_utf8_are_written_readably_and_found_by_it(folder):
    (folder / "pics" / os.fsdecode(b"caf\xe9.png")).write_bytes(png("red"))
    for places in (["pics"], ["pics/*.png"], [r"pics/caf\xe9.png"], [os.fsdecode(b"pics/caf\xe9.png")]):
        pictures, bad = gather_images(places, progress=False)
        assert r"pics/caf\xe9.png" in [picture.source.name for picture in pictures] and not bad
    _, bad = gather_images([os.fsdecode(b"gone\xe9.png")], progress=False)
    assert bad == [(r"gone\xe9.png", "no such file or folder")]


def test_a_pipe_among_pictures_is_not_waited_for(folder):
    os.mkfifo(folder / "pics" / "pipe.png")
    os.mkfifo(folder / "pics" / "pipe")
    pictures, bad = gather_images(["pics", "pics/pipe"], progress=False)
    assert len(pictures) == len(ALL) and [name for name, _ in bad] == ["pics/pipe"]
