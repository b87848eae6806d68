"""ΔW as factors, beside PEFT's own layers and the dense matrices; adapters made of it, loaded by plain PEFT."""

import json

import pytest
import torch
from peft import PeftModel

from blip2vqa.adapters.algebra import (
    Factors,
    add,
    decompose,
    derive,
    distance,
    norm,
    numerical_rank,
    read_deltas,
    truncate,
    whole_modules,
    write_adapter,
)
from blip2vqa.adapters.resolve import open_adapter
from blip2vqa.utils.errors import InputError
from helpers.family_bases import Bases, random_adapter
from helpers.plain_peft import NAMES, assert_close, changes, dense_by_peft, peft_adapter


def random_factors(out: int, width: int, rank: int, seed: int = 0) -> Factors:
    generator = torch.Generator().manual_seed(seed)
    return Factors(torch.randn(rank, width, generator=generator), torch.randn(out, rank, generator=generator))


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"use_rslora": True, "r": 3, "lora_alpha": 7},
        {"rank_pattern": {"q_proj": 2, "layers.1.fc1": 5}, "alpha_pattern": {"out_proj": 3, "layers.0.fc1": 1}},
        {"rank_pattern": {"0.fc1": 6}, "alpha_pattern": {"fc1": 9}, "use_rslora": True},
    ],
    ids=["plain", "rslora", "patterns", "rslora and patterns"],
)
def test_deltas_are_what_pefts_own_layers_add(tiny_opt, tmp_path, config):
    folder, model = peft_adapter(tiny_opt, tmp_path / "a", **config)
    wanted = dense_by_peft(model)
    deltas = read_deltas(open_adapter(folder))
    assert deltas.keys() == wanted.keys() and len(deltas) == len(NAMES)
    for module, factors in deltas.items():
        assert_close(factors.dense(), wanted[module], 1e-6)
        assert factors.shape == tuple(wanted[module].shape)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4"),
        ({"init_lora_weights": "olora"}, "olora"),
        ({"lora_bias": True}, "biases"),
        ({"bias": "lora_only"}, "biases"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens"),
    ],
)
def test_what_is_no_sum_of_deltas_is_refused_with_a_way_out(tiny_opt, tmp_path, config, says):
    adapter = open_adapter(peft_adapter(tiny_opt, tmp_path / "a")[0])
    for key, value in config.items():
        setattr(adapter.config, key, value)
    with pytest.raises(InputError, match=says) as caught:
        read_deltas(adapter)
    assert len(caught.value.problems) == 1 and "extract" in str(caught.value) and "\n" not in str(caught.value)


def test_an_embedding_is_no_linear_layer(tiny_opt, tmp_path):
    adapter = open_adapter(peft_adapter(tiny_opt, tmp_path / "a")[0])
    name = "base_model.model.language_model.model.decoder.embed_tokens.lora_embedding_"
    adapter.weights.update({f"{name}A": torch.ones(4, 50), f"{name}B": torch.ones(64, 4)})
    with pytest.raises(InputError, match=r"embed_tokens holds lora_embedding_A, lora_embedding_B, not the A and B"):
        read_deltas(adapter)


def test_ranks_that_contradict_the_configuration_are_refused(tiny_opt, tmp_path):
    adapter = open_adapter(peft_adapter(tiny_opt, tmp_path / "a")[0])
    adapter.config.r = 3
    with pytest.raises(InputError, match=r"A \[4, 64\] and B \[64, 4\], but rank 3"):
        read_deltas(adapter)


@pytest.mark.parametrize(("out", "width", "rank"), [(40, 30, 5), (30, 40, 5), (6, 50, 9), (50, 6, 9)])
def test_norms_singular_values_and_distances_are_those_of_the_dense_matrix(out, width, rank):
    one, other = random_factors(out, width, rank), random_factors(out, width, 3, seed=1)
    dense = one.dense().double()
    assert norm(one) == pytest.approx(dense.norm().item(), rel=1e-6)
    assert distance(one, other) == pytest.approx((dense - other.dense().double()).norm().item(), rel=1e-6)
    assert distance(one, one) <= 1e-7 * norm(one)
    wanted = torch.linalg.svdvals(dense)[: min(out, width, rank)]
    assert torch.allclose(decompose(one)[1], wanted, rtol=1e-5, atol=1e-5)


