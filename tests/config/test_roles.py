"""Roles and scopes as the command line names them."""

import pytest

from blip2vqa.config.roles import parse_roles, parse_scopes
from blip2vqa.utils.errors import InputError


def test_the_seeds_names_are_roles():
    seed = "q_proj,v_proj,k_proj,o_proj,gate_proj,down_proj,up_proj"
    assert parse_roles(seed) == ("q", "k", "v", "o", "gate", "up", "down")
    with pytest.raises(InputError, match="attn is not a role"):
        parse_roles("q,attn")
    with pytest.raises(InputError, match="--lora_roles: an empty list is not a role"):
        parse_roles(" , ")


def test_scopes_come_in_one_order():
    assert parse_scopes("vision, language_model,vision") == ("language_model", "vision")
    with pytest.raises(
        InputError, match="--lora_scope: head is no part of the model; choose from language_model, projection"
    ):
        parse_scopes("vision,head")
