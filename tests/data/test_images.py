"""Pictures: found only inside their folder, decoded as people see them, refused when they cannot be trusted."""

import hashlib
import io
import os
import socket
import struct
import threading
import zlib

import numpy as np
import pytest
from PIL import Image

from blip2vqa.data import images
from blip2vqa.data.images import BadImage, ImageSource, check_images, open_image
from blip2vqa.utils import progress

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(data: bytes) -> list[tuple[int, int, int]]:
    image = open_image(data)
    assert image.mode == "RGB"
    return [tuple(map(int, pixel)) for pixel in np.asarray(image).reshape(-1, 3)]


def noise(size: int = 64) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(values)


def huge_png(width: int, height: int) -> bytes:
    """A few bytes that claim to be `width` × `height` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(10))) + chunk(b"IEND", b"")


def palette() -> Image.Image:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    return image


GREYS_16 = np.array([[0, 256], [32768, 65535]], dtype=np.uint16)
OF_GREYS_16 = [(0,) * 3, (1,) * 3, (128,) * 3, WHITE]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encode(Image.new("RGB", (1, 1), (1, 2, 3))), [(1, 2, 3)]),
        (encode(Image.new("L", (1, 1), 77)), [(77, 77, 77)]),
        (encode(Image.fromarray(np.array([[True, False]]))), [WHITE, (0, 0, 0)]),
        (encode(Image.new("CMYK", (1, 1), (0, 255, 255, 0)), "TIFF"), [RED]),
        (encode(Image.new("CMYK", (1, 1), (0, 255, 255, 0)), "JPEG", quality=100), [RED]),
        (encode(palette()), [RED, BLUE]),
        (encode(palette(), transparency=1), [RED, WHITE]),
        (encode(palette(), transparency=b"\x80\xff"), [(255, 127, 127), BLUE]),
        (encode(palette(), "GIF", transparency=1), [RED, WHITE]),
        (encode(Image.new("LA", (1, 1), (0, 0))), [WHITE]),
        (encode(Image.new("RGBA", (1, 1), (0, 0, 0, 0))), [WHITE]),
        (encode(Image.new("RGBA", (1, 1), (255, 0, 0, 128))), [(255, 127, 127)]),
        (encode(Image.new("RGB", (1, 1), RED), transparency=RED), [WHITE]),
        (encode(Image.fromarray(GREYS_16)), OF_GREYS_16),
        (encode(Image.fromarray(GREYS_16), "TIFF"), OF_GREYS_16),
        (b"P5 2 2 65535 " + GREYS_16.astype(">u2").tobytes(), OF_GREYS_16),
    ],
    ids="rgb grey bilevel cmyk cmyk-jpeg palette palette-index palette-alpha gif la rgba half rgb-key "
    "grey16 grey16-tiff grey16-pgm".split(),
)
def test_every_mode_becomes_the_rgb_people_see(data, expected):
    assert pixels(data) == expected


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP"])
def test_the_first_frame_of_an_animation(kind):
    frames = [Image.new("RGB", (1, 1), color) for color in (RED, BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    assert pixels(encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)) == [RED]


@pytest.mark.parametrize(
    ("orientation", "size", "corner"),
    [(1, (3, 2), (0, 0)), (2, (3, 2), (2, 0)), (3, (3, 2), (2, 1)), (4, (3, 2), (0, 1)),
     (5, (2, 3), (0, 0)), (6, (2, 3), (1, 0)), (7, (2, 3), (1, 2)), (8, (2, 3), (0, 2))],
)  # fmt: skip
def test_exif_rotation_is_applied(orientation, size, corner):
    image = Image.new("RGB", (3, 2), "white")
    image.putpixel((0, 0), RED)
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = open_image(encode(image, exif=exif))
    assert upright.size == size
    assert upright.getpixel(corner) == RED


def test_a_broken_exif_block_does_not_cost_the_picture():
    assert open_image(encode(noise(), "JPEG", exif=b"Exif\0\0garbage")).size == (64, 64)


@pytest.mark.parametrize("size", [(12_000, 10_000), (20_000, 20_000)])
def test_decompression_bombs_are_refused(size):
    with pytest.raises(BadImage, match="decompression bomb"):
        open_image(huge_png(*size))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_truncated_files_are_refused(kind):
    data = encode(noise(), kind)
    for end in (len(data) // 4, len(data) * 9 // 10):
        with pytest.raises(BadImage):
            open_image(data[:end])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"<html></html>",
        b"%PDF-1.7\n",
        encode(Image.new("RGB", (4, 4)), "EPS"),
        encode(Image.new("RGB", (4, 4)), "PCX"),  # PIL would read it: only the usual formats are let in
        encode(Image.fromarray(GREYS_16.astype(np.float32)), "TIFF"),
        encode(Image.fromarray(GREYS_16.astype(np.int32) * 1000), "TIFF"),
    ],
    ids="empty text html pdf eps pcx float 32-bit".split(),
)
def test_what_is_no_picture_is_refused(data):
    with pytest.raises(BadImage):
        open_image(data)


def test_check_decodes_each_distinct_picture_once(tmp_path, monkeypatch):
    data = {"good.png": encode(noise(8)), "copy.png": encode(noise(8)), "broken.png": b"broken", "twin.png": b"broken"}
    for name, content in data.items():
        (tmp_path / name).write_bytes(content)
    sources = [ImageSource(name, path=tmp_path / name) for name in [*data, "gone.png"]]
    decoded = []
    lock = threading.Lock()

    def counting(content):
        with lock:
            decoded.append(content)
        return open_image(content)

    monkeypatch.setattr(images, "open_image", counting)
    digests, bad = check_images(sources)
    digest = hashlib.sha256(data["good.png"]).hexdigest()
    assert digests == {"good.png": digest, "copy.png": digest}
    assert set(bad) == {"broken.png", "twin.png", "gone.png"}
    assert "not an image" in bad["twin.png"] and "No such file" in bad["gone.png"]
    assert decoded == [data["good.png"], data["broken.png"]]


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "too large"])
def test_what_has_no_end_is_not_read(kind, tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        monkeypatch.chdir(tmp_path)  # a socket's path may have some hundred bytes
        socket.socket(socket.AF_UNIX).bind("x.png")
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.touch()
        os.truncate(path, images.MAX_BYTES + 1)
    _, bad = check_images([ImageSource("x.png", path=path)])
    assert "larger than" in bad["x.png"] or "a pipe, a socket or a device" in bad["x.png"]


def test_the_bar_shows_for_many_pictures_only(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    (tmp_path / "a.png").write_bytes(encode(noise(4)))
    sources = [ImageSource(str(number), path=tmp_path / "a.png") for number in range(images.MIN_IMAGES_FOR_BAR)]
    check_images(sources[1:])
    check_images(sources, progress=False)
    assert capsys.readouterr().err == ""
    check_images(sources)
    assert "images/s" in capsys.readouterr().err
