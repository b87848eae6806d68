"""Pictures from the places a user names: files, folders, globs and web addresses."""

import glob
import http.client
import ipaddress
import os
import re
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from PIL import Image
from requests import exceptions
from requests.adapters import HTTPAdapter
from requests.sessions import SessionRedirectMixin
from requests.utils import get_environ_proxies, select_proxy
from tqdm.auto import tqdm

from blip2vqa.data.images import FORMATS, BadImage, ImageSource, check_images

MAX_REDIRECTS = 5
MAX_SHOWN = 200  # characters of a place in a message; a data: address may have millions
AT_ONCE = 8  # downloads
PUBLIC_IPV6, NAT64 = ipaddress.ip_network("2000::/3"), ipaddress.ip_network("64:ff9b::/96")
CHUNK = 1 << 16  # bytes
HEADERS = {"User-Agent": "blip2vqa", "Accept": "image/*", "Accept-Encoding": "identity"}
BYTES_OF_ANY_KIND = ("application/octet-stream", "binary/octet-stream")  # what stores say of files they know nothing of

_ADDRESS = re.compile(r"https?:", re.IGNORECASE)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://|(data|file):", re.IGNORECASE)
# user:password@ before the host; a password may have a slash in it, which then looks like the end of a wrong port.
_CREDENTIALS = re.compile(
    r"^(https?:/*|[a-z][a-z0-9+.-]+://)(?:[^/?#\\]*|[^/?#\\:@\[]*:(?!\d*(?:[/?#\\]|$)).*)@", re.IGNORECASE | re.DOTALL
)


@dataclass(frozen=True)
class Picture:
    """A picture that can be decoded, and the SHA-256 of its bytes."""

    source: ImageSource
    digest: str


def gather_images(
    places: Sequence[str],
    *,
    allow_private: bool = False,
    seconds: float = 20,
    max_bytes: int = 50_000_000,
    progress: bool = True,
) -> tuple[list[Picture], list[tuple[str, str]]]:
    """The pictures at `places`, in that order and each file or address once: files, folders with all below them,
    globs, http and https addresses. Each was read and decoded once; what was downloaded stays in memory.

    `seconds` and `max_bytes` limit each download; `allow_private` lets in addresses that are not of the public
    internet. The second list names what is no picture, with the reason in a few words: places, or single files of a
    folder or glob. Their credentials are left out, and so they are from the names of the sources.
    """
    sources: dict[str, ImageSource] = {}  # by name, in order, like the next two
    addresses: dict[str, str] = {}
    bad: dict[str, str] = {}
    order: dict[str, None] = {}
    seen: set[str] = set()  # files, links resolved
    for place in places:
        name = _shown(place)
        try:
            if _ADDRESS.match(place):
                name = name.partition("#")[0]
                addresses.setdefault(name, place)
                order.setdefault(name)
                continue
            paths, unread = _files_at(place)
        except BadImage as error:
            paths, unread = [], {name: error.reason}
        bad |= unread
        order |= dict.fromkeys(unread)
        for path in paths:
            if (real := os.path.realpath(path)) not in seen:
                seen.add(real)
                sources[str(path)] = ImageSource(str(path), path=path)
                order.setdefault(str(path))

    def fetch(item: tuple[str, str]) -> tuple[str, bytes | BadImage]:
        return item[0], _download(item[1], allow_private, seconds, max_bytes)

    hidden = not progress or len(addresses) < 2
    with ThreadPool(AT_ONCE) as pool:
        fetched = pool.imap_unordered(fetch, addresses.items())
        for name, result in tqdm(fetched, "fetching", len(addresses), unit="image", disable=hidden):
            if isinstance(result, BadImage):
                bad[name] = result.reason
            else:
                sources[name] = ImageSource(name, data=result)
    digests, undecoded = check_images(sources.values(), progress=progress)
    bad |= undecoded
    pictures = [Picture(sources[name], digests[name]) for name in order if name in digests]
    return pictures, [(name, bad[name]) for name in order if name in bad]


def _shown(place: str) -> str:
    """A place as messages name it: no credentials, not endless."""
    place = _CREDENTIALS.sub(r"\1", place)
    return place if _ADDRESS.match(place) or len(place) <= MAX_SHOWN else place[:MAX_SHOWN] + "…"


