"""Python in README and docs compiles, and what it imports from this package exists."""

import ast
from importlib import import_module

import pytest

from helpers.doc_pages import PAGES, blocks, page_name

BLOCKS = [
    pytest.param(block, id=f"{page_name(page)}: block {number}")
    for page in PAGES
    for number, block in enumerate(blocks(page, "python"), 1)
]


@pytest.mark.parametrize("block", BLOCKS)
def test_block_compiles_and_imports_what_exists(block):
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "blip2vqa":
            module = import_module(node.module)
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


@pytest.mark.parametrize("block", BLOCKS)
def test_block_stands_by_itself(block):
    """A reader copies one block, so it imports what it uses."""
    assert "load(" not in block or "from blip2vqa import load" in block
