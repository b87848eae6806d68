"""Pictures from web addresses: what is let in, what is not, and in what time."""

import hashlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from urllib3.connection import HTTPConnection, HTTPSConnection

from blip2vqa.data import collect, downloading
from blip2vqa.data.collect import gather_images
from blip2vqa.data.images import open_image
from blip2vqa.utils import progress
from helpers.pictures import png

GOOD = png("red")
PRIVATE = "a private address (127.0.0.1); --allow_private_addresses lets it in"
# path: status, head, body. A body that is a float is sent byte by byte, with so many seconds between.
ANSWERS: dict[str, tuple[int, dict, bytes | float]] = {
    "/good.png": (200, {"Content-Type": "image/png"}, GOOD),
    "/untold": (200, {}, GOOD),
    "/octets": (200, {"Content-Type": "application/octet-stream"}, GOOD),
    "/unsized.png": (200, {"Content-Type": "image/png", "Content-Length": None}, GOOD),
    "/page": (200, {"Content-Type": "text/html; charset=utf-8"}, b"<html></html>"),
    "/liar.png": (200, {"Content-Type": "image/png"}, b"<html></html>"),
    "/escape": (200, {"Content-Type": "\x1b[31mtext"}, b"red"),
    "/404.png": (404, {"Content-Type": "image/png"}, GOOD),
    "/500": (500, {}, b"oh"),
    "/599": (599, {}, b""),
    "/nothing": (204, {}, b""),
    "/empty.png": (200, {"Content-Type": "image/png"}, b""),
    "/1": (301, {"Location": "/2"}, b""),
    "/2": (302, {"Location": "3"}, b"moved"),
    "/3": (303, {"Location": "//HOST/4"}, b""),
    "/4": (307, {"Location": "http://HOST/5"}, b""),
    "/5": (308, {"Location": "/good.png#part"}, b""),
    "/0": (301, {"Location": "/1"}, b""),
    "/forever": (302, {"Location": "/forever"}, b""),
    "/to_file": (302, {"Location": "file:///etc/hostname"}, b""),
    "/to_nowhere": (302, {"Location": "http://[/"}, b""),
    "/to_localhost": (302, {"Location": "http://localhost:PORT/good.png"}, b""),
    "/drip": (200, {"Content-Type": "image/png", "Content-Length": "1000"}, 0.02),
    "/large": (200, {"Content-Type": "image/png", "Content-Length": "5000"}, 0.02),
    "/large_unsized": (200, {"Content-Type": "image/png", "Content-Length": None}, bytes(5000)),
    "/short_body": (200, {"Content-Type": "image/png", "Content-Length": str(len(GOOD) + 1)}, GOOD),
    "/short_image": (200, {"Content-Type": "image/png"}, png("red", 500)[:-50]),
}


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append((self.path, dict(self.headers)))
        if self.path == "/slow_head":
            return self._drip(b"HTTP/1.0 200 OK\r\nX-Slow: " + bytes(1000), 0.02)
        path = self.path.removeprefix("http://pictures.test")  # as a proxy is asked
        status, head, body = ANSWERS[path]
        body, pause = (body, 0) if isinstance(body, bytes) else (bytes(1000), body)
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | head).items():
            if value is not None:
                here = f"127.0.0.1:{self.server.server_port}"
                value = value.replace("HOST", here).replace("PORT", str(self.server.server_port))
                self.send_header(key, value)
        self.end_headers()
        self._drip(body, pause)

    def _drip(self, body: bytes, pause: float) -> None:
        step = 1 if pause else len(body) or 1
        for start in range(0, len(body), step):
            if self.server.closing.wait(pause):
                return
            try:
                self.wfile.write(body[start : start + step])
            except OSError:  # the client has gone
                return

    def log_message(self, *args) -> None:
        pass


