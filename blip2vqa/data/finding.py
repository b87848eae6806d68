"""Finds pictures by the names that a table gives them, inside one folder and nowhere else, however the names are written."""

import logging
import os
import re
import unicodedata
from collections import defaultdict
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

from blip2vqa.data.images import BadImage, picture_extensions
from blip2vqa.utils.terminal import name_on_disk, readable_name

NEAREST = 10  # names not found for which the nearest one is looked up: each takes a tenth of a second among 400,000
SHOWN = 3  # names in the line that says how names were understood

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_NUMBERED = re.compile(r"(?:(coco_[a-z]+\d{4})_)?0*(\d{1,12})")

logger = logging.getLogger(__name__)


class _Entry(NamedTuple):
    place: str
    """Path below the folder, as it stands on the disk."""
    folders: tuple[str, ...]
    """Names of the folders on the way to it, as `_plain` writes them."""


class _Files(NamedTuple):
    """The files below a folder, by what may be written for them; the last two hold pictures alone."""

    by_name: dict[str, list[_Entry]]
    by_stem: dict[str, list[_Entry]]
    by_number: dict[str, list[tuple[str | None, _Entry]]]
    """Pictures with a number for a name, as COCO's: number → (prefix such as coco_train2014, entry)."""


class ImageIndex:
    """Finds pictures by the names a table gives them, inside `image_dir` and nowhere else."""

    def __init__(self, image_dir: str | Path):
        self.root = Path(image_dir)
        self._real_root = self.root.resolve()
        self._otherwise: dict[str, str] = {}  # name → place, of names that are written otherwise than their files
        self._meant: dict[str, str] = {}  # place → the one longer path that was taken for it
        self._missed = 0

    def at(self, name: str) -> Path | None:
        """Find the file at `image_dir/name`; None where there is none. Raises BadImage for a place outside `image_dir`."""
        _check_name(name)
        if _is_absolute(name):
            raise BadImage("absolute path: give names relative to the image folder")
        try:
            for path in dict.fromkeys((self.root / name, self.root / name_on_disk(name))):
                if path.is_file():
                    return self._inside(path)
                if path.is_symlink():
                    raise BadImage("a link to nothing")
        except OSError as error:  # a name too long for the file system, a folder that may not be entered
            raise BadImage(f"cannot be looked up: {error.strerror}") from error
        return None

    def find(self, name: str) -> Path:
        """Find the file meant by `name`.

        It is `image_dir/name`, else `image_dir/<first two characters>/name` (the layout of Amazon Berkeley Objects),
        else the one file of that name anywhere below `image_dir`; for the last, the extension may be left out and
        leading folders may be given. The name may also have backslashes, other capitals or decomposed letters, be COCO's
        number without its zeros, or be a longer path, absolute or not, whose end is the file's place. Raises BadImage when
        it is not found, ambiguous, outside `image_dir`, or when two longer paths would be the same file.
        """
        _check_name(name)
        absolute = _is_absolute(name)
        if not absolute and (path := self.at(name) or (not name.startswith("..") and self.at(f"{name[:2]}/{name}"))):
            return path
        if absolute and os.path.lexists(name) and not Path(name).resolve().is_relative_to(self._real_root):
            raise BadImage("absolute path of a file outside the image folder: give names relative to that folder")
        parts = _parts(name)
        found = self._search(parts)
        exact = [entry for entry in found if _as_written(name, entry.place)]
        places = [entry.place for entry in exact or found]
        if not places:
            raise BadImage(f"not found in the image folder{self._nearest(parts)}")
        if len(places) > 1:
            some = ", ".join(map(readable_name, sorted(places)[:3]))
            raise BadImage(f"{len(places)} files of this name ({some}{', ...' if len(places) > 3 else ''}): say which")
        path = self._inside(self.root / places[0])
        if not path.is_file():
            raise BadImage("neither a file nor a link to one")
        longer = len(parts) > len(_parts(places[0]))
        if longer or not exact:
            self._note(name, "/".join(parts), places[0], longer)
        return path

    def report(self, table: str | Path) -> None:
        """Log in one line which names of a table were taken for files whose names are written otherwise."""
        if self._otherwise:
            some = [f"{name} as {readable_name(place)}" for name, place in list(self._otherwise.items())[:SHOWN]]
            rest = f" and {len(self._otherwise) - SHOWN} more" if len(self._otherwise) > SHOWN else ""
            logger.warning("%s: images that are named otherwise than their files: %s%s", table, ", ".join(some), rest)

    def _search(self, parts: tuple[str, ...]) -> list[_Entry]:
        """List the files that are equally well meant by a name."""
        *folders, last = parts
        stem, extension = os.path.splitext(last)
        extension = extension if extension in picture_extensions() else ""
        number = _NUMBERED.fullmatch(stem if extension else last)
        numbered = [
            entry
            for prefix, entry in (self._files.by_number.get(number[2], ()) if number else ())
            if (not prefix or not number[1] or prefix == number[1]) and entry.place.lower().endswith(extension)
        ]
        for entries in (self._files.by_name.get(last, ()), self._files.by_stem.get(last, ()), numbered):
            shared = {entry: _folders_shared(tuple(folders), entry.folders) for entry in entries}
            if (most := max(shared.values(), default=-1)) >= 0:
                return [entry for entry, count in shared.items() if count == most]
        return []

    def _note(self, name: str, written: str, place: str, longer: bool) -> None:
        """Remember what a name was taken for. Raises BadImage where another longer path was taken for it."""
        if longer and (other := self._meant.setdefault(place, written)) != written:
            raise BadImage(f"ends as {other} does, and both cannot be {readable_name(place)}: say which")
        self._otherwise[name] = place

    def _nearest(self, parts: tuple[str, ...]) -> str:
        self._missed += 1
        if self._missed > NEAREST:
            return ""
        from rapidfuzz import fuzz, process

        near = process.extractOne(
            os.path.splitext(parts[-1])[0], list(self._files.by_stem), scorer=fuzz.ratio, score_cutoff=75
        )
        return f"; the nearest name there is {readable_name(self._files.by_stem[near[0]][0].place)}" if near else ""

    def _inside(self, path: Path) -> Path:
        if not path.resolve().is_relative_to(self._real_root):
            raise BadImage("a link that leads outside the image folder")
        return path

    @cached_property
    def _files(self) -> _Files:
        """List all files below the folder, once."""
        extensions = picture_extensions()
        files = _Files(defaultdict(list), defaultdict(list), defaultdict(list))
        for folder, _, names in os.walk(self.root):
            relative = Path(folder).relative_to(self.root)
            folders = _parts(readable_name(str(relative)))
            for name in names:
                *more, last = _parts(readable_name(name))  # a backslash may stand in a file's name
                entry = _Entry((relative / name).as_posix(), (*folders, *more))
                files.by_name[last].append(entry)
                stem, extension = os.path.splitext(last)
                if extension in extensions:
                    files.by_stem[stem].append(entry)
                    if number := _NUMBERED.fullmatch(stem):
                        files.by_number[number[2]].append((number[1], entry))
        return files


