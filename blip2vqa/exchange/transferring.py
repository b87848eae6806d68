"""Move adapters to other bases: exactly where the weights under them are the same, else distilled, projected or copied."""

import json
import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch

from blip2vqa.adapters.algebra import Factors, derive, largest_rank, norm, read_deltas, write_adapter
from blip2vqa.adapters.attach import find_adapter
from blip2vqa.adapters.base.checkpoints import Checkpoint, open_checkpoint
from blip2vqa.adapters.base.fingerprints import base_facts
from blip2vqa.adapters.files.adapter import Adapter, read_adapter, save_adapter, write_manifest
from blip2vqa.adapters.files.card import model_card
from blip2vqa.adapters.multi import unserved
from blip2vqa.adapters.resolve import open_adapter
from blip2vqa.adapters.validation.safety import CARD, MANIFEST, METRICS
from blip2vqa.config.exchange import MovingArguments, SwapArguments, TransferArguments
from blip2vqa.data.examples import Example, load_examples
from blip2vqa.data.splits import split_by_image
from blip2vqa.exchange.checking import INCOMPATIBLE, Check, compare
from blip2vqa.exchange.distilling import distil
from blip2vqa.exchange.measuring import BASE, MOVED, measure, scores_of
from blip2vqa.exchange.unfinished import making, note_of
from blip2vqa.models.loading import remembered
from blip2vqa.utils.errors import InputError, MachineError, collect_errors, raise_all
from blip2vqa.utils.files import write_json_atomic, write_text_atomic
from blip2vqa.utils.formatting import percent

EXACT, MEASURED, INITIALISATION = "exact", "measured", "initialisation"
"""State of a moved adapter: proved equal to the source; measured better than its new base; neither."""


def transfer(adapter: str, target: str, output: str, **options) -> dict:
    """Move an adapter to another base and write it; `options` are those of `TransferArguments`.

    Returns {method, state, reasons, output, measured}: `state` is `exact` (the same weights under it, by fingerprint),
    `measured` (on the user's table better than the target base, by more than noise) or `initialisation`; `measured` is the
    result of `measure`, None without a table. Raises `InputError` where nothing that was asked for applies.
    """
    args = TransferArguments(adapter=adapter, target=target, output=output, **options)
    raise_all(args.check())
    source, base = open_adapter(adapter), open_checkpoint(target, args.target_revision)
    with making(Path(output), _settings(args, source)) as begun:
        return _transfer(args, source, base, Path(output), begun)


def _settings(args: MovingArguments, *sources: Adapter) -> dict:
    """Collect what a move depends on: one that was stopped goes on only where all of it is the same."""
    kept = {name: value for name, value in vars(args).items() if name not in ("json", "batch_size")}
    return kept | {"sha256": [source.digest for source in sources]}


def _transfer(args: TransferArguments, source: Adapter, base: Checkpoint, folder: Path, begun: bool) -> dict:
    """Do what `transfer` says; `begun`: whether it was stopped before, and what it left in `folder` may serve."""
    found = compare(source, base)
    method = _choose(args, source, base, found)
    teach, held_out = _tables(args, method)
    if held_out and base.family is None:
        raise InputError(
            f"target {args.target}: a bare language model sees no picture, and cannot be measured; leave the table out"
        )
    if held_out and method in ("exact", "copy"):
        beside = unserved(source.renamed(found.names), base.outline(source.answers), base.family, "none", alone=False)
        raise_all([f"{problem}, and transfer it without a table" for problem in beside])
    if args.direct:
        find_adapter(
            args.direct, None, args.target, args.target_revision
        )  # what is wrong with it is said before the work
    reasons = list(found.reasons)
    if begun and method != "distil":
        shutil.rmtree(folder)  # is soon made anew
    if method == "distil":
        reasons = [distil(source, base, folder, teach, held_out, args)]
    elif method == "subspace":
        _project(source, base, folder, found, args.subspace, reasons)
    else:
        moved = source.renamed(found.names)
        config = moved.config
        config.base_model_name_or_path, config.revision = remembered(base.base_model_id), base.revision
        save_adapter(folder, config, moved.weights, _manifest(source, base))
    state = EXACT if method in ("exact", "copy") and found.move == "exact" else INITIALISATION
    measured = None
    _complete(folder, source, method, state)  # now: what is measured next may take long
    if held_out:
        measured = measure(
            read_adapter(folder), args.target, args.target_revision, held_out, args, source=source, direct=args.direct
        )
        if state != EXACT and is_better(measured):
            state = MEASURED
        _complete(folder, source, method, state, measured)
    elif args.csv_path or args.eval_csv_path:
        reasons.append("not measured: the table has no answers to measure by")
    return {"method": method, "state": state, "reasons": reasons, "output": str(folder), "measured": measured}


