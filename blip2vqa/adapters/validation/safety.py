"""Refuse what is not safe about an adapter, with the reason, before anything of it is loaded.

Nothing in an adapter's folder is ever run, by PEFT or here. Refused is what could do harm, what says that its maker
expected code to be run (Python files, classes of its own), and what two readers might understand differently.

Beside an adapter may lie what a training run leaves: tables, checkpoints, an optimizer's pickles. None of it is opened,
so it may stay; a pickle is refused where it stands for the adapter's weights. Python files and links that lead out of the
folder are refused at any depth, since a folder is often copied or sent as a whole. The links of a Hub cache, from a
snapshot to the blobs of the same repository, are its way to keep files.
"""

import os
import re
from pathlib import Path

from blip2vqa.adapters.validation.config_schema import check_config, check_with_peft, is_pattern
from blip2vqa.adapters.validation.keys import check_fronts, modules_of, with_plain_keys, with_plain_names
from blip2vqa.adapters.validation.manifest_schema import Metrics, check_manifest
from blip2vqa.adapters.validation.pickles import pickled_weights
from blip2vqa.adapters.validation.safe_weights import MAX_WEIGHTS, Place, check_shapes, not_finite, read_header
from blip2vqa.adapters.validation.schema import problems_of
from blip2vqa.utils.console import named
from blip2vqa.utils.errors import InputError, collect_errors, raise_all
from blip2vqa.utils.files import read_limited
from blip2vqa.utils.strict_json import parse_json, shown

CONFIG, WEIGHTS, MANIFEST = "adapter_config.json", "adapter_model.safetensors", "blip2vqa.json"
CARD, METRICS, BASE_CONFIG = "README.md", "metrics.json", "config.json"
ADAPTER_FILES = (CONFIG, WEIGHTS, MANIFEST, CARD, METRICS)
"""What this package writes."""
CARRIED_FILES = (*ADAPTER_FILES, BASE_CONFIG)
"""All that is copied, packed or sent. Other tools write the last, of which the names of a head's answers are read."""
MAX_TEXT = 4 << 20
"""In bytes, of every file but the weights."""
MAX_FILES = 10_000
_SHOWN = 8
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_DEVICE = re.compile(r"(CON|PRN|AUX|NUL|COM[0-9]|LPT[0-9])(\..*)?", re.IGNORECASE)
"""What Windows takes for one, whatever stands behind the first dot; it also drops a dot at the end."""
_PYTHON = (".py", ".pyc", ".pyo", ".pyw", ".pyi", ".pyx", ".pyd", ".pyz", ".so", ".dll", ".dylib", ".egg", ".whl")


def check_name(name: str) -> str:
    """Return `name` if an adapter in the store may be called so. Raises `InputError` otherwise."""
    if not _NAME.fullmatch(name) or name.endswith("."):
        raise InputError(
            f"adapter name {shown(name)}: may have at most 100 letters, digits, '.', '_' and '-', "
            "the first of them neither '.' nor '-', the last not '.'; choose another name"
        )
    if _DEVICE.fullmatch(name):
        raise InputError(f"adapter name {name}: is a device's on Windows, which could not hold it; choose another name")
    return name


def too_large(file: str, size: int) -> str | None:
    """Say that a file of an adapter has more bytes than are read; None where it has not."""
    limit = MAX_WEIGHTS if file == WEIGHTS else MAX_TEXT
    return f"has {size:,} bytes; at most {limit:,} are read" if size > limit else None


def check_folder(folder: Path, name: str, weights: str = "values") -> tuple[dict, dict, dict]:
    """Return (configuration, manifest, scores) of an adapter, unless something in its folder is not safe to load.

    The configuration's target modules are names, also where its file has a pattern in their place. Manifest and scores are {}
    where there are none, or no sound ones of the latter. Files are opened only where the names and sizes in the folder are in
    order, and values read only where the header is.

    `name`: what its user calls it. `weights`: how closely they are looked at: their `values`, their `header` alone (quick:
    without torch and PEFT), or not at all, `pickled`, since they are still to be converted. Raises `InputError` with the
    problems found.
    """
    folder, problems, unreadable = Path(folder), [], []
    try:
        collect_errors(problems, _check_entries, folder, weights == "pickled")
        if not problems:
            config = collect_errors(problems, _read_config, folder, weights != "header")
            manifest = collect_errors(problems, read_manifest, folder)
            metrics = collect_errors(problems, _read_json, folder / METRICS, False)
            stored = None if weights == "pickled" else collect_errors(unreadable, read_header, folder / WEIGHTS)
            problems += [f"its weights are not readable: {WEIGHTS}: {line}" for line in unreadable]
            if config is not None and stored is not None:
                problems += _check_weights(stored, config, with_families=weights == "values")
        if weights == "values" and not problems:
            infinite = not_finite(folder / WEIGHTS, stored)
            problems = [f"{WEIGHTS}: {key} has NaN or infinite values, so it is of no use" for key in infinite]
    except OSError as error:
        problems.append(f"{shown(error.filename)} is not readable: {error.strerror}")
    label = f"adapter {name if name.isprintable() else shown(name)}"
    more = len(problems) - _SHOWN
    several = [f"{label}: {more} more problems like these"] if more > 0 else []
    raise_all([f"{label}: {problem}" for problem in problems[:_SHOWN]] + several)
    return config, manifest, {} if problems_of(Metrics, metrics) else metrics