def _files_at(place: str) -> tuple[list[Path], dict[str, str]]:
    """The files meant by a place on this machine, and the folders below it that cannot be read, with the reason.
    Raises BadImage: there is nothing that could be a picture."""
    if os.path.isfile(place):
        return [Path(place)], {}
    if os.path.isdir(place):
        return _pictures_below(Path(place))
    if os.path.exists(place):
        raise BadImage("neither a file nor a folder")  # a pipe or a device may have no end
    if scheme := _SCHEME.match(place):
        raise BadImage(f'"{scheme[1] or scheme[2]}:" is not read: give a file, a folder, a glob or an http(s) address')
    if not glob.has_magic(place) or "\0" in place:
        raise BadImage("no such file or folder")
    paths, unread = [], {}
    for match in sorted(map(Path, glob.glob(place, recursive=True))):  # each as if named, as when the shell expands
        try:
            more, more_unread = _files_at(str(match))
        except BadImage:  # an empty folder or a link to nothing among the matches
            continue
        paths += more
        unread |= more_unread
    if not paths and not unread:
        raise BadImage("nothing there matches")
    return paths, unread


def _pictures_below(folder: Path) -> tuple[list[Path], dict[str, str]]:
    """All pictures in a folder and in those below it, by extension, sorted, without what is hidden and what links
    to other folders hold (they may lead in circles); and the folders that cannot be read, with the reason. Raises
    BadImage when there are neither."""
    Image.init()
    extensions = {extension for extension, kind in Image.EXTENSION.items() if kind in FORMATS}
    unread: list[OSError] = []
    paths = []
    for parent, folders, names in os.walk(folder, onerror=unread.append):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found = [Path(parent, name) for name in names if not name.startswith(".")]
        found = [path for path in found if path.suffix.lower() in extensions]
        paths += [path for path in found if os.path.isfile(path) or not os.path.exists(path)]  # links to nothing, too
    if not paths and not unread:
        raise BadImage("no picture in this folder of a format that is read here")
    return sorted(paths), {str(Path(error.filename)): f"cannot be read: {error.strerror}" for error in unread}


def _download(address: str, allow_private: bool, seconds: float, max_bytes: int) -> bytes | BadImage:
    """The bytes at an http(s) address, or the reason why there are none, after no more than `seconds`."""
    late = BadImage(f"not there within {seconds:g} seconds")
    result: list[bytes | BadImage] = []

    def run() -> None:
        try:
            result.append(_follow(address, allow_private, time.monotonic() + seconds, max_bytes))
        except BadImage as error:
            result.append(error)
        except (TimeoutError, requests.Timeout, urllib3.exceptions.ReadTimeoutError):
            result.append(late)
        except Exception as error:  # one address never costs the others, whatever a server makes libraries raise
            result.append(BadImage(_reason(error)))

    # Limits on sockets count from byte to byte and leave looking up the name unlimited. So the thread is left behind
    # when time is up: it ends with the server's patience or with the process.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return result[0] if result else late


def _follow(address: str, allow_private: bool, deadline: float, max_bytes: int) -> bytes:
    """The image at an address, or where its redirects lead."""
    for _ in range(MAX_REDIRECTS + 1):
        # Without a requests.Session: no cookies, no passwords from ~/.netrc, no redirects behind our back.
        request = requests.Request("GET", address, HEADERS).prepare()
        # Proxies and certificates of the environment are for users who have no other way out.
        proxies = get_environ_proxies(request.url)
        proxy = select_proxy(request.url, proxies)
        if not allow_private:
            _check_host(request.url, proxied=bool(proxy))
        adapter = HTTPAdapter() if allow_private else _GuardedAdapter()
        trusted = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
        remaining = max(deadline - time.monotonic(), 0.001)
        with adapter.send(request, stream=True, timeout=remaining, verify=trusted, proxies=proxies) as response:
            target = SessionRedirectMixin().get_redirect_target(response)
            if target is None:
                return _read(response, deadline, max_bytes)
            address = urljoin(request.url, target)
        if not _ADDRESS.match(address):
            raise BadImage(f'redirected to "{urlsplit(address).scheme[:20]}:", which is not read')
    raise BadImage(f"more than {MAX_REDIRECTS} redirects")