def swap(first: str, second: str, output: str, **options) -> dict:
    """Move each of two adapters to the other's base where that is possible, into a folder each below `output`.

    Returns {name of the adapter: the result of `transfer`; its `method` is None where the adapter did not move}. Raises
    `InputError`, and leaves nothing, where neither moved.
    """
    args = SwapArguments(first=first, second=second, output=output, **options)
    raise_all(args.check())
    adapters = [open_adapter(name) for name in (first, second)]
    homeless = [adapter.name for adapter in adapters if not adapter.base_model_id]
    if homeless:
        raise InputError(*(f"adapter {name}: does not say what its base is; use transfer" for name in homeless))
    if adapters[0].digest == adapters[1].digest:
        raise InputError(f"{first}, {second}: are one adapter; name two")
    with making(Path(output), _settings(args, *adapters)):
        return _swap(adapters, Path(output), options)


def _swap(adapters: list[Adapter], output: Path, options: dict) -> dict:
    output.mkdir(parents=True, exist_ok=True)
    moves = {}
    for number, (adapter, other) in enumerate((adapters, adapters[::-1]), start=1):
        folder = output / f"{number}-{adapter.folder.resolve().name}-on-{Path(other.base_model_id).name}"
        more = {"target_revision": other.base_model_revision} | options
        try:
            done = folder.exists() and not note_of(folder).exists()
            move = _moved(folder) if done else transfer(adapter.name, other.base_model_id, str(folder), **more)
        except MachineError:
            raise  # it would fail anew
        except InputError as error:
            move = {"method": None, "state": None, "reasons": error.problems, "output": None, "measured": None}
        moves[adapter.name] = move
    if not any(move["method"] for move in moves.values()):
        with suppress(OSError):  # what was made before it failed stays
            output.rmdir()
        raise InputError(*(reason for move in moves.values() for reason in move["reasons"]))
    return moves


def _moved(folder: Path) -> dict:
    """Return the result of the `transfer` that made this folder, before a swap was stopped."""
    origin, file = read_adapter(folder).manifest["origin"], folder / "transfer.json"
    measured = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    return {
        "method": origin["method"], "state": origin["state"], "reasons": [], "output": str(folder), "measured": measured,
    }  # fmt: skip


def _choose(args: TransferArguments, source: Adapter, base: Checkpoint, found: Check) -> str:
    """Choose the method asked for, or the best that applies. Raises `InputError` saying why none does."""
    why, problems = {}, []
    collect_errors(problems, read_deltas, source)
    if problems:
        why["subspace"] = problems[0]
    if found.verdict == INCOMPATIBLE:
        why = dict.fromkeys(("exact", "copy", "subspace"), "; ".join(found.reasons))
    elif found.move != "exact":
        why["exact"] = "; ".join(found.reasons)
    if source.manifest.get("task") == "caption":
        why["distil"] = "it writes captions, and answers alone are distilled"
        if args.csv_path or args.eval_csv_path:
            raise InputError(
                f"adapter {source.name}: writes captions, which are not measured here; leave the tables out"
            )
    elif base.family is None:
        why["distil"] = "a bare language model sees no picture"
    elif not args.csv_path:
        why["distil"] = "it needs --csv_path and --image_dir, images and questions to learn from"
    wanted = ("exact", "distil", "copy") if args.method == "auto" else (args.method,)
    method = next((name for name in wanted if name not in why), None)
    if method is None:
        by: dict[str, list[str]] = {}
        for name in wanted:
            by.setdefault(why[name], []).append(name)
        to = f"adapter {source.name}: does not go to {base.base_model_id} by"
        raise InputError(*(f"{to} {', '.join(names)}: {reason}" for reason, names in by.items()))
    return method