def test_norm_of_what_is_no_number_is_none():
    factors = random_factors(4, 4, 2)
    factors.a[0, 0] = float("nan")
    assert norm(factors) != norm(factors)


def test_decomposing_changes_nothing_and_splits_the_values_evenly():
    factors = random_factors(40, 30, 5)
    split, values = decompose(factors)
    assert_close(split.dense(), factors.dense(), 1e-6)
    roots = values.sqrt().float()
    assert torch.allclose(split.b.norm(dim=0), roots, rtol=1e-5) and torch.allclose(
        split.a.norm(dim=1), roots, rtol=1e-5
    )
    assert split.a.dtype == split.b.dtype == torch.float32


@pytest.mark.parametrize("rank", [1, 3, 4])
def test_decomposed_and_truncated_it_is_the_dense_truncated_svd(rank):
    factors = random_factors(40, 30, 5)
    u, values, v = torch.linalg.svd(factors.dense().double(), full_matrices=False)
    best = (u[:, :rank] * values[:rank]) @ v[:rank]
    found = truncate(decompose(factors)[0], rank)
    assert found.rank == rank
    assert_close(found.dense(), best.float())
    assert distance(found, factors) == pytest.approx(values[rank:].norm().item(), rel=1e-5)  # Eckart and Young


def test_what_depends_on_each_other_is_left_out():
    factors = random_factors(40, 30, 5)
    doubled = add([(factors, 0.7), (factors, 0.3), (factors, -1.3)])
    assert doubled.rank == 15
    split, values = decompose(doubled)
    assert numerical_rank(values) == 5
    found = truncate(split, 5)
    assert_close(found.dense(), -0.3 * factors.dense(), 1e-5)


def test_nothing_is_of_rank_one():
    split, values = decompose(Factors(torch.zeros(3, 8), torch.zeros(6, 3)))
    assert numerical_rank(values) == 1 and not truncate(split, 1).dense().any()


def test_what_is_written_is_a_plain_adapter_that_peft_loads(tiny_opt, tmp_path):
    adapter = open_adapter(
        peft_adapter(
            tiny_opt, tmp_path / "a", rank_pattern={"fc1": 2}, use_rslora=True, lora_dropout=0.1, revision="abc"
        )[0]
    )
    deltas = read_deltas(adapter)
    write_adapter(tmp_path / "b", deltas, like=adapter, manifest={"task": "vqa"})
    config = json.loads((tmp_path / "b" / "adapter_config.json").read_text())
    wanted = {
        "r": 4,
        "lora_alpha": 4,
        "use_rslora": False,
        "lora_dropout": 0.0,
        "inference_mode": True,
        "revision": "abc",
    }
    assert {key: config[key] for key in wanted} == wanted
    assert config["rank_pattern"] == config["alpha_pattern"] == {name: 2 for name in NAMES if "fc1" in name}
    assert config["target_modules"] == sorted(NAMES)
    assert config["base_model_name_or_path"] == str(tiny_opt)
    assert json.loads((tmp_path / "b" / "blip2vqa.json").read_text())["task"] == "vqa"
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "blip2vqa.json",
    ]  # fmt: skip
    assert all(weight.dtype == torch.float32 for weight in open_adapter(tmp_path / "b").weights.values())
    found = changes(tiny_opt, tmp_path / "b")
    assert sorted(found) == sorted(NAMES)
    for module, factors in deltas.items():
        assert_close(found[module], factors.dense())
    assert all(
        distance(factors, deltas[name]) == 0 for name, factors in read_deltas(open_adapter(tmp_path / "b")).items()
    )


class Nested(torch.nn.Module):
    """Layers whose names are the ends of others' names."""

    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(8, 8, bias=False)
        self.inner = torch.nn.ModuleDict(
            {"fc": torch.nn.Linear(8, 8, bias=False), "on": torch.nn.Linear(8, 8, bias=False)}
        )
        self.a = torch.nn.ModuleDict({"inner": torch.nn.ModuleDict({"fc": torch.nn.Linear(8, 8, bias=False)})})


