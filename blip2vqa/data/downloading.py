"""Downloads one picture: within a time and a size, only what is declared an image, and only from the public internet."""

import http.client
import ipaddress
import os
import re
import socket
import time
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests import exceptions
from requests.adapters import HTTPAdapter
from requests.sessions import SessionRedirectMixin
from requests.utils import get_environ_proxies, select_proxy

from blip2vqa.data.images import BadImage
from blip2vqa.utils.threads import call_within

ADDRESS = re.compile(r"https?:", re.IGNORECASE)
MAX_REDIRECTS = 5
PUBLIC_IPV6, NAT64 = ipaddress.ip_network("2000::/3"), ipaddress.ip_network("64:ff9b::/96")
CHUNK = 1 << 16  # bytes
HEADERS = {"User-Agent": "blip2vqa", "Accept": "image/*", "Accept-Encoding": "identity"}
BYTES_OF_ANY_KIND = ("application/octet-stream", "binary/octet-stream")  # what stores say of files they know nothing of


def download(address: str, allow_private: bool, seconds: float, max_bytes: int) -> bytes | BadImage:
    """Fetch an http(s) address in at most `seconds`, and return its bytes or the reason why there are none."""
    try:
        return call_within(seconds, _follow, address, allow_private, time.monotonic() + seconds, max_bytes)
    except BadImage as error:
        return error
    except (TimeoutError, requests.Timeout, urllib3.exceptions.ReadTimeoutError):
        return BadImage(f"not there within {seconds:g} seconds")
    except Exception as error:  # one address never costs the others, whatever a server makes libraries raise
        return BadImage(_reason(error))


def _follow(address: str, allow_private: bool, deadline: float, max_bytes: int) -> bytes:
    """Fetch the image at an address, or where its redirects lead."""
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
        if not ADDRESS.match(address):
            raise BadImage(f'redirected to "{urlsplit(address).scheme[:20]}:", which is not read')
    raise BadImage(f"more than {MAX_REDIRECTS} redirects")


def _read(response: requests.Response, deadline: float, max_bytes: int) -> bytes:
    """Read the body of a response whose head says that it is an image."""
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
    """Describe an error of `requests` in a few words, without the address, which may have a password in it."""
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
    """Raise BadImage when the name of a server resolves to any private address, even if another would be connected to."""
    parts = urlsplit(url)
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or parts.scheme, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if proxied:  # networks with a proxy often know no names of the world outside
            return
        raise BadImage(f"cannot be reached: {error.strerror}") from error
    for *_, address in found:
        check_public(address[0])


def check_public(address: str) -> None:
    """Raise BadImage when an IP address is not one of the public internet."""
    ip = meant = ipaddress.ip_address(address)
    if ip.version == 6:  # IPv4 in disguise: mapped, 6to4, NAT64
        meant = ip.ipv4_mapped or ip.sixtofour or ip
        if ip in NAT64:
            meant = ipaddress.ip_address(ip.packed[-4:])
    # is_global also says yes to multicast, and to blocks of IPv6 that are not (or no longer) given out.
    if not meant.is_global or meant.is_multicast or (meant.version == 6 and meant not in PUBLIC_IPV6):
        raise BadImage(f"a private address ({ip}); --allow_private_addresses lets it in")


def _guarded(pool: type[urllib3.HTTPConnectionPool]) -> type[urllib3.HTTPConnectionPool]:
    """Derive a pool whose connections refuse a private address, judged by the other end of the socket.

    A name may resolve differently from one time to the next (DNS rebinding), so its look-up before does not suffice.
    """

    class Connection(pool.ConnectionCls):
        def connect(self) -> None:
            super().connect()
            try:
                check_public(self.sock.getpeername()[0])
            except BaseException:
                self.close()
                raise

    return type(pool.__name__, (pool,), {"ConnectionCls": Connection})


class _GuardedAdapter(HTTPAdapter):
    """Guards direct connections, not those through a proxy.

    The other end of those is the proxy, which is often at a private address itself; it alone knows where it goes on to,
    and names that resolve here were checked before.
    """

    def init_poolmanager(self, *args, **options) -> None:
        super().init_poolmanager(*args, **options)
        pools = (urllib3.HTTPConnectionPool, urllib3.HTTPSConnectionPool)
        self.poolmanager.pool_classes_by_scheme = {pool.scheme: _guarded(pool) for pool in pools}
