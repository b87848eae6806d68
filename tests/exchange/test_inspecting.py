"""What inspecting tells of an adapter: roles and layers by name, norms beside PEFT's own ΔW, the table and the picture."""

import io
import json

import pytest
import torch
from PIL import Image

from blip2vqa.adapters.files.adapter import write_manifest
from blip2vqa.adapters.resolve import open_adapter
from blip2vqa.exchange.inspecting import describe, inspect
from blip2vqa.models.families import family_named
from blip2vqa.models.places import scopes_and_roles
from blip2vqa.reporting.norms import draw_norms, print_inspection
from helpers.family_bases import MAKERS, Bases, adapted, random_adapter
from helpers.plain_peft import LAYERS, NAMES, dense_by_peft, peft_adapter


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return Bases(tmp_path_factory.mktemp("bases"))


@pytest.mark.parametrize("kind", MAKERS)
def test_roles_are_those_that_wrapping_chose(bases, kind, tmp_path):
    more = {"answers": ("red", "green")} if kind == "vilt" else {}
    loaded = adapted(bases[kind], 0, **more)
    loaded.model.save_pretrained(tmp_path / "a")
    report = inspect(tmp_path / "a")
    names = [row["name"] for row in report["modules"]]
    roles = {row["role"].removeprefix("cross ") for row in report["modules"]}
    scopes, labels = scopes_and_roles(names, family_named(loaded.family.name, names))
    assert scopes == ["language_model"] and set(labels) == roles == set(loaded.family.roles("language_model"))
    assert all(row["layer"] in (0, 1) for row in report["modules"])
    assert not report["untrained"] and bool(report["whole"]) == (kind == "vilt")


def test_norms_are_those_of_pefts_own_deltas(tiny_opt, tmp_path):
    folder, model = peft_adapter(tiny_opt, tmp_path / "a", use_rslora=True, rank_pattern={"fc1": 2})
    dense = {name: delta.double().norm().item() for name, delta in dense_by_peft(model).items()}
    report = inspect(folder)
    assert {row["name"]: row["norm"] for row in report["modules"]} == pytest.approx(dense, rel=1e-6)
    norms = report["norms"][LAYERS]
    assert norms["layers"] == [0, 1] and norms["roles"] == ["q", "o", "up"]
    wanted = [
        [dense[f"{LAYERS}.{layer}.{name}"] for name in ("self_attn.q_proj", "self_attn.out_proj", "fc1")]
        for layer in (0, 1)
    ]
    for row, cells in zip(norms["cells"], wanted, strict=True):
        assert row == pytest.approx(cells, rel=1e-6)
    table = torch.tensor(wanted, dtype=torch.float64)
    assert norms["by_layer"] == pytest.approx(table.norm(dim=1).tolist(), rel=1e-6)
    assert norms["by_role"] == pytest.approx(table.norm(dim=0).tolist(), rel=1e-6)
    assert report["norm"] == pytest.approx(table.norm().item(), rel=1e-6)
    up = next(row for row in report["modules"] if row["name"].endswith("0.fc1"))
    assert (
        up["rank"] == 2 and up["shape"] == [128, 64] and up["parameters"] == 2 * (128 + 64) and up["dtype"] == "float32"
    )
    assert up["scaling"] == pytest.approx(8 / 2**0.5)
    assert report["parameters"] == sum(row["parameters"] for row in report["modules"]) == report["bytes"] // 4
    assert json.loads(json.dumps(report)) == report


def test_what_is_untrained_is_named(tiny_opt, tmp_path, capsys):
    adapter = open_adapter(peft_adapter(tiny_opt, tmp_path / "a")[0])
    adapter.weights[f"base_model.model.{NAMES[1]}.lora_B.weight"].zero_()
    report = describe(adapter)
    assert report["untrained"] == [NAMES[1]]
    print_inspection(report)
    assert f"1 modules, B is zero ({NAMES[1]})" in capsys.readouterr().out
    for key, weight in adapter.weights.items():
        weight.mul_("lora_A" in key)
    report = describe(adapter)
    assert len(report["untrained"]) == len(NAMES) and report["norm"] == 0
    print_inspection(report)
    assert "it changes nothing" in capsys.readouterr().out
    assert Image.open(io.BytesIO(draw_norms(report))).format == "PNG"


def test_dora_is_inspected_and_said_to_be_more(tiny_opt, tmp_path):
    report = inspect(random_adapter(tiny_opt, tmp_path / "a", 0, use_dora=True))
    assert len(report["beside"]) == len(report["modules"]) and report["norm"] > 0
    assert any("DoRA" in note for note in report["notes"])


def test_a_head_is_listed_beside_the_layers(bases, tmp_path, capsys):
    report = inspect(random_adapter(bases["vilt"], tmp_path / "a", 0, answers=["red", "green", "blue"]))
    assert report["answers"] == 3
    assert [row["name"] for row in report["whole"]][-1] == "classifier.3.weight"
    print_inspection(report)
    said = capsys.readouterr().out
    assert "classifier.3.weight" in said and "3 to choose from" in said


def test_the_summary_tells_what_the_manifest_knows_and_fits_in_100_columns(tiny_t5, tmp_path, capsys):
    folder = random_adapter(tiny_t5, tmp_path / "a", 0, task="vqa", prompt="Question: {question} [b]Answer:[/b]")
    manifest = json.loads((folder / "blip2vqa.json").read_text())
    scores = {"metrics": {"adapter": {"accuracy": 0.75}, "blind": {"accuracy": 0.5}}}
    write_manifest(folder, manifest | scores | {"origin": {"command": "merge", "of": [{"name": "x"}, {"name": "y"}]}})
    print_inspection(inspect(folder))
    said = capsys.readouterr().out
    for text in (
        "[b]Answer:[/b]",
        "75.0%",
        "50.0%",
        "merge of x, y",
        "language_model.encoder.block",
        "cross",
        "gate",
        "rank 4",
    ):
        assert text in said
    assert max(map(len, said.splitlines())) <= 100
