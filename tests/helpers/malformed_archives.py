"""Archives that have to be refused: one change each to that of a good adapter, with a word of the reason expected.

`make(folder, archive)` writes one of the good folder.
"""

import hashlib
import json
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

from helpers.malformed_adapters import CONFIG, WEIGHTS, Bad

SUMS = "checksums.json"


def contents(folder: Path, name: str = "good") -> dict[str, bytes]:
    """What an archive of a folder holds."""
    files = {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.is_file()}
    return files | {SUMS: sums(files, name)}


def sums(contents: dict[str, bytes], name: object = "good", **more) -> bytes:
    digests = {file: hashlib.sha256(data).hexdigest() for file, data in contents.items()}
    return json.dumps({"format": 1, "name": name, "files": digests} | more).encode()


def write(archive: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(archive, "w") as out:
        for name, data in files.items():
            out.writestr(zipfile.ZipInfo(name), data)


def packed(change: Callable[[dict[str, bytes]], object]) -> Callable[[Path, Path], None]:
    """Other files, checksums as they were."""

    def make(folder: Path, archive: Path) -> None:
        files = contents(folder)
        change(files)
        write(archive, files)

    return make


def with_entry(name: str, data: bytes = b"x", mode: int = 0, dos: int = 0, listed: bool = True) -> Callable:
    """One entry more, in the checksums, too."""

    def make(folder: Path, archive: Path) -> None:
        files = contents(folder)
        del files[SUMS]
        write(archive, files | {SUMS: sums(files | {name: data})} if listed else files)
        info = zipfile.ZipInfo(name)
        info.filename = name  # as it is, with a zero byte, too
        info.external_attr = mode << 16 | dos
        with zipfile.ZipFile(archive, "a") as out:
            out.writestr(info, data)

    return make


def as_link(name: str, target: bytes) -> Callable:
    def make(folder: Path, archive: Path) -> None:
        files = contents(folder)
        del files[SUMS]
        files[name] = target
        with zipfile.ZipFile(archive, "w") as out:
            for file, data in (files | {SUMS: sums(files)}).items():
                info = zipfile.ZipInfo(file)
                info.external_attr = (stat.S_IFLNK | 0o777 if file == name else 0) << 16
                out.writestr(info, data)

    return make


def listed(**more) -> Callable:
    """Checksums that say something else."""

    def change(files: dict[str, bytes]) -> None:
        old = {file: data for file, data in files.items() if file != SUMS}
        files[SUMS] = sums(old, **more)

    return packed(change)


def bytes_of(change: Callable[[bytearray], object]) -> Callable:
    """The good archive, its bytes changed."""

    def make(folder: Path, archive: Path) -> None:
        write(archive, contents(folder))
        data = bytearray(archive.read_bytes())
        new = change(data)
        archive.write_bytes(data if new is None else new)

    return make


def _central(data: bytearray, name: str) -> int:
    """Where the central directory's record of a file begins."""
    return data.rfind(b"PK\x01\x02", 0, data.rfind(name.encode()))


def field(place: int, layout: str, number: int, name: str = WEIGHTS) -> Callable:
    """One number in the central record of a file."""
    return bytes_of(lambda data: struct.pack_into(layout, data, _central(data, name) + place, number))


def _bomb(folder: Path, archive: Path) -> None:
    files = contents(folder)
    files["README.md"] = bytes(8 << 20)
    files[SUMS] = sums({name: data for name, data in files.items() if name != SUMS})
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in files.items():
            out.writestr(name, data)


def _hidden_bomb(folder: Path, archive: Path) -> None:
    """It says that it has 10 bytes."""
    _bomb(folder, archive)
    data = bytearray(archive.read_bytes())
    struct.pack_into("<L", data, _central(data, "README.md") + 24, 10)
    archive.write_bytes(data)


def compressed(method: int) -> Callable:
    def make(folder: Path, archive: Path) -> None:
        with zipfile.ZipFile(archive, "w", method) as out:
            for name, data in contents(folder).items():
                out.writestr(name, data)

    return make


def _twice_in_zip(folder: Path, archive: Path) -> None:
    write(archive, contents(folder))
    with zipfile.ZipFile(archive, "a") as out, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out.writestr(zipfile.ZipInfo(CONFIG), b"{}")


def _bad_archives() -> dict[str, Bad]:
    entries = {
        "up": ("../evil.txt", "leads out"), "up-far": ("../../../tmp/evil", "leads out"),
        "up-inside": ("a/../../x", "leads out"), "up-windows": ("..\\evil.txt", "leads out"),
        "absolute": ("/tmp/evil", "absolute"), "drive": ("C:/evil", "absolute"), "drive-relative": ("c:evil.txt", "absolute"),
        "share": ("\\\\host\\share", "absolute"), "below": ("a/b.txt", "no file of"), "backslash": ("a\\b.txt", "no file of"),
        "python": ("modeling.py", "no file of"), "pickle": ("adapter_model.bin", "no file of"),
        "hidden": (".bashrc", "no file of"), "case": ("ADAPTER_CONFIG.JSON", "no file of"), "folder": ("a/", "folder"),
        "empty": ("", "no file of"), "dot": (".", "no file of"), "lines": ("a\nb", "no file of"),
        "wide": ("ключ", "no file of"), "zero": ("README.md\x00.py", "no file of"), "long": ("x" * 5000, "no file of"),
        "slash": ("./README.md", "no file of"), "checkpoint": ("checkpoints/optimizer.pt", "no file of"),
        "escape": ("\x1b[2J", "no file of"),
    }  # fmt: skip
    found = {f"entry-{name}": Bad(with_entry(entry), reason) for name, (entry, reason) in entries.items()}
    kinds = {
        "link": stat.S_IFLNK,
        "pipe": stat.S_IFIFO,
        "device": stat.S_IFCHR,
        "block": stat.S_IFBLK,
        "socket": stat.S_IFSOCK,
    }
    found |= {
        f"entry-{name}": Bad(with_entry("extra", b"/etc/passwd", kind | 0o777), "is") for name, kind in kinds.items()
    }
    records = {
        "encrypted": (field(8, "<H", 1), "encrypted"), "method": (field(10, "<H", 99), "compressed"),
        "size-less": (field(24, "<L", 100), "sizes"), "size-more": (field(24, "<L", 1 << 20), "sizes"),
        "size-huge": (field(24, "<L", 0xFFFFFFFE), "sizes"), "packed-size": (field(20, "<L", 0x7FFFFFFF), "sizes"),
        "crc": (field(16, "<L", 1), "damaged"), "offset": (field(42, "<L", 0x7FFFFFFF), "damaged"),
        "version": (field(6, "<H", 99), "damaged"), "dos-folder": (field(38, "<L", 0x10), "folder"),
        "size-text": (field(24, "<L", 1 << 30, CONFIG), "at most"),
    }  # fmt: skip
    found |= {f"record-{name}": Bad(make, reason) for name, (make, reason) in records.items()}
    damage = {
        "empty": lambda data: b"", "four": lambda data: b"PK\x03\x04", "half": lambda data: data[: len(data) // 2],
        "tail": lambda data: data[:-30], "head": lambda data: data[1:], "text": lambda data: b"no archive at all",
        "tar": lambda data: b"adapter\x00" * 100, "gzip": lambda data: b"\x1f\x8b" + bytes(50),
        "prefix": lambda data: b"#!" + data,
        "middle": lambda data: data[:3000] + data[3010:], "end-only": lambda data: b"PK\x05\x06" + bytes(18),
        "bit": lambda data: data.__setitem__(len(data) // 2, data[len(data) // 2] ^ 1),
        "zeroed": lambda data: data.__setitem__(slice(5000, 5200), bytes(200)),
    }  # fmt: skip
    found |= {f"bytes-{name}": Bad(bytes_of(change), "") for name, change in damage.items()}
    missing = {
        f"without-{name}": Bad(packed(lambda files, name=name: files.pop(name)), name)
        for name in (CONFIG, WEIGHTS, SUMS)
    }
    names = ("", ".", "..", "../x", "a/b", ".hidden", "-rf", "a b", "a\nb", "ü", "x" * 101, "C:", "a\\b")
    found |= missing | {f"name-{number}": Bad(listed(name=name), "adapter name") for number, name in enumerate(names)}
    found |= {f"name-kind-{number}": Bad(listed(name=name), "name") for number, name in enumerate((None, 1, ["good"]))}
    wrong = {
        "format": (listed(format=2), "format"), "formless": (listed(format=None), "format"),
        "none": (listed(files={}), "has no adapter_config.json"), "list": (listed(files=[]), "files"),
        "more": (packed(lambda files: files.pop("README.md")), "README.md"),
        "other": (packed(lambda files: files.update({"README.md": b"other"})), "is not what"),
        "config": (packed(lambda files: files.update({CONFIG: b"{}"})), "is not what"),
        "json": (packed(lambda files: files.update({SUMS: b"{"})), "JSON"),
        "array": (packed(lambda files: files.update({SUMS: b"[]"})), "is []; it has to be an object"),
        "twice": (packed(lambda files: files.update({SUMS: b'{"format": 1, "format": 1}'})), "twice"),
        "deep": (packed(lambda files: files.update({SUMS: b"[" * 100_000})), "nested"),
        "latin": (packed(lambda files: files.update({SUMS: b"\xff"})), "UTF-8"),
        "digest": (_digest("0" * 64), "is not what"), "digest-short": (_digest("abc"), "SHA-256"),
        "digest-upper": (_digest("A" * 64), "SHA-256"), "digest-null": (_digest(None), "files.'README.md' is None"),
        "digest-number": (_digest(5), "files.'README.md' is 5"),
    }  # fmt: skip
    found |= {f"sums-{name}": Bad(make, reason) for name, (make, reason) in wrong.items()}
    return found | {
        "bomb": Bad(_bomb, "at most"),
        "hidden-bomb": Bad(_hidden_bomb, "damaged"),
        "bzip2": Bad(compressed(zipfile.ZIP_BZIP2), "compressed"),
        "lzma": Bad(compressed(zipfile.ZIP_LZMA), "compressed"),
        "twice": Bad(_twice_in_zip, "twice"),
        "link-config": Bad(as_link(CONFIG, b"/etc/passwd"), "is a link"),
        "link-weights": Bad(as_link(WEIGHTS, b"../../secret"), "is a link"),
        "many": Bad(packed(lambda files: files.update({f"{n}.txt": b"" for n in range(200)})), "entries"),
    }  # fmt: skip


def _digest(digest: object) -> Callable:
    def change(files: dict[str, bytes]) -> None:
        said = json.loads(files[SUMS])
        said["files"]["README.md"] = digest
        files[SUMS] = json.dumps(said).encode()

    return packed(change)


ARCHIVES = _bad_archives()
"""Name → what is wrong."""