def _check_weights(stored: dict[str, Place], config: dict, with_families: bool) -> list[str]:
    """List what is wrong with the names and shapes of the weights; a pattern in `config` becomes the modules that they name."""
    problems: list[str] = []
    places = collect_errors(problems, with_plain_keys, stored)
    if places is not None:
        problems += check_shapes(places, config)
    if not problems and is_pattern(config["target_modules"]):
        config["target_modules"] = modules_of(places)
    if not problems and with_families:
        problems += check_fronts(modules_of(places))
    return [f"{WEIGHTS}: {problem}" for problem in problems]


def _check_entries(folder: Path, pickled: bool) -> None:
    """Raise `InputError` for what may not lie in the folder, judged by names and sizes alone."""
    # Not Path.resolve, which raises for a link to itself.
    problems, count, home = [], 0, Path(os.path.realpath(folder))
    homes = [home, home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [home]
    for place, folders, files in os.walk(home):
        for path in (Path(place, name) for name in (*folders, *files)):
            label = shown(str(path.relative_to(home)))
            if path.is_symlink() and not any(Path(os.path.realpath(path)).is_relative_to(near) for near in homes):
                problems.append(f"{label} is a link that leads out of the folder; put the file itself there")
            if path.name.lower().endswith(_PYTHON):
                problems.append(f"{label} is a Python file; an adapter needs none, so remove it")
        count += len(folders) + len(files)
        if count > MAX_FILES:
            raise InputError(f"the folder holds more than {MAX_FILES:,} files, so it is not an adapter's")
    for name in CARRIED_FILES:
        file = folder / name
        if os.path.lexists(file) and not file.is_file():
            problems.append(f"{name} is no file")
        elif file.is_file() and (problem := too_large(name, file.stat().st_size)):
            problems.append(f"{name} {problem}")
    if not os.path.lexists(folder / CONFIG):
        problems.append(f"the folder holds no {CONFIG}, so it is not an adapter")
    pickle, has_weights = None if pickled else pickled_weights(folder), os.path.lexists(folder / WEIGHTS)
    if pickle and has_weights:
        problems.append(f"{pickle.name} is a pickle, which can run code, beside {WEIGHTS}; remove it")
    elif pickle:
        problems.append(
            f"its weights are a pickle, {pickle.name}, which can run code when it is read; "
            f"{named('exchange')} add with --convert_pickle reads nothing but tensors from it and keeps them without"
        )
    elif not (pickled or has_weights):
        problems.append(f"the folder holds no {WEIGHTS}")
    raise_all(problems)


def _read_json(file: Path, finite: bool) -> object:
    """Read one JSON file, no more of it than `MAX_TEXT`; {} where there is none."""
    if not file.is_file():
        return {}
    if (size := file.stat().st_size) > MAX_TEXT:
        raise InputError(f"{file.name} {too_large(file.name, size)}")
    try:
        return parse_json(read_limited(file, MAX_TEXT), finite)
    except ValueError as error:
        raise InputError(f"{file.name} is not readable as JSON: {error}; restore or remove it") from error


def _read_config(folder: Path, with_peft: bool) -> dict:
    config = _read_json(folder / CONFIG, finite=True)
    problems = check_config(config)
    if with_peft and not problems:
        problems = check_with_peft(config)
    raise_all([f"{CONFIG}: {problem}" for problem in problems])
    return with_plain_names(config)


def read_labels(folder: Path) -> tuple[dict, tuple[str, ...] | None]:
    """Read (base's configuration, names of its head's answers) beside an adapter; {} and None where there are none."""
    try:
        config = _read_json(folder / BASE_CONFIG, finite=False)
        labels = config.get("id2label") or {}
        named = tuple(labels[str(number)] for number in range(len(labels)))
    except (InputError, AttributeError, KeyError, TypeError):  # nothing else of this file is used
        return {}, None
    plain = all(isinstance(name, str) and name.strip() for name in named) and len(set(named)) == len(named)
    return config, named if named and plain else None


def read_manifest(folder: Path) -> dict:
    """Read and check the manifest of a folder; {} for an adapter of other tools. Raises `InputError` for a broken one."""
    if not (folder / MANIFEST).is_file():
        return {}
    # Scores may be NaN in it, and in the metrics: Python's writer writes them so.
    manifest = _read_json(folder / MANIFEST, finite=False)
    raise_all([f"{MANIFEST} {problem}" for problem in check_manifest(manifest)])
    return manifest
