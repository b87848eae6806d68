"""Keep adapters in the store: a folder of adapters, each in a folder of its name.

An adapter is written under a temporary name, checked there, and takes its own name last: a reader sees it whole or not
at all, and of two processes that add one name, one is told that the other was first.
"""

import errno
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path

from blip2vqa.adapters.validation.pickles import convert, pickled_weights
from blip2vqa.adapters.validation.safety import CARRIED_FILES, CONFIG, WEIGHTS, check_folder, check_name
from blip2vqa.config.roles import ROLE_ALIASES, ROLES
from blip2vqa.evaluation.metrics import MAIN_METRICS
from blip2vqa.utils.errors import InputError, file_error
from blip2vqa.utils.files import flush_to_disk, new_folder, temporary_path

_FORMER_TEMPORARY = ".adapter-tmp"  # as versions 0.1 and 0.2 name what they write


def default_store() -> Path:
    """Return $BLIP2VQA_STORE, else blip2vqa/adapters in the user's folder for data."""
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return Path(os.environ.get("BLIP2VQA_STORE") or data / "blip2vqa" / "adapters")


def find_in_store(name: str, store: str | Path | None = None) -> Path | None:
    """Return the folder of an adapter of that name in a store, by default the user's; None where there is none."""
    try:
        folder = folder_of(name, store)
    except InputError:
        return None
    return folder if folder.is_dir() and not folder.is_symlink() else None


def list_store(store: str | Path | None = None) -> list[dict]:
    """List the adapters in a store by name; weights are not read beyond their header.

    Each has name, task, base, rank, roles, `score` (`metric`, `adapter` and `blind`, which is the score without the
    picture; None: not measured), size in bytes, date (ISO, when the weights were written), and `problem`: None, or the
    first reason why it is refused. What is not known is None. Raises `InputError` for a store that cannot be read.
    """
    folder = Path(store or default_store())
    if not folder.is_dir():
        if store is None:
            return []
        raise InputError(f"store {folder}: there is no such folder")
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        return [_described(entry) for entry in entries if entry.is_dir() and not entry.is_symlink()]
    except OSError as error:
        raise InputError(f"store {folder}: is not readable: {error.strerror}") from error


def add(
    source: str | Path,
    name: str | None = None,
    store: str | Path | None = None,
    *,
    convert_pickle: bool = False,
    called: str | None = None,
) -> Path:
    """Copy the adapter in the folder `source` into a store, the files that it needs and no others; return its folder there.

    `called`: what the user calls the adapter, by default `source`; `name`: its name in the store, by default the last part of
    `called`. `convert_pickle`: where the weights are a pickle, read the tensors alone and keep them as safetensors. Raises
    `InputError` for an adapter that is refused, a name that is taken, or a store that cannot be written to; the store is then
    as it was.
    """
    source, called = Path(source), called or str(source)
    pickle = pickled_weights(source) if convert_pickle and not (source / WEIGHTS).exists() else None
    check_folder(source, called, weights="pickled" if pickle else "values")
    name = name or own_name(called)
    with placing(name, store) as folder:
        for file in CARRIED_FILES:
            if (source / file).is_file():
                shutil.copyfile(source / file, folder / file)
                written = (source / file).stat().st_mtime
                os.utime(folder / file, (written, written))
        if pickle:
            convert(pickle, folder / WEIGHTS, called)
            shutil.copymode(folder / CONFIG, folder / WEIGHTS)  # safetensors makes files for their owner alone
    return folder_of(name, store)


def remove(name: str, store: str | Path | None = None) -> None:
    """Take an adapter out of a store, at once for every reader. Raises `InputError` where there is none of that name."""
    folder = folder_of(name, store)
    trash = temporary_path(folder)  # which also clears away what was left where this was stopped before
    if find_in_store(name, store) is None:
        known = ", ".join(entry["name"] for entry in list_store(store)) if folder.parent.is_dir() else ""
        raise InputError(f"store {folder.parent}: holds no adapter {name}; it holds {known or 'none'}")
    try:
        os.rename(folder, trash)
        shutil.rmtree(trash, ignore_errors=True)
    except FileNotFoundError as error:
        raise InputError(f"store {folder.parent}: holds no adapter {name} any more") from error
    except OSError as error:
        raise file_error(f"store {folder.parent}: {name} cannot be removed", error) from error