@pytest.fixture(scope="module")
def running():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.closing, server.requests, server.daemon_threads = threading.Event(), [], True
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def server(running, monkeypatch):
    """A server on loopback that answers as ANSWERS says, with its `url`, `requests`, and no proxy in the way."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    running.requests.clear()
    return running


def fetch(*addresses: str, seconds: float = 5, **options) -> tuple[list[str], dict[str, str]]:
    """Names of good sources, reasons by place."""
    pictures, bad = gather_images(addresses, seconds=seconds, progress=False, **({"allow_private": True} | options))
    assert len(dict(bad)) == len(bad)
    return [picture.source.name for picture in pictures], dict(bad)


def test_an_address_becomes_a_picture_at_hand(server):
    [picture], bad = gather_images([f"{server.url}/good.png"], allow_private=True)
    assert bad == [] and picture.source.name == f"{server.url}/good.png"
    assert picture.source.read_bytes() == GOOD and picture.digest == hashlib.sha256(GOOD).hexdigest()
    assert open_image(picture.source).getpixel((0, 0)) == (255, 0, 0)
    assert "data=" not in repr(picture)


@pytest.mark.parametrize("path", ["/untold", "/octets", "/unsized.png", "/1"])
def test_pictures_told_in_other_ways(server, path):
    assert fetch(server.url + path) == ([server.url + path], {})


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/page", "not an image (text/html)"),
        ("/liar.png", "not an image, or of a format not read here"),
        ("/escape", "not an image (of an unknown type)"),
        ("/404.png", "404 Not Found"),
        ("/500", "500 Internal Server Error"),
        ("/599", "599 of an unknown kind"),
        ("/nothing", "204 No Content"),
        ("/empty.png", "an empty file"),
        ("/0", "more than 5 redirects"),
        ("/forever", "more than 5 redirects"),
        ("/to_file", 'redirected to "file:", which is not read'),
        ("/to_nowhere", "not a web address"),
        ("/large", "larger than 0.004 MB"),  # known from the head: the body would take longer than there is time
        ("/large_unsized", "larger than 0.004 MB"),
        ("/short_body", "the connection broke off"),
    ],
)
def test_what_an_address_may_not_be(server, path, reason):
    assert fetch(server.url + path, max_bytes=4000) == ([], {server.url + path: reason})


def test_a_truncated_picture_is_refused(server):
    names, bad = fetch(f"{server.url}/short_image")
    assert names == [] and "cannot be decoded" in bad[f"{server.url}/short_image"]


@pytest.mark.parametrize("path", ["/drip", "/slow_head"])
def test_the_time_limit_is_on_the_whole(server, path):
    start = time.monotonic()
    _, bad = fetch(server.url + path, seconds=0.3)
    assert time.monotonic() - start < 1.5
    assert bad == {server.url + path: "not there within 0.3 seconds"}


def test_a_name_that_takes_for_ever_to_resolve(server, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: server.closing.wait(10))
    start = time.monotonic()
    _, bad = fetch("http://pictures.test/good.png", seconds=0.2, allow_private=False)
    assert time.monotonic() - start < 1.5
    assert bad == {"http://pictures.test/good.png": "not there within 0.2 seconds"}


def test_a_closed_port_and_an_unknown_name(server, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/a.png"
        assert fetch(address) == ([], {address: "cannot be reached: Connection refused"})

    def unknown(*args, **options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    for allowed in (False, True):
        reasons = fetch("http://pictures.test/", allow_private=allowed)[1].values()
        assert list(reasons) == ["cannot be reached: Name or service not known"]


def test_a_server_without_tls(server):
    address = server.url.replace("http:", "https:") + "/good.png"
    assert fetch(address)[1][address].startswith("no secure connection")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1"])
def test_private_addresses_are_let_in_only_on_request(server, host):
    address = f"http://{host}:{server.server_port}/good.png"
    names, bad = fetch(address, allow_private=False)
    assert names == [] and bad[address] in (PRIVATE, PRIVATE.replace("127.0.0.1", "::1")) and not server.requests
    assert fetch(address) == ([address], {})


@pytest.mark.parametrize(
    "address",
    "10.0.0.1 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 0.0.0.0 224.0.0.1 255.255.255.255 :: ::1 fe80::1%1 "
    "fc00::1 fec0::1 ff02::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 2002:7f00:1:: 64:ff9b::7f00:1".split(),
)
def test_private_in_every_disguise(address):
    with pytest.raises(downloading.BadImage, match="a private address"):
        downloading.check_public(address)


@pytest.mark.parametrize("address", "8.8.8.8 ::ffff:8.8.8.8 2606:4700::1111 2002:808:808:: 64:ff9b::808:808".split())
def test_public_in_every_disguise(address):
    downloading.check_public(address)


def resolve(monkeypatch, *answers: list[str]) -> list[str]:
    """`pictures.test` resolves to these in turn, the last one for ever after; returns the log of what was asked."""
    real, asked, left = socket.getaddrinfo, [], list(answers)

    def getaddrinfo(host, port, *args, **options):
        if host != "pictures.test":
            return real(host, port, *args, **options)
        asked.append(host)
        found = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_every_address_of_a_name_counts(server, monkeypatch):
    resolve(monkeypatch, ["8.8.8.8", "127.0.0.1"])
    address = f"http://pictures.test:{server.server_port}/good.png"
    assert fetch(address, allow_private=False) == ([], {address: PRIVATE})


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_name_that_changes_its_mind_is_caught_at_the_socket(running, server, monkeypatch, scheme):
    asked = resolve(monkeypatch, ["8.8.8.8"], ["127.0.0.1"])
    if scheme == "https":  # the handshake is not what is tested
        monkeypatch.setattr(HTTPSConnection, "connect", HTTPConnection.connect)
    address = f"{scheme}://pictures.test:{server.server_port}/good.png"
    assert fetch(address, allow_private=False) == ([], {address: PRIVATE})
    assert len(asked) == 2 and not server.requests


def test_a_redirect_to_a_private_address(server, monkeypatch):
    """The first hop is taken for public; the second is checked again."""
    real = downloading.check_public

    def first_hop_is_public(address):
        if not server.requests:
            return
        real(address)

    monkeypatch.setattr(downloading, "check_public", first_hop_is_public)
    address = f"{server.url}/to_localhost"
    names, bad = fetch(address, allow_private=False)
    assert names == [] and "a private address" in bad[address]
    assert [path for path, _ in server.requests] == ["/to_localhost"]


def test_through_a_proxy(server, monkeypatch):
    """The proxy may be at a private address and knows names that are unknown here; private ones stay refused."""
    monkeypatch.setenv("http_proxy", server.url)
    assert fetch("http://pictures.test/good.png", allow_private=False) == (["http://pictures.test/good.png"], {})
    assert [path for path, _ in server.requests] == ["http://pictures.test/good.png"]
    assert fetch("http://127.0.0.1/good.png", allow_private=False)[1] == {"http://127.0.0.1/good.png": PRIVATE}
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    reason = "the proxy cannot be used"
    assert list(fetch("http://pictures.test/good.png")[1].values()) == [reason]


def test_credentials_are_sent_and_never_shown(server):
    host = f"127.0.0.1:{server.server_port}"
    names, bad = fetch(f"http://me:secret@{host}/good.png", f"http://me:secret@{host}/404.png")
    assert names == [f"http://{host}/good.png"] and bad == {f"http://{host}/404.png": "404 Not Found"}
    assert all(head["Authorization"].startswith("Basic ") for _, head in server.requests)
    places = [f"http://me:sec/ret@{host}/a", "https://me:secret@[/", "ftp://me:secret@host/a", "http://secret@:1:2/"]
    _, bad = fetch(*places)
    assert len(bad) == len(places) and "ret" not in str(bad)
    assert collect.shown_place("http://host:80/@a.png") == "http://host:80/@a.png"
    assert collect.shown_place("http://[::1]/b:@a.png") == "http://[::1]/b:@a.png"


def test_many_addresses_keep_their_order_and_come_once(server, capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    paths = ["/page", "/untold", "/drip", "/good.png", "/octets", "/404.png", "/good.png#top", "/page"]
    pictures, bad = gather_images([server.url + path for path in paths], allow_private=True, seconds=1)
    assert [picture.source.name for picture in pictures] == [
        server.url + path for path in ("/untold", "/good.png", "/octets")
    ]
    assert [place for place, _ in bad] == [server.url + path for path in ("/page", "/drip", "/404.png")]
    assert sorted(path for path, _ in server.requests) == sorted({path.split("#")[0] for path in paths})
    assert "fetching" in capsys.readouterr().err
    gather_images([server.url + path for path in paths[:2]], allow_private=True, progress=False)
    gather_images([f"{server.url}/untold"], allow_private=True)
    assert capsys.readouterr().err == ""
