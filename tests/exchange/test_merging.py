"""Merging and resizing beside the dense computation, and beside what plain PEFT makes of the files."""

import json

import pytest
import torch

from blip2vqa.adapters.algebra import read_deltas
from blip2vqa.adapters.files.adapter import write_manifest
from blip2vqa.adapters.resolve import open_adapter
from blip2vqa.exchange.merging import merge, merge_deltas, resize, resize_deltas
from blip2vqa.utils.errors import InputError
from helpers.family_bases import Bases, random_adapter
from helpers.plain_peft import LAYERS, NAMES, assert_close, changes, dense_by_peft, peft_adapter

CONFIGS = {
    "A": {"r": 3, "lora_alpha": 7, "use_rslora": True},
    "B": {
        "r": 5,
        "lora_alpha": 4,
        "rank_pattern": {"fc1": 2},
        "target_modules": [*NAMES[:4], *NAMES[5:], f"{LAYERS}.0.fc2"],
    },
}
WEIGHTS = {"A": 0.7, "B": -0.4}


@pytest.fixture(scope="module")
def two(tmp_path_factory, tiny_opt):
    """Two adapters of unlike ranks, scalings and modules → (name → folder, module → {name: dense ΔW by PEFT})."""
    folder, folders, dense = tmp_path_factory.mktemp("two"), {}, {}
    for seed, (name, config) in enumerate(CONFIGS.items()):
        folders[name], model = peft_adapter(tiny_opt, folder / name, seed, **config)
        for module, delta in dense_by_peft(model).items():
            dense.setdefault(module, {})[name] = delta.double()
    return folders, dense


def weighted(folders, weights=WEIGHTS):
    return [(open_adapter(folders[name]), weight) for name, weight in weights.items()]


def summed(dense, weights=WEIGHTS) -> dict[str, torch.Tensor]:
    return {module: sum(weights[name] * delta for name, delta in by.items()) for module, by in dense.items()}


def total(matrices) -> float:
    return sum(matrix.norm().item() ** 2 for matrix in matrices) ** 0.5


def best(matrix: torch.Tensor, rank: int) -> torch.Tensor:
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    return (u[:, :rank] * values[:rank]) @ v[:rank]


def test_some_modules_are_in_one_adapter_only(two):
    assert sorted(len(by) for by in two[1].values()) == [1, 1, 2, 2, 2, 2, 2]


@pytest.mark.parametrize("method", ["linear", "cat"])
def test_a_sum_is_that_of_the_dense_matrices(two, method):
    made, report = merge_deltas(weighted(two[0]), method=method)
    wanted = summed(two[1])
    assert made.keys() == wanted.keys()
    for module, matrix in wanted.items():
        assert_close(made[module].dense().double(), matrix)
    assert report["rank_before"] == [3, 5] and report["rank"] == 8
    assert report["relative_error"] < 1e-6 and report["energy_kept"] == pytest.approx(1.0)
    assert {made[name].rank for name in made if name.endswith("q_proj")} == {8}
    assert [(one["name"], one["weight"]) for one in report["of"]] == [(str(two[0]["A"]), 0.7), (str(two[0]["B"]), -0.4)]


def test_plain_peft_adds_the_dense_sum(two, tiny_opt, tmp_path):
    report = merge({str(two[0][name]): weight for name, weight in WEIGHTS.items()}, tmp_path / "c")
    found, wanted = changes(tiny_opt, tmp_path / "c"), summed(two[1])
    assert found.keys() == wanted.keys()
    for module, matrix in wanted.items():
        assert_close(found[module].double(), matrix)
    assert json.loads(json.dumps(report)) == report


def test_a_rank_is_the_best_of_that_rank(two):
    made, report = merge_deltas(weighted(two[0]), rank=2)
    wanted = summed(two[1])
    errors = {module: (best(matrix, 2) - matrix).norm().item() for module, matrix in wanted.items()}
    for module, matrix in wanted.items():
        assert made[module].rank == 2
        assert_close(made[module].dense().double(), best(matrix, 2))
    share = total(best(matrix, 2) - matrix for matrix in wanted.values()) / total(wanted.values())
    assert report["relative_error"] == pytest.approx(share, rel=1e-5)
    worst = max(wanted, key=lambda module: errors[module] / wanted[module].norm().item())
    assert report["worst_module"]["name"] == worst
    assert report["worst_module"]["relative_error"] == pytest.approx(
        errors[worst] / wanted[worst].norm().item(), rel=1e-5
    )


