"""Pack one adapter into one file to hand on: a zip with its files and their checksums, the same bytes for the same adapter."""

import hashlib
import json
import os
import re
import shutil
import stat
import struct
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO, Literal

from blip2vqa.adapters.files.adapter import Adapter
from blip2vqa.adapters.storage.local import folder_of, own_name, placing
from blip2vqa.adapters.validation.safety import CARRIED_FILES, CONFIG, WEIGHTS, check_name, too_large
from blip2vqa.adapters.validation.schema import Schema, Sha256, problems_of
from blip2vqa.utils.errors import InputError, collect_errors, file_error, raise_all
from blip2vqa.utils.files import flush_to_disk, temporary_path
from blip2vqa.utils.strict_json import parse_json, shown

CHECKSUMS = "checksums.json"
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, RuntimeError, OverflowError, IndexError,
)  # fmt: skip
"""What `zipfile` raises for a file that is not what it says."""


class Checksums(Schema):
    """checksums.json of an archive."""

    format: Literal[1]
    name: str
    """Of the adapter."""
    files: dict[str, Sha256]


def export(adapter: Adapter, output: str | Path) -> Path:
    """Write an adapter to one file, `output`, or to NAME.zip in the folder `output`; return the file.

    Raises `InputError` when there is such a file already, or it cannot be written; half a file is never left.
    """
    name, output = own_name(adapter.name), Path(output)
    output = output / f"{name}.zip" if output.is_dir() else output
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise file_error(f"archive {output}: cannot be written", error) from error
    packed = temporary_path(output)  # which also clears away what was left where this was stopped before
    try:
        if os.path.lexists(output):
            raise FileExistsError
        try:
            with packed.open("wb") as file:
                pack_files(adapter.folder, name, file)
            flush_to_disk(packed)
            try:
                os.link(packed, output)  # which fails, rather than replace a file that came meanwhile
            except OSError:  # also of a file system without links
                if os.path.lexists(output):
                    raise FileExistsError from None
                os.rename(packed, output)
        finally:
            packed.unlink(missing_ok=True)
    except FileExistsError as error:
        raise InputError(f"archive {output}: exists already; choose another name, or remove it") from error
    except OSError as error:
        raise file_error(f"archive {output}: cannot be written", error) from error
    return output


def import_adapter(archive: str | Path, name: str | None = None, store: str | Path | None = None) -> Path:
    """Put the adapter in an archive into a store, under its own name if no other is given; return its folder there.

    Raises `InputError` for an archive that is not what `export` writes, for an adapter that is refused, or for a name that
    is taken. What differs from its checksum when it is unpacked does not enter the store.
    """
    archive = Path(archive)
    what = f"archive {archive if str(archive).isprintable() else shown(str(archive))}"
    if not archive.is_file():
        raise InputError(f"{what}: there is no such file")
    try:
        with open(archive, "rb") as file:
            if file.read(4) != b"PK\x03\x04":
                raise InputError(f"{what}: does not begin as a zip file")
        with zipfile.ZipFile(archive) as opened:
            entries = _check_entries(opened, what)
            own, sums = _read_checksums(opened, entries, what)
            with placing(name or own, store) as folder:
                found = {file: unpack_file(opened, entries[file], folder / file) for file in sums}
                wrong = [file for file, digest in sums.items() if found[file] != digest]
                raise_all([f"{what}: {file} is not what {CHECKSUMS} says; fetch the archive anew" for file in wrong])
    except OSError as error:
        raise InputError(f"{what}: is not readable: {error.strerror or error}") from error
    except _DAMAGED as error:
        reason = shown((str(error).splitlines() or [type(error).__name__])[0])
        raise InputError(f"{what}: is damaged, or no archive of an adapter: {reason}") from error
    return folder_of(name or own, store)


def pack_files(folder: Path, name: str, output: BinaryIO) -> None:
    sums = {}
    with zipfile.ZipFile(output, "w") as archive:
        for file in CARRIED_FILES:
            if not (folder / file).is_file():
                continue
            with open(folder / file, "rb") as source:
                with archive.open(_entry(file, os.fstat(source.fileno()).st_size), "w") as packed:
                    shutil.copyfileobj(source, packed)
                source.seek(0)
                sums[file] = hashlib.file_digest(source, "sha256").hexdigest()
        listed = json.dumps({"format": 1, "name": name, "files": sums}, indent=2).encode()
        archive.writestr(_entry(CHECKSUMS, len(listed)), listed)


