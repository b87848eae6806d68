"""Collects pictures from the places that a user names: files, folders, globs and web addresses."""

import glob
import os
import re
from collections.abc import Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

from blip2vqa.data.downloading import ADDRESS, download
from blip2vqa.data.images import BadImage, ImageSource, check_images, picture_extensions
from blip2vqa.utils.progress import show_progress
from blip2vqa.utils.terminal import name_on_disk, readable_name

MAX_SHOWN = 200  # characters of a place in a message; a data: address may have millions
AT_ONCE = 8  # downloads

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://|(data|file):", re.IGNORECASE)
# user:password@ before the host; a password may have a slash in it, which then looks like the end of a wrong port.
_CREDENTIALS = re.compile(
    r"^(https?:/*|[a-z][a-z0-9+.-]+://)(?:[^/?#\\]*|[^/?#\\:@\[]*:(?!\d*(?:[/?#\\]|$)).*)@", re.IGNORECASE | re.DOTALL
)


class Picture(NamedTuple):
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
    """Find the pictures at files, folders (with all below), globs and web addresses, in that order, and decode each once.

    `allow_private` lets in addresses outside the public internet; `seconds` and `max_bytes` limit each download, which
    stays in memory.

    Returns the pictures, and (name, reason) of what is no picture: places, or single files of a folder or glob. Names
    in both lists hold no credentials.
    """
    found: dict[str, ImageSource | str | None] = {}  # by name, in order; a text is the reason against it
    addresses: dict[str, str] = {}
    seen: set[str] = set()  # files, links resolved
    for place in places:
        name = shown_place(place)
        if ADDRESS.match(place):
            name = name.partition("#")[0]
            addresses.setdefault(name, place)
            found.setdefault(name)
            continue
        try:
            paths, unread = _files_at(place)
        except BadImage as error:
            paths, unread = [], {name: error.reason}
        found |= unread
        for path in paths:
            if (real := os.path.realpath(path)) not in seen:
                seen.add(real)
                name = readable_name(str(path))
                found[name] = ImageSource(name, path=path)

    def fetch(item: tuple[str, str]) -> tuple[str, bytes | BadImage]:
        return item[0], download(item[1], allow_private, seconds, max_bytes)

    hidden = not progress or len(addresses) < 2
    with ThreadPool(AT_ONCE) as pool:
        fetched = pool.imap_unordered(fetch, addresses.items())
        for name, result in show_progress(fetched, "fetching", len(addresses), unit="image", disable=hidden):
            found[name] = result.reason if isinstance(result, BadImage) else ImageSource(name, data=result)
    sources = [one for one in found.values() if isinstance(one, ImageSource)]
    digests, undecoded = check_images(sources, progress=progress)
    pictures = [Picture(source, digests[source.name]) for source in sources if source.name in digests]
    found |= undecoded
    return pictures, [(name, reason) for name, reason in found.items() if isinstance(reason, str)]


def shown_place(place: str) -> str:
    """Write a place for a message: without credentials, in UTF-8, and shortened where it is very long."""
    place = _CREDENTIALS.sub(r"\1", readable_name(place))
    return place if ADDRESS.match(place) or len(place) <= MAX_SHOWN else place[:MAX_SHOWN] + "…"


def _files_at(place: str) -> tuple[list[Path], dict[str, str]]:
    """List the files meant by a place on this machine, and the folders below it that cannot be read, with the reason.

    Raises BadImage when there is nothing that could be a picture.
    """
    if not os.path.lexists(place) and os.path.lexists(on_disk := name_on_disk(place)):
        place = on_disk
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
    """List the pictures in a folder and below it, sorted, and the folders that cannot be read, with the reason.

    Pictures are known by their extension. What is hidden is left out, and so are links to other folders, which may lead
    in circles. Raises BadImage when there are neither pictures nor unreadable folders.
    """
    extensions = picture_extensions()
    unread: list[OSError] = []
    paths = []
    for parent, folders, names in os.walk(folder, onerror=unread.append):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found = [Path(parent, name) for name in names if not name.startswith(".")]
        found = [path for path in found if path.suffix.lower() in extensions]
        paths += [path for path in found if os.path.isfile(path) or not os.path.exists(path)]  # links to nothing, too
    if not paths and not unread:
        raise BadImage("no picture in this folder of a format that is read here")
    return sorted(paths), {
        readable_name(str(Path(error.filename))): f"cannot be read: {error.strerror}" for error in unread
    }
