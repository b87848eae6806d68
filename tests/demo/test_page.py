"""What of the page differs: for whom it is open, and which number stands beside an answer."""

import pytest

from blip2vqa.api import load
from blip2vqa.demo.page import answers_table, build_page
from helpers.caption_adapters import BASE


@pytest.mark.parametrize("is_open", [True, False])
def test_adapters_are_loaded_and_dropped_only_where_the_page_is_open_to_it(two_adapters, is_open):
    page = build_page(load(BASE, adapters=two_adapters, dtype="float32"), [], open_to_changes=is_open)
    named = page.get_api_info()["named_endpoints"]
    always = {"/answer", "/caption", "/chat", "/adapters", "/check_adapter"}
    assert set(named) == always | ({"/add_adapter", "/drop_adapter"} if is_open else set())
    (check,) = [one.fn for one in page.fns.values() if one.api_name == "check_adapter"]
    assert check("one")["verdict"] == "ok"
    other = check(two_adapters["two"])
    assert (other["error"] is None) == is_open and (is_open or "is not loaded; there is one, two" in other["error"])


def row(probability: float | None, **texts: str | None) -> dict:
    shown = {"answer": "a <i>boot</i>", "without_picture": "boot", "grey_picture": "boot"} | texts
    return {"adapter": "<b>", "confidence": 0.25, "probability_right": probability, **shown}


def test_the_probability_of_being_right_is_shown_where_it_is_known_else_the_confidence():
    shown = answers_table({"answers": [row(0.75), row(None)], "error": None})
    assert "75% <small>probability</small>" in shown and "25% <small>confidence</small>" in shown
    assert "as the adapter was calibrated" in shown and "which is not that of being right" in shown
    assert "Confidence" not in answers_table({"answers": [row(0.75)], "error": None})


def test_texts_of_models_are_escaped_and_equal_ones_marked():
    shown = answers_table({"answers": [row(None, grey_picture=None), row(None, answer="boot")], "error": None})
    assert "a &lt;i&gt;boot&lt;/i&gt;" in shown and "&lt;b&gt;" in shown and "<i>" not in shown and "<b>" not in shown
    assert shown.count("(the same)") == 2 and "\u2013" in shown
    assert "&lt;x&gt;" in answers_table({"answers": [], "error": "<x>"})