@pytest.mark.parametrize("energy", [0.5, 0.9, 0.99])
def test_an_energy_takes_the_smallest_rank_that_keeps_it(two, energy):
    _, report = merge_deltas(weighted(two[0]), energy=energy)
    wanted = summed(two[1])

    def kept(rank):
        return (total(best(matrix, rank) for matrix in wanted.values()) / total(wanted.values())) ** 2

    rank = report["rank"]
    assert 1 < rank < 8 and kept(rank) >= energy > kept(rank - 1)
    assert report["energy_kept"] == pytest.approx(kept(rank), rel=1e-5)


def test_what_cancels_out_costs_no_rank(two):
    made, report = merge_deltas(weighted(two[0], {"A": 0.7}) + weighted(two[0], {"A": 0.3}))
    assert report["rank"] == 3 and report["relative_error"] < 1e-6
    for module, factors in made.items():
        assert_close(factors.dense().double(), two[1][module]["A"])


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_resizing_is_the_truncated_svd(two, rank):
    made, report = resize_deltas(open_adapter(two[0]["B"]), rank=rank)
    wanted = {module: by["B"] for module, by in two[1].items() if "B" in by}
    for module, matrix in wanted.items():
        assert_close(made[module].dense().double(), best(matrix, rank))
        assert made[module].rank == min(rank, 2 if "fc1" in module else 5)
    share = total(best(matrix, rank) - matrix for matrix in wanted.values()) / total(wanted.values())
    assert report["relative_error"] == pytest.approx(share, rel=1e-5)


def test_resizing_by_energy_and_to_more_than_there_is(two):
    adapter = open_adapter(two[0]["B"])
    assert resize_deltas(adapter, energy=1.0)[1]["rank"] == 5
    _, report = resize_deltas(adapter, rank=9)
    assert report["rank"] == 5 and report["notes"] == ["--rank 9: it has rank 5, and keeps it"]
    assert report["relative_error"] < 1e-6
    with pytest.raises(InputError, match="--rank, --energy: give one of the two"):
        resize_deltas(adapter)


def test_a_resized_adapter_is_loaded_by_plain_peft(two, tiny_opt, tmp_path):
    resize(str(two[0]["B"]), tmp_path / "c", rank=3)
    found = changes(tiny_opt, tmp_path / "c")
    for module, by in two[1].items():
        if "B" in by:
            assert_close(found[module].double(), best(by["B"], 3))


def ties_by_hand(matrices, weights, density):
    """As the paper's algorithm 1 says it, entry by entry."""
    trimmed = []
    for matrix, weight in zip(matrices, weights, strict=True):
        entries = matrix.flatten().tolist()
        largest = sorted(entries, key=abs, reverse=True)[: round(density * len(entries))]
        trimmed.append([weight * entry if abs(entry) >= abs(largest[-1]) else 0.0 for entry in entries])
    merged = torch.zeros(matrices[0].numel(), dtype=torch.float64)
    for place, values in enumerate(zip(*trimmed, strict=True)):
        sign = (sum(values) > 0) - (sum(values) < 0)
        agreeing = [(value, abs(weight)) for value, weight in zip(values, weights, strict=True) if value * sign > 0]
        if agreeing:
            merged[place] = sum(value for value, _ in agreeing) / sum(weight for _, weight in agreeing)
    return merged.view_as(matrices[0])


@pytest.mark.parametrize("weights", [{"A": 1.0, "B": 1.0}, {"A": 0.7, "B": -0.4}])
@pytest.mark.parametrize("density", [0.2, 1.0])
def test_ties_is_what_its_paper_says(two, weights, density):
    made, report = merge_deltas(weighted(two[0], weights), method="ties", density=density, rank=64)
    for module, by in two[1].items():
        wanted = ties_by_hand(list(by.values()), [weights[name] for name in by], density)
        assert_close(made[module].dense().double(), wanted)
    assert report["relative_error"] < 1e-5 and report["density"] == density


def test_dare_is_what_its_paper_says(two):
    made, report = merge_deltas(weighted(two[0]), method="dare", drop=0.6, seed=3, rank=64)
    generator = torch.Generator().manual_seed(3)
    for module in sorted(two[1]):
        wanted = 0
        for name, matrix in two[1][module].items():
            mask = torch.rand(matrix.shape, generator=generator) >= 0.6
            wanted = wanted + WEIGHTS[name] * matrix * mask / 0.4
        assert_close(made[module].dense().double(), wanted)
    assert report["drop"] == 0.6 and report["seed"] == 3
    assert merge_deltas(weighted(two[0]), method="dare", drop=0.6, seed=4, rank=64)[1]["relative_error"] < 1e-5