def _folders_shared(asked: tuple[str, ...], folders: tuple[str, ...]) -> int:
    """Count the folders at the end of a name that a file has, too; -1 where the file cannot be meant."""
    more = len(asked) - len(folders)
    if more <= 0:
        return len(asked) if folders[-more:] == asked else -1
    return len(folders) if asked[more:] == folders else -1


def _check_name(name: str) -> None:
    if "\0" in name or not _parts(name):
        raise BadImage("not a file name")
    if ".." in PurePosixPath(name).parts or ".." in PureWindowsPath(name).parts:
        raise BadImage('".." in the name: give names inside the image folder')


def _is_absolute(name: str) -> bool:
    windows = PureWindowsPath(name)
    return bool(name.startswith(("/", "~/")) or windows.drive or windows.root or _SCHEME.match(name))


def _parts(name: str) -> tuple[str, ...]:
    """Split a name at slashes of either kind, each part in small, composed letters."""
    plain = (
        name.lower() if name.isascii() else unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    )
    return tuple(part for part in plain.replace("\\", "/").split("/") if part not in ("", "."))


def _as_written(name: str, place: str) -> bool:
    """Whether name and place end alike, letter for letter, the extension given or not."""
    asked, path = PurePosixPath(name).parts, PurePosixPath(place)
    return any(asked[-len(parts) :] == parts[-len(asked) :] for parts in (path.parts, path.with_suffix("").parts))
