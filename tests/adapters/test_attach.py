"""Adapters are found to fit a base before its weights are read; what does not fit is named."""

from functools import partial

import pytest
import torch

from blip2vqa.adapters.attach import find_adapter, misfit_of, same_place
from blip2vqa.adapters.base.checkpoints import open_checkpoint
from blip2vqa.adapters.resolve import open_adapter
from blip2vqa.utils.errors import InputError
from helpers.family_bases import random_adapter


@pytest.fixture
def adapter(tiny_opt, tmp_path):
    return open_adapter(random_adapter(tiny_opt, tmp_path / "a", 0))


def test_what_does_not_fit_is_counted_and_the_first_is_named(adapter, tiny_opt):
    build = partial(open_checkpoint(tiny_opt).outline, None)
    assert misfit_of(adapter, build) is None
    key = min(adapter.weights)
    name = key.removeprefix("base_model.model.")
    shape = list(adapter.weights[key].shape)
    adapter.weights[key] = torch.zeros(3, 3)
    assert misfit_of(adapter, build) == (f"1 of another shape (first {name}, {shape} there and [3, 3] in the adapter)")
    del adapter.weights[key]
    adapter.weights["base_model.model.other"] = torch.zeros(1)
    assert misfit_of(adapter, build) == (
        "1 of its weights without a place there, 1 of the places there without a weight (first other)"
    )


def test_an_adapter_for_another_base_is_refused_without_a_warning_of_pefts(adapter, tiny_t5):
    with pytest.raises(InputError, match=r"does not fit base model .* \(it was made for .*\): none of its \d+ layers"):
        find_adapter(str(adapter.folder), base_model_id=str(tiny_t5))


def test_two_names_of_one_base(tiny_opt, tmp_path):
    (tmp_path / "link").symlink_to(tiny_opt)
    assert same_place(str(tiny_opt), str(tmp_path / "link")) and same_place("user/base", "user/base")
    assert not same_place("user/base", str(tiny_opt))