def test_dare_without_dropping_is_the_sum(two):
    made, _ = merge_deltas(weighted(two[0]), method="dare", drop=0.0)
    for module, matrix in summed(two[1]).items():
        assert_close(made[module].dense().double(), matrix)


@pytest.mark.parametrize("rank", [None, 6])
def test_what_is_thinned_out_ends_with_nearly_the_best_approximation(two, rank):
    made, report = merge_deltas(weighted(two[0]), method="ties", rank=rank)
    wanted = {
        module: ties_by_hand(list(by.values()), [WEIGHTS[name] for name in by], 0.2) for module, by in two[1].items()
    }
    for module, matrix in wanted.items():
        expected = rank or sum({"A": 3, "B": 2 if "fc1" in module else 5}[name] for name in two[1][module])
        assert made[module].rank == expected
        found = (made[module].dense().double() - matrix).norm().item()
        assert found <= 1.001 * (best(matrix, expected) - matrix).norm().item()
    lost = total(made[module].dense().double() - matrix for module, matrix in wanted.items()) / total(wanted.values())
    assert report["relative_error"] == pytest.approx(lost, rel=1e-5) and 0.1 < lost < 1
    assert report["energy_kept"] == pytest.approx(1 - lost**2, rel=1e-5)


def test_a_merge_is_the_same_every_time_and_leaves_the_global_generator_alone(two, tmp_path):
    named = {str(two[0][name]): weight for name, weight in WEIGHTS.items()}
    for number, name in enumerate("cd"):
        torch.manual_seed(number)
        merge(named, tmp_path / name, method="dare", rank=4, seed=1)
        assert torch.initial_seed() == number and torch.equal(
            torch.get_rng_state(), torch.manual_seed(number).get_state()
        )
    for file in (tmp_path / "c").iterdir():
        assert file.read_bytes() == (tmp_path / "d" / file.name).read_bytes()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"method": "slerp"}, "--method slerp: unknown; choose from linear, cat, ties, dare"),
        ({"rank": 0}, "--rank: 0 is out of range"),
        ({"energy": 1.5}, "--energy: 1.5"),
        ({"energy": 0.0}, r"--energy: 0\.0"),
        ({"energy": float("nan")}, "--energy: nan"),
        ({"rank": 2, "energy": 0.5}, "give one of them"),
        ({"method": "cat", "rank": 2}, "--method cat"),
        ({"method": "ties", "energy": 0.9}, "goes with linear"),
        ({"method": "ties", "density": 0.0}, r"--density: 0\.0"),
        ({"method": "dare", "drop": 1.0}, r"--drop: 1\.0"),
    ],
)
def test_arguments_out_of_range_are_named(two, options, says):
    with pytest.raises(InputError, match=says):
        merge_deltas(weighted(two[0]), **options)


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), 0.0])
def test_weights_are_numbers_other_than_zero(two, weight):
    with pytest.raises(InputError, match="weight"):
        merge_deltas(weighted(two[0], {"A": 1.0, "B": weight}))


def test_one_adapter_is_no_merge_and_every_problem_is_told(two, tmp_path):
    (tmp_path / "c").mkdir()
    with pytest.raises(InputError) as caught:
        merge({str(tmp_path / "absent"): 1.0}, tmp_path / "c")
    assert len(caught.value.problems) == 3 and not any("\n" in problem for problem in caught.value.problems)
    assert list((tmp_path / "c").iterdir()) == []


def base_manifest(sha: str, **more) -> dict:
    parts = {part: fingerprint(sha) for part in ("vision_model", "language_model")}
    known = {"dtype": "float32", "quantization": None, "tokenizer": None, "image_processor": None}
    return {"base": {"parts": parts} | known, **more}


def fingerprint(digit: str) -> dict:
    return {"sha256": digit * 64, "sketch": [float(digit)] * 64}


@pytest.fixture
def pair(tiny_opt, tmp_path):
    """Two adapters with manifests of the given kind."""

    def make(*manifests):
        for number, manifest in enumerate(manifests):
            folder = random_adapter(tiny_opt, tmp_path / f"of{number}", number)
            write_manifest(folder, {"base_model_id": "facebook/one", "family": "BLIP-2 with OPT", **manifest})
        return [(open_adapter(tmp_path / f"of{number}"), 0.5) for number in range(len(manifests))]

    return make


def test_adapters_of_different_bases_are_refused_by_fingerprint(pair):
    with pytest.raises(InputError, match=r"different weights of the base \(language_model, by fingerprint\)"):
        merge_deltas(pair(base_manifest("1"), base_manifest("2")))


