"""README and docs as a stranger reads them: short, each page saying what it is for, links and paths that lead somewhere."""

import ast
import re
import tomllib

import pytest
import yaml

from helpers.doc_pages import PAGES, README, page_name, prose, spans
from helpers.paths import ROOT

DOCS = [page for page in PAGES if page.parent.name == "docs"]
OWN_FOLDERS = ("assets", "benchmarks", "blip2vqa", "configs", "docs", "tests", ".ci", ".github")
each_page = pytest.mark.parametrize("page", PAGES, ids=page_name)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_readme_is_short():
    assert len(README.read_text().splitlines()) <= 150


def test_readme_links_to_every_page():
    linked = {target.split("#")[0] for target in re.findall(r"\]\(([^)]+)\)", prose(README))}
    assert {page_name(page) for page in DOCS} | {"CONTRIBUTING.md", "CHANGELOG.md", "LICENSE"} <= linked


@pytest.mark.parametrize("page", DOCS, ids=page_name)
def test_page_opens_with_what_it_is_for(page):
    title, blank, first, *_ = page.read_text().splitlines()
    assert title.startswith("# ") and not blank and first.startswith("This page ")


@each_page
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(prose(file)), target


@each_page
def test_paths_that_are_named_exist(page):
    for span in spans(page):
        if re.fullmatch(r"[\w./*-]+", span) and span.split("/")[0] in OWN_FOLDERS and "/" in span:
            assert list(ROOT.glob(span.rstrip("/"))), span


@each_page
def test_percentages_are_written_in_one_way(page):
    assert re.findall(r"\d\s%", page.read_text()) == []


def test_messages_of_troubleshooting_are_those_of_the_code():
    """The longest part of each message, between the values in it, is a text of the package."""
    sources = [path.read_text() for path in (ROOT / "blip2vqa").rglob("*.py")]
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    texts = "\n".join(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs" / "troubleshooting.md").read_text(), flags=re.MULTILINE)
    messages = [message for row in rows for message in re.findall(r"`([^`]+)`", row)]
    parts = {message: max(re.split(r"…|: |; |, and |, |[()]", message), key=len).strip() for message in messages}
    torch_says = "CUDA out of memory"
    assert len(messages) > 25
    assert {message for message, part in parts.items() if part not in texts} == {torch_says}


def test_picture_of_the_layers_names_every_folder():
    package = ROOT / "blip2vqa"
    folders = {path.name for path in package.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    picture = re.search(
        r"## The layers.*?^```\n(.*?)^```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL | re.MULTILINE
    )[1]
    shown = re.findall(r"^ (\w+)/", picture, flags=re.MULTILINE)
    assert len(shown) == len(set(shown)) and folders <= set(shown)


def test_every_dependency_is_explained():
    page = (ROOT / "docs" / "dependencies.md").read_text()
    pinned = re.findall(r"^([\w.-]+)==", (ROOT / "requirements.txt").read_text(), flags=re.MULTILINE)
    explained = set(re.findall(r"[\w.-]+", " ".join(re.findall(r"^\| ([^|]+) \|", page, flags=re.MULTILINE)).lower()))
    assert {name for name in pinned if name.lower() not in explained} == set()


def test_continuous_integration_runs_the_script_of_the_repository():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    [job] = workflow["jobs"].values()
    assert job["runs-on"].startswith("ubuntu")
    steps = job["steps"]
    [python] = [step["with"]["python-version"] for step in steps if "setup-python" in step.get("uses", "")]
    target = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["target-version"]
    assert "py" + python.replace(".", "") == target
    assert [step["run"] for step in steps if "run" in step] == ["bash .ci/run"] and (ROOT / ".ci" / "run").is_file()
