"""The floor plan: imports run down the layers and in no circle, tests mirror the folders, and none patches a private name."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.paths import ROOT

PACKAGE = ROOT / "blip2vqa"
LAYERS = (
    "utils", "data", "config", "evaluation", "models", "features", "adapters.validation", "adapters.base", "adapters.files",
    "adapters.storage", "adapters", "reporting", "inference", "training", "estimate", "exchange", "generate", "api", "demo",
    "cli", "",
)  # fmt: skip
"""Folders from the ground up: each imports from those before it, and from itself. "": the package's own root, but for `api`."""
IN_THE_ROOT = {"__init__", "__main__", "api"}


def modules(folder: Path = PACKAGE) -> dict[str, Path]:
    """Dotted names below `folder` → files; a package's `__init__` goes by the package's name."""
    found = {}
    for path in folder.rglob("*.py"):
        parts = path.relative_to(folder).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(name: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """Modules of the package that a module imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports by a relative name, which this test does not follow"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for full in names:
            if full.split(".")[0] != "blip2vqa":
                continue
            inner = full.removeprefix("blip2vqa").removeprefix(".")
            while inner and inner not in known:  # the name of a class or function behind its module's
                inner = inner.rpartition(".")[0]
            yield inner


def layer(name: str) -> int:
    """The place in `LAYERS` of the deepest folder that a module stands in."""
    folders = [folder for folder in LAYERS if folder and f"{name}.".startswith(f"{folder}.")]
    return LAYERS.index(max(folders, key=len, default=""))


@pytest.fixture(scope="module")
def arrows() -> dict[str, set[str]]:
    """Module → the modules that it imports."""
    known = modules()
    return {name: set(imported(name, path, known)) - {name} for name, path in known.items()}


def test_every_folder_has_its_place():
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == {name.split(".")[0] for name in LAYERS} - {
        "",
        "api",
    }
    assert {path.stem for path in PACKAGE.glob("*.py")} <= IN_THE_ROOT


def test_no_import_runs_up(arrows):
    up = [f"{one} → {other}" for one, others in arrows.items() for other in others if layer(other) > layer(one)]
    assert not up


def test_no_imports_go_in_a_circle(arrows):
    left = {name: set(others) for name, others in arrows.items()}
    while free := {name for name, others in left.items() if not others & left.keys()}:
        left = {name: others for name, others in left.items() if name not in free}
    assert not left, "these import each other, or what does"


def test_the_walk_sees_lazy_imports_and_names_of_modules(tmp_path):
    (tmp_path / "a.py").write_text("def f():\n    from blip2vqa.b import c, d\n    import blip2vqa.e.f\n")
    known = dict.fromkeys(["a", "b", "b.c", "e.f"], tmp_path)
    assert list(imported("a", tmp_path / "a.py", known)) == ["b.c", "b", "e.f"]


def does_something(path: Path) -> bool:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in ast.walk(tree))


def test_every_module_has_its_test_file(arrows):
    """In the mirrored folder of tests: a file of its name (`test_NAME.py`, `test_NAME_more.py`), or one there or below that
    imports it; else the test file of its folder (`test_FOLDER.py`), or of a module there that imports it."""
    known, tests = modules(), (ROOT / "tests").rglob("test_*.py")
    here: dict[str, list[Path]] = {}
    for path in tests:
        here.setdefault(".".join(path.parent.relative_to(ROOT / "tests").parts), []).append(path)
    reached = {folder: {name for path in paths for name in imported("", path, known)} for folder, paths in here.items()}

    def stands(folder: str, name: str) -> bool:
        return any(f"{path.stem}_".startswith(f"test_{name}_") for path in here.get(folder, []))

    def is_tested(name: str) -> bool:
        folder, _, last = name.rpartition(".")
        above, _, own = folder.rpartition(".")
        by_import = any(name in names for place, names in reached.items() if f"{place}.".startswith(f"{folder}."))
        return stands(folder, last) or by_import or stands(above, own)

    def by_neighbour(name: str) -> bool:
        folder = name.rpartition(".")[0]
        neighbours = [other for other in arrows if folder in (other, other.rpartition(".")[0])]
        return any(name in arrows[other] and is_tested(other) for other in neighbours)

    doing = [name for name, path in known.items() if path.stem not in ("__init__", "__main__") and does_something(path)]
    missing = [name for name in doing if not (is_tested(name) or by_neighbour(name))]
    assert not missing, ", ".join(missing)


def test_no_test_patches_a_private_name():
    found = []
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "setattr":
                named = [
                    one.value for one in node.args[:2] if isinstance(one, ast.Constant) and isinstance(one.value, str)
                ]
                found += [f"{path.name}: {one}" for one in named if _is_private(one)]
    assert not found


def _is_private(name: str) -> bool:
    """Whether a name, or the end of a dotted one of this package, is private; other packages' names are not ours to keep."""
    own = name.startswith("blip2vqa.") or "." not in name
    last = name.rpartition(".")[2]
    return own and last.startswith("_") and not last.startswith("__")