def test_the_same_weights_under_other_names_are_one_base(pair):
    other = base_manifest("1", base_model_id="facebook/two")
    other["base"]["parts"]["vision_model"] = fingerprint("9")  # which no adapted module is in
    assert merge_deltas(pair(base_manifest("1"), other))[1]["notes"] == []


def test_without_fingerprints_the_name_of_the_base_decides(pair):
    assert merge_deltas(pair({}, {}))[1]["notes"] == []
    with pytest.raises(InputError, match="made for facebook/one and facebook/two, and no fingerprint"):
        merge_deltas(pair({}, {"base_model_id": "facebook/two"}))


def test_other_prompts_are_noted_and_the_first_stays(pair, tmp_path):
    adapters = pair(
        {"prompt": "Q: {question}", "task": "vqa", "rank": 4, "metrics": {"adapter": {}}}, {"prompt": "{question}"}
    )
    report = merge({str(adapter.folder): weight for adapter, weight in adapters}, tmp_path / "c")
    (note,) = report["notes"]
    assert note.startswith("prompt: ") and "'{question}'" in note and "'Q: {question}'" in note
    manifest = open_adapter(tmp_path / "c").manifest
    assert manifest["prompt"] == "Q: {question}" and manifest["task"] == "vqa" and "metrics" not in manifest
    assert manifest["rank"] == manifest["alpha"] == 8 and manifest["scopes"] == ["language_model"]
    assert manifest["roles"] == ["q", "k", "v", "o", "up", "down"]
    assert manifest["base_model_id"] == "facebook/one"
    assert manifest["origin"]["command"] == "merge" and len(manifest["origin"]["of"]) == 2
    assert [one["sha256"] for one in manifest["origin"]["of"]] == [adapter.digest for adapter, _ in adapters]


def test_other_shapes_are_another_base(two, tiny_opt, tmp_path):
    adapters = weighted(two[0])
    for key, weight in list(adapters[1][0].weights.items()):
        if key.endswith("q_proj.lora_A.weight"):
            adapters[1][0].weights[key] = weight[:, :32]
    with pytest.raises(InputError, match=r"q_proj has shapes \(64, 32\) and \(64, 64\)"):
        merge_deltas(adapters)


def test_dora_is_refused_with_a_way_out(tiny_opt, tmp_path):
    dora = open_adapter(random_adapter(tiny_opt, tmp_path / "dora", 0, use_dora=True))
    plain = open_adapter(random_adapter(tiny_opt, tmp_path / "plain", 1))
    with pytest.raises(InputError, match="DoRA"):
        merge_deltas([(plain, 1.0), (dora, 1.0)])


def test_a_bare_language_model_has_other_names(tiny_opt, tmp_path):
    whole = open_adapter(random_adapter(tiny_opt, tmp_path / "whole", 0))
    bare = whole.renamed({name: name.removeprefix("language_model.") for name in whole.modules})
    with pytest.raises(InputError, match="bare language model"):
        merge_deltas([(whole, 1.0), (bare, 1.0)])


@pytest.fixture(scope="module")
def vilt(tmp_path_factory):
    return Bases(tmp_path_factory.mktemp("vilt"))["vilt"]


def test_heads_for_the_same_answers_are_averaged(vilt, tmp_path):
    answers = ["red", "green", "blue"]
    a, b = (
        open_adapter(random_adapter(vilt, tmp_path / name, seed, answers=answers)) for seed, name in enumerate("ab")
    )
    merge({str(a.folder): 3.0, str(b.folder): 1.0}, tmp_path / "c")
    found = open_adapter(tmp_path / "c")
    assert found.answers == tuple(answers)
    for key in (key for key in a.weights if "classifier" in key):
        assert_close(found.weights[key], 0.75 * a.weights[key] + 0.25 * b.weights[key], 1e-6)
    sums, mine, theirs = read_deltas(found), read_deltas(a), read_deltas(b)
    for module, factors in sums.items():
        assert_close(factors.dense(), 3 * mine[module].dense() + theirs[module].dense())
    resize(str(a.folder), tmp_path / "d", rank=2)
    kept = open_adapter(tmp_path / "d").weights
    assert all(torch.equal(kept[key], weight) for key, weight in a.weights.items() if "classifier" in key)


def test_heads_for_other_answers_are_refused(vilt, tmp_path):
    for seed, answers in enumerate((["red", "green"], ["green", "red"])):
        random_adapter(vilt, tmp_path / str(seed), seed, answers=answers)
    with pytest.raises(InputError, match="not for the same answers"):
        merge({str(tmp_path / "0"): 1.0, str(tmp_path / "1"): 1.0}, tmp_path / "c")
    assert not (tmp_path / "c").exists()