def _tables(args: TransferArguments, method: str) -> tuple[list[Example], list[Example]]:
    """Load (questions to learn from, questions with answers to measure on), on different images; empty where there are none."""
    load = partial(load_examples, image_dir=args.image_dir)
    teach = load(args.csv_path, require_answers=False)[0] if args.csv_path else []
    if args.eval_csv_path:
        held_out = load(args.eval_csv_path)[0]
    elif method == "distil":
        teach, held_out = split_by_image(teach, args.val_split, args.seed)
    else:
        held_out = teach
    return teach, [example for example in held_out if example.answers]


def _manifest(source: Adapter, base: Checkpoint, **changes) -> dict:
    """Make the manifest of a moved adapter, to which `_complete` adds its origin."""
    kept = {key: source.manifest[key] for key in ("rank", "alpha", "scaling", "roles") if key in source.manifest}
    return derive(source.facts, {}, **kept | base_facts(base) | changes)


def _project(source: Adapter, base: Checkpoint, folder: Path, found: Check, share: float, reasons: list[str]) -> None:
    """Write the source's ΔW projected onto the target's weights, and note how much of it is left."""
    deltas, names = read_deltas(source), found.names
    projected = {
        names[module]: project(factors, base.tensor(f"{names[module]}.weight").float(), share)
        for module, factors in deltas.items()
    }
    whole = sum(norm(factors) ** 2 for factors in deltas.values())
    kept = sum(norm(factors) ** 2 for factors in projected.values())
    reasons.append(f"{percent(kept / whole)} of the adapter's squared norm lies in the target's singular subspaces")
    rank = largest_rank(projected)
    write_adapter(folder, projected, like=source, manifest=_manifest(source, base, rank=rank, alpha=rank))


def project(factors: Factors, weight: torch.Tensor, share: float) -> Factors:
    """Compute U Uᵀ ΔW V Vᵀ with the leading singular vectors of `weight` that hold `share` of its squared singular values.

    LoRA-X, Farhadzadeh et al. 2025, https://arxiv.org/abs/2501.16559, equation 4. Of W = U S Vᵀ [out, in], one side's vectors
    and S² come from the smaller of W Wᵀ and Wᵀ W; the other side's vectors follow from these without a decomposition.
    """
    wide = weight.shape[0] <= weight.shape[1]
    exact = weight.double()  # squares of small singular values would be lost in float32
    values, vectors = torch.linalg.eigh(exact @ exact.T if wide else exact.T @ exact)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    count = int((values.cumsum(0) < share * values.sum()).sum()) + 1
    count = min(count, int((values > 1e-12 * values[0]).sum()))  # the others are what rounding leaves of zeros
    vectors, values = vectors[:, :count].float(), values[:count].float()
    other = (weight.T if wide else weight) @ (vectors / values.sqrt())
    u, v = (vectors, other) if wide else (other, vectors)
    return Factors(a=(factors.a @ v) @ v.T, b=u @ (u.T @ factors.b))


def is_better(measured: dict) -> bool:
    """Tell whether the moved adapter answers better than its new base, by more than noise."""
    pair = next(pair for pair in measured["differences"] if {pair["a"], pair["b"]} == {BASE, MOVED})
    return measured["gain"]["moved"] > 0 and bool(pair["more_than_noise"])


def _complete(folder: Path, source: Adapter, method: str, state: str, measured: dict | None = None) -> None:
    """Write manifest, scores and card of a moved adapter beside its weights, with no scores but those of the measurement."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    manifest["origin"] = {
        "command": "transfer",
        "method": method,
        "state": state,
        "of": [{"name": Path(source.name).name, "sha256": source.digest}],
        "from_base": source.base_model_id and Path(source.base_model_id).name,
    }
    metrics = {}
    # A distilled adapter's own scores are its agreement with the source, where the table has no answers.
    manifest.pop("metrics", None)
    if measured:
        metrics = manifest["metrics"] = scores_of(measured)
        manifest["origin"]["gain"] = measured["gain"]
        write_json_atomic(folder / METRICS, metrics)
        write_json_atomic(folder / "transfer.json", measured)
    manifest.pop("format", None)
    write_manifest(folder, manifest)
    if not measured:
        (folder / METRICS).unlink(missing_ok=True)
    files = [path.name for path in folder.iterdir()]
    write_text_atomic(folder / CARD, model_card(manifest, metrics, files=files))