def own_name(adapter: str) -> str:
    """Return the last part of a folder's path or of a Hub id. Raises `InputError` where that cannot be a name in a store."""
    folder = Path(adapter)
    return check_name(folder.resolve().name if folder.is_dir() else adapter.partition("@")[0].rpartition("/")[2])


def folder_of(name: str, store: str | Path | None = None) -> Path:
    """Return where an adapter of that name lies in a store, or would."""
    return Path(store or default_store()) / check_name(name)


@contextmanager
def placing(name: str, store: str | Path | None = None) -> Iterator[Path]:
    """Yield a temporary folder to write an adapter's files into; then it is checked and takes its name in the store.

    Raises `InputError` when that name is taken, before or meanwhile, when the files are no adapter that is safe to
    load, or when the store cannot be written to. Whatever is raised inside, nothing is left, nor a store made for it.
    """
    from blip2vqa.adapters.files.adapter import read_adapter  # which brings in torch, that a list has no use for

    final = folder_of(name, store)
    taken = InputError(
        f"store {final.parent}: there is an adapter {name} already; remove it, or choose another with --name"
    )
    if os.path.lexists(final):
        raise taken
    absent = [folder for folder in (final.parent, *final.parent.parents) if not os.path.lexists(folder)]
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        for left in final.parent.glob(
            f".*{_FORMER_TEMPORARY}"
        ):  # by a process that was killed, if it is older than a day
            with suppress(FileNotFoundError):  # another process was first
                if time.time() - left.lstat().st_mtime > 24 * 3600:
                    shutil.rmtree(left, ignore_errors=True)
        with new_folder(final) as folder:
            folder.chmod(0o755)  # an adapter in a shared store is for everybody
            yield folder
            read_adapter(folder, name)
            for file in folder.iterdir():
                flush_to_disk(file)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR) and os.path.lexists(final):
            raise taken from error
        raise file_error(f"store {final.parent}: {name} cannot be written", error) from error
    finally:
        with suppress(OSError):  # of one that holds something by now
            for folder in absent:
                folder.rmdir()


def _described(folder: Path) -> dict:
    entry = {"name": folder.name}
    entry |= dict.fromkeys(("task", "base", "rank", "roles", "score", "size", "date", "problem"))
    try:
        check_name(folder.name)
        config, manifest, metrics = check_folder(folder, folder.name, weights="header")
        files = [file.stat() for file in map(folder.joinpath, CARRIED_FILES) if file.is_file()]
        written = (folder / WEIGHTS).stat().st_mtime
    except InputError as error:
        return entry | {"problem": error.problems[0]}
    except OSError as error:
        return entry | {"problem": f"adapter {folder.name}: is not readable: {error.strerror}"}
    ends = {module.rpartition(".")[2] for module in config["target_modules"]}
    by_name = {ROLE_ALIASES.get(end, end) for end in ends}
    return entry | {
        "task": manifest.get("task"),
        "base": manifest.get("base_model_id") or config.get("base_model_name_or_path"),
        "rank": config["r"],
        "roles": manifest.get("roles") or [role for role in ROLES if role in by_name],
        "score": _score(metrics or manifest.get("metrics") or {}),
        "size": sum(file.st_size for file in files),
        "date": datetime.fromtimestamp(written, UTC).isoformat(timespec="seconds"),
    }


def _score(metrics: dict[str, dict]) -> dict | None:
    """Pick the main metric of its task, of the adapter and of what never sees the picture."""
    for metric in MAIN_METRICS:
        scores = {part: metrics.get(part, {}).get(metric) for part in ("adapter", "blind")}
        found = {part: None if score is None or not isfinite(score) else score for part, score in scores.items()}
        if found["adapter"] is not None:
            return {"metric": metric, **found}
    return None