@pytest.mark.parametrize(
    "ranks",
    [
        {"fc": 1, "inner.fc": 2, "a.inner.fc": 3},
        {"fc": 3, "inner.fc": 2, "a.inner.fc": 1, "inner.on": 3},
        {"fc": 2, "inner.fc": 2, "a.inner.fc": 2, "inner.on": 1},
    ],
)
def test_ranks_are_each_modules_own_where_names_end_in_one_another(tiny_opt, tmp_path, ranks):
    adapter = open_adapter(peft_adapter(tiny_opt, tmp_path / "like")[0])
    deltas = {module: random_factors(8, 8, rank, seed=rank) for module, rank in ranks.items()}
    write_adapter(tmp_path / "b", deltas, like=adapter, manifest={})
    model = PeftModel.from_pretrained(Nested(), tmp_path / "b")
    wanted = dense_by_peft(model)
    assert wanted.keys() == deltas.keys()
    for module, factors in deltas.items():
        assert_close(wanted[module], factors.dense())


def test_bytes_are_the_same_every_time(tiny_opt, tmp_path):
    adapter = open_adapter(peft_adapter(tiny_opt, tmp_path / "a")[0])
    for name in ("b", "c"):
        write_adapter(tmp_path / name, read_deltas(adapter), like=adapter, manifest={"task": "vqa"})
    for file in (tmp_path / "b").iterdir():
        assert file.read_bytes() == (tmp_path / "c" / file.name).read_bytes()


def test_a_folder_that_exists_is_left_alone(tiny_opt, tmp_path):
    adapter = open_adapter(peft_adapter(tiny_opt, tmp_path / "a")[0])
    before = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir() if path.is_file()}
    with pytest.raises(InputError, match="--output"):
        write_adapter(tmp_path / "a", read_deltas(adapter), like=adapter, manifest={})
    assert {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir() if path.is_file()} == before


def test_a_head_of_ones_own_is_kept_as_it_is(tmp_path):
    vilt = Bases(tmp_path / "bases")["vilt"]
    answers = ["red", "green", "blue"]
    adapter = open_adapter(random_adapter(vilt, tmp_path / "a", 0, answers=answers))
    head = whole_modules(adapter)
    assert head["classifier.3.weight"].shape[0] == 3
    write_adapter(tmp_path / "b", read_deltas(adapter), like=adapter, manifest={"answers": answers}, whole=head)
    found = open_adapter(tmp_path / "b")
    assert found.config.modules_to_save == ["classifier"]
    assert found.weights.keys() == adapter.weights.keys()
    assert all(torch.equal(head[name], weight) for name, weight in whole_modules(found).items())


def test_weights_of_the_base_that_came_along_are_no_head(tiny_opt, tmp_path):
    adapter = open_adapter(peft_adapter(tiny_opt, tmp_path / "a")[0])
    adapter.weights["base_model.model.language_model.lm_head.weight"] = torch.zeros(2, 2)
    with pytest.raises(InputError, match=r"lm_head\.weight, 1 in all"):
        whole_modules(adapter)


def test_a_derived_manifest_keeps_what_still_holds():
    manifest = {
        "format": 1, "task": "vqa", "family": "BLIP-2 with OPT", "base_model_id": "x", "prompt": "Q", "answers": ["a"],
        "base": {"parts": {}}, "metrics": {"adapter": 1}, "data": {"rows_train": 1}, "seed": 3, "dtype": "float32",
        "quantization": "4bit", "rank": 16, "alpha": 32, "scaling": "alpha / sqrt(rank)", "versions": {"torch": "0"},
    }  # fmt: skip
    found = derive(manifest, {"command": "resize"}, rank=4, alpha=4)
    assert found.pop("versions")["torch"] == torch.__version__
    assert found == {
        "task": "vqa", "family": "BLIP-2 with OPT", "base_model_id": "x", "prompt": "Q", "answers": ["a"],
        "base": {"parts": {}}, "rank": 4, "alpha": 4, "scaling": "alpha / rank", "origin": {"command": "resize"},
    }  # fmt: skip
    assert manifest["rank"] == 16
