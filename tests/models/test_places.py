"""Where modules stand, by their names: scope, stack, layer and role."""

import pytest

from blip2vqa.models.families import family_named
from blip2vqa.models.places import place_of, scopes_and_roles
from helpers.plain_peft import NAMES

OPT = family_named("BLIP-2 with OPT", [])
T5 = family_named("InstructBLIP with T5", [])


DECODER, QFORMER = "language_model.model.decoder.layers", "qformer.encoder.layer"
SEQ2SEQ = "language_model.decoder.block"


@pytest.mark.parametrize(
    ("family", "stack", "rest", "scope", "layer", "role"),
    [
        (OPT, DECODER, ".3.self_attn.q_proj", "language_model", 3, "q"),
        (OPT, DECODER, ".31.fc2", "language_model", 31, "down"),
        (OPT, "vision_model.encoder.layers", ".38.self_attn.qkv", "vision", 38, "qkv"),
        (OPT, "vision_model.encoder.layers", ".0.mlp.fc1", "vision", 0, "up"),
        (OPT, "language_projection", "", "projection", None, "projection"),
        (OPT, QFORMER, ".2.crossattention.attention.query", "qformer", 2, "cross q"),
        (OPT, QFORMER, ".2.crossattention.output.dense", "qformer", 2, "cross o"),
        (OPT, QFORMER, ".2.output_query.dense", "qformer", 2, "down"),
        (T5, SEQ2SEQ, ".5.layer.1.EncDecAttention.o", "language_model", 5, "cross o"),
        (T5, SEQ2SEQ, ".5.layer.2.DenseReluDense.wi_0", "language_model", 5, "gate"),
        (None, "model.decoder.layers", ".3.self_attn.out_proj", None, 3, "o"),
        (None, "model.layers", ".3.mixer.in_proj", None, 3, "in_proj"),
        (None, "head", "", None, None, "head"),
    ],
)
def test_a_modules_name_says_where_it_stands(family, stack, rest, scope, layer, role):
    place = place_of(f"{stack}{rest}", family)
    assert (place.scope, place.stack, place.layer, place.role) == (scope, stack, layer, role)


def test_without_a_manifest_the_names_tell_the_family():
    assert family_named(None, ["language_model.encoder.block.0.layer.0.SelfAttention.q"]).name == "BLIP-2 with T5"
    assert family_named(None, ["model.layers.0.self_attn.q_proj"]) is None
    assert family_named("BLIP-2 with OPT", ["language_model.encoder.block.0.layer.0.SelfAttention.q"]) is OPT


def test_labels_of_a_manifest_name_their_scope():
    names = [
        *NAMES,
        "vision_model.encoder.layers.0.self_attn.qkv",
        "language_projection",
        "qformer.encoder.layer.0.attention.output.dense",
    ]
    scopes, labels = scopes_and_roles(names, OPT)
    assert scopes == ["language_model", "projection", "qformer", "vision"]
    assert labels == ["q", "o", "up", "projection", "qformer o", "vision q", "vision k", "vision v"]
