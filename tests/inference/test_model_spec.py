"""A base with its adapters as they are asked: adapters by name, and prompt and decoding from where they are given first."""

import pytest

from blip2vqa.adapters.ref import BASE, CURRENT, AdapterRef
from blip2vqa.inference.model_spec import find_model_spec, parse_adapters
from blip2vqa.utils.errors import InputError
from helpers.family_bases import random_adapter

ONE, TWO = AdapterRef.named("one"), AdapterRef.named("two")


@pytest.fixture(scope="module")
def adapters(tiny_opt, tmp_path_factory) -> dict[AdapterRef, tuple[str, None]]:
    """One adapter that remembers how it is asked, and one that does not."""
    folder = tmp_path_factory.mktemp("adapters")
    own = {"prompt": "Q: {question} A:", "decoding": {"num_beams": 2, "max_new_tokens": 4}}
    one, two = random_adapter(tiny_opt, folder / "one", 1, **own), random_adapter(tiny_opt, folder / "two", 2)
    return {ONE: (str(one), None), TWO: (str(two), None)}


def test_adapters_of_a_command_line(tmp_path):
    assert parse_adapters(None) == {}
    assert parse_adapters("runs/one") == parse_adapters(["runs/one"]) == {CURRENT: "runs/one"}
    assert parse_adapters(["one=a", "two=b=c"]) == {ONE: "a", TWO: "b=c"}
    (tmp_path / "a=b").mkdir()
    assert parse_adapters([str(tmp_path / "a=b")]) == {CURRENT: str(tmp_path / "a=b")}


def test_a_request_takes_what_is_given_then_what_the_adapter_remembers(adapters, tiny_opt):
    spec = find_model_spec(str(tiny_opt), adapters=adapters, with_base=True, dtype="float32")
    own = spec.request(ONE)
    assert (own.adapter, own.text.prompt) == (ONE, "Q: {question} A:")
    assert (own.decoding.num_beams, own.decoding.max_new_tokens) == (2, 4)
    given = spec.request(ONE, prompt="{question}", decoding={"num_beams": 3, "max_new_tokens": None})
    assert (given.text.prompt, given.decoding.num_beams, given.decoding.max_new_tokens) == ("{question}", 3, 4)
    base = spec.request(BASE)
    assert base.adapter == BASE and base.text.prompt == spec.family.prompt and base.decoding.max_new_tokens == 10


def test_what_is_asked_alone_is_the_current_model(adapters, tiny_opt):
    alone = find_model_spec(None, adapters={ONE: adapters[ONE]}, dtype="float32")
    assert alone.request(ONE).adapter == CURRENT and alone.base_model_id == str(tiny_opt)
    assert find_model_spec(str(tiny_opt), dtype="float32").request(BASE).adapter == CURRENT
    with pytest.raises(InputError, match="this model is the one adapter"):
        alone.check(BASE)
    with pytest.raises(InputError, match="adapter two: is not loaded; there is one"):
        alone.check(TWO)