def _read(response: requests.Response, deadline: float, max_bytes: int) -> bytes:
    """The body of a response that is an image by what its head says."""
    status = response.status_code
    if status != 200:
        raise BadImage(f"{status} {http.client.responses.get(status, 'of an unknown kind')}")
    kind = response.headers.get("Content-Type", "").split(";")[0].strip().lower()
    if kind and not kind.startswith("image/") and kind not in BYTES_OF_ANY_KIND:
        raise BadImage(f"not an image ({kind[:60] if kind.isprintable() else 'of an unknown type'})")
    too_large = BadImage(f"larger than {max_bytes / 1e6:g} MB")
    if (response.raw.length_remaining or 0) > max_bytes:
        raise too_large
    data = bytearray()
    while chunk := response.raw.read1(CHUNK, decode_content=True):  # read would wait for a whole chunk
        data += chunk
        if len(data) > max_bytes:
            raise too_large
        if time.monotonic() > deadline:
            raise TimeoutError
    return bytes(data)


def _reason(error: Exception) -> str:
    """An error of `requests` in a few words, without the address, which may have a password in it."""
    # InvalidSchema is about proxies as well: SOCKS takes one more library.
    if isinstance(error, (exceptions.ProxyError, exceptions.InvalidProxyURL, exceptions.InvalidSchema)):
        return "the proxy cannot be used"
    if isinstance(error, ValueError):  # InvalidURL is one, and so is what urllib.parse and the codec of names raise
        return "not a web address"
    cause: BaseException | None = error
    why = None
    while cause:
        why = getattr(cause, "verify_message", None) or getattr(cause, "strerror", None) or why
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, exceptions.SSLError):
        return f"no secure connection: {why}" if why else "no secure connection"
    if isinstance(error, (requests.RequestException, urllib3.exceptions.HTTPError)):
        return f"cannot be reached: {why}" if why else "the connection broke off"
    return f"cannot be fetched: {why or type(error).__name__}"


def _check_host(url: str, proxied: bool) -> None:
    """Raises BadImage when the name of a server resolves to a private address, whichever would be connected to."""
    parts = urlsplit(url)
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or parts.scheme, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if proxied:  # networks with a proxy often know no names of the world outside
            return
        raise BadImage(f"cannot be reached: {error.strerror}") from error
    for *_, address in found:
        _check_public(address[0])


def _check_public(address: str) -> None:
    """Raises BadImage when an IP address is not one of the public internet."""
    ip = meant = ipaddress.ip_address(address)
    if ip.version == 6:  # IPv4 in disguise: mapped, 6to4, NAT64
        meant = ip.ipv4_mapped or ip.sixtofour or ip
        if ip in NAT64:
            meant = ipaddress.ip_address(ip.packed[-4:])
    # is_global also says yes to multicast, and to blocks of IPv6 that are not (or no longer) given out.
    if not meant.is_global or meant.is_multicast or (meant.version == 6 and meant not in PUBLIC_IPV6):
        raise BadImage(f"a private address ({ip}); --allow_private_addresses lets it in")


class _Guarded:
    """A connection that asks nothing of a private address: a name may resolve differently from one time to the next
    (DNS rebinding), so the other end of the socket is what counts."""

    def connect(self) -> None:
        super().connect()
        try:
            _check_public(self.sock.getpeername()[0])
        except BaseException:
            self.close()
            raise


class _GuardedHTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = type("_GuardedHTTP", (_Guarded, urllib3.connection.HTTPConnection), {})


class _GuardedHTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = type("_GuardedHTTPS", (_Guarded, urllib3.connection.HTTPSConnection), {})


class _GuardedAdapter(HTTPAdapter):
    """Guards what is connected to directly. The other end of a proxied connection is the proxy, often at a private
    address itself; it alone knows where it goes on to, and names that resolve here were checked before."""

    def init_poolmanager(self, *args, **options) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _GuardedHTTPPool, "https": _GuardedHTTPSPool}