def _entry(name: str, size: int) -> zipfile.ZipInfo:
    """Describe a file of the archive, stored as it is: weights hardly shrink, and other compressors would make other bytes."""
    entry = zipfile.ZipInfo(name)  # dated 1980 by default, so that bytes do not depend on the day
    entry.create_system, entry.external_attr, entry.file_size = 3, (stat.S_IFREG | 0o644) << 16, size
    return entry


def _check_entries(archive: zipfile.ZipFile, what: str) -> dict[str, zipfile.ZipInfo]:
    """Map each name to its entry. Raises `InputError` for what is no plain file of an adapter, or beyond its limit."""
    listed = archive.infolist()
    if len(listed) > 100:
        raise InputError(f"{what}: has {len(listed)} entries; an adapter has at most {len(CARRIED_FILES) + 1} files")
    entries, problems = {}, []
    for entry in listed:
        problem = _entry_problem(entry) or ("stands there twice" if entry.filename in entries else None)
        entries[entry.filename] = entry
        if problem:
            # Of the name in the file; zipfile ends it at a zero byte.
            problems.append(f"{what}: its entry {shown(entry.orig_filename)} {problem}")
    problems += [f"{what}: has no {name}" for name in (CONFIG, WEIGHTS, CHECKSUMS) if name not in entries]
    raise_all(problems)
    return entries


def _entry_problem(entry: zipfile.ZipInfo) -> str | None:
    name, mode = entry.orig_filename, entry.external_attr >> 16
    kind, size, packed = entry.compress_type, entry.file_size, entry.compress_size
    large = too_large(name, size)
    problems = {
        "is an absolute path": name.startswith(("/", "\\")) or re.match("[A-Za-z]:", name),
        "leads out of the store": ".." in re.split(r"[/\\]", name),
        "is a link": stat.S_ISLNK(mode),
        "is a folder": name.endswith("/") or stat.S_ISDIR(mode) or entry.external_attr & 0x10,  # MS-DOS's mark
        "is no plain file": stat.S_IFMT(mode) not in (0, stat.S_IFREG),
        f"is no file of an adapter; those are {', '.join(CARRIED_FILES)} and {CHECKSUMS}": (
            name not in (*CARRIED_FILES, CHECKSUMS)
        ),
        "is encrypted": entry.flag_bits & 1,
        f"is compressed in a way ({kind}) that is not read; store or deflate it": (
            kind not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        ),
        large: large,
        f"is stored as it is, but has sizes of {packed:,} and {size:,} bytes": (
            kind == zipfile.ZIP_STORED and packed != size
        ),
    }
    return next((problem for problem, found in problems.items() if found), None)


def _read_checksums(
    archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], what: str
) -> tuple[str, dict[str, str]]:
    """Read (the adapter's name, file → SHA-256) from an archive. Raises `InputError` where they do not fit its entries."""
    try:
        listed = parse_json(archive.read(entries[CHECKSUMS]))
    except ValueError as error:
        raise InputError(f"{what}: {CHECKSUMS} is not readable as JSON: {error}") from error
    raise_all([f"{what}: {CHECKSUMS} {problem}" for problem in problems_of(Checksums, listed)])
    name, sums = listed["name"], listed["files"]
    problems = [f"{CHECKSUMS} has no {file}" for file in entries.keys() - sums.keys() - {CHECKSUMS}]
    problems += [f"has no {shown(file)}, which {CHECKSUMS} has" for file in sums.keys() - entries.keys()]
    problems += [f"{CHECKSUMS} has itself"] if CHECKSUMS in sums else []
    collect_errors(problems, check_name, name)
    raise_all([f"{what}: {problem}" for problem in sorted(problems)])
    return name, sums


def unpack_file(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, file: Path) -> str:
    """Write an entry's contents to a new file and return their SHA-256. Raises ValueError where its size is not true."""
    with archive.open(entry) as source, open(file, "x+b") as output:
        shutil.copyfileobj(source, output)
        if output.tell() != entry.file_size:
            raise ValueError(f"{entry.filename} has {output.tell():,} bytes instead of {entry.file_size:,}")
        output.seek(0)
        return hashlib.file_digest(output, "sha256").hexdigest()
