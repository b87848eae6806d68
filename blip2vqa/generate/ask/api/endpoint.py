"""The endpoint of --backend api: its address, its key, and what is wrong with them before anything is sent.

Imports no client.
"""

import ipaddress
import os
from urllib.parse import urlsplit

from blip2vqa.config.generate import ApiArguments

KEY_VARIABLE = "OPENAI_API_KEY"
URL_VARIABLE = "OPENAI_BASE_URL"
OPENAI_URL = "https://api.openai.com/v1"
NO_KEY = "none"  # sent to a local server, which needs none, because the client insists on a key


def endpoint_url(args: ApiArguments) -> str:
    """Return the address given by the flag, else by the environment, else OpenAI's."""
    return args.api_base_url or os.environ.get(URL_VARIABLE, "").strip() or OPENAI_URL


def api_key() -> str:
    """Return the key given by the environment, else `NO_KEY`."""
    return os.environ.get(KEY_VARIABLE, "").strip() or NO_KEY


def is_local(url: str) -> bool:
    """Tell whether an address leads to this machine or a private network, where a server may do without key and encryption."""
    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith((".localhost", ".local", ".internal"))  # no public name has no dot
    return address.is_loopback or address.is_private


def endpoint_problems(args: ApiArguments) -> list[str]:
    """Check what `ApiArguments` cannot check by itself; returns one line a problem. A dry run needs no key."""
    problems = []
    limit = args.spending_limit_usd
    if limit is not None and not (args.usd_per_million_input_tokens or args.usd_per_million_output_tokens):
        problems.append(
            f"--spending_limit_usd {limit}: cannot be kept without prices; give --usd_per_million_input_tokens and "
            "--usd_per_million_output_tokens"
        )
    if not args.api_model:
        problems.append("--api_model: missing; --backend api needs the name of a model that the endpoint serves")
    url = endpoint_url(args)
    flag = "--api_base_url" if args.api_base_url else URL_VARIABLE
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        whole = False
    if not whole:
        return [*problems, f"{flag}: not an address; give one such as http://127.0.0.1:8000/v1"]
    if "@" in parts.netloc or parts.query:
        # Not shown: the address stands in messages, and what is refused here may be a secret.
        return [*problems, f"{flag}: holds a password or a query; give the address alone, the key in {KEY_VARIABLE}"]
    if args.dry_run:
        return problems
    key = api_key()
    if key == NO_KEY and not is_local(url):
        problems.append(
            f"{KEY_VARIABLE}: not set; {parts.netloc} needs a key: set it in the environment, never as a flag"
        )
    elif not key.isascii() or not key.isprintable() or " " in key:
        problems.append(f"{KEY_VARIABLE}: holds a space, a line break or a letter that no key has; set it anew")
    elif key != NO_KEY and parts.scheme == "http" and not is_local(url):
        problems.append(f"{flag} {url}: would send the key unencrypted; use https://")
    return problems
