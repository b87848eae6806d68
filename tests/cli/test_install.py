"""The package installs: pyproject.toml, requirements.txt and the modules agree, and it works from any folder."""

import json
import os
import shutil
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import blip2vqa
from helpers.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(name: str) -> dict[str, str]:
    """Package → version of a file of requirements."""
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    found = [Requirement(line) for line in lines if line and not line.startswith("-r ")]
    assert all([one.operator for one in requirement.specifier] == ["=="] for requirement in found)
    return {canonicalize_name(one.name): next(iter(one.specifier)).version for one in found}


@pytest.mark.parametrize(
    ("file", "declared"),
    [
        ("requirements.txt", PROJECT["dependencies"] + PROJECT["optional-dependencies"]["api"]),
        (
            "requirements-dev.txt",
            PROJECT["optional-dependencies"]["dev"] + PROJECT["optional-dependencies"]["demo"],
        ),
    ],
)
def test_every_pin_lies_in_its_range(file, declared):
    ranges = {canonicalize_name(Requirement(text).name): Requirement(text).specifier for text in declared}
    pinned = pins(file)
    assert ranges.keys() == pinned.keys()
    for name, version in pinned.items():
        assert version in ranges[name], f"{name} {version} is not in {ranges[name]}"
        assert {one.operator for one in ranges[name]} == {">=", "<"}, name


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the package as `pip install .` lays it down."""
    source, target = (tmp_path_factory.mktemp(name) for name in ("source", "target"))
    shutil.copytree(ROOT / "blip2vqa", source / "blip2vqa", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "--target", target, source], check=True, timeout=120)
    return target


def run(installed, folder, *command) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_it_works_from_any_folder(installed, tmp_path):
    code = (
        "import json, blip2vqa; from importlib.metadata import version; from blip2vqa import load;"
        "from blip2vqa.config.styles import known_styles; from blip2vqa.generate.ask import templates;"
        "print(json.dumps([blip2vqa.__file__, version('blip2vqa'), blip2vqa.__version__, known_styles()]))"
    )
    done = run(installed, tmp_path, sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    file, version, own, styles = json.loads(done.stdout)
    assert file == str(installed / "blip2vqa" / "__init__.py")
    assert version == own == blip2vqa.__version__ and styles == ["concise", "creative", "detailed"]


def test_the_command_is_there(installed, tmp_path):
    for command in ([installed / "bin" / "blip2vqa"], [sys.executable, "-m", "blip2vqa"]):
        done = run(installed, tmp_path, *command, "finetune", "--help")
        assert done.returncode == 0, done.stderr
        assert "usage: blip2vqa finetune" in done.stdout and "assets/" not in done.stdout
    wrong = run(installed, tmp_path, installed / "bin" / "blip2vqa", "infer", "--csv_path", "absent.csv")
    assert wrong.returncode == 2 and wrong.stderr == "error: --csv_path absent.csv: no such file\n"


def test_every_file_of_the_package_is_installed(installed):
    def files(folder):
        kept = (path.relative_to(folder) for path in (folder / "blip2vqa").rglob("*") if path.is_file())
        return {path for path in kept if "__pycache__" not in path.parts}

    assert files(installed) == files(ROOT)
