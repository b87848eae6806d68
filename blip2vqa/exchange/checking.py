"""Check whether an adapter fits a base: names, shapes, values, fingerprints, and a run of the model with and without it."""

from dataclasses import asdict, dataclass, field
from functools import partial

import torch
from PIL import Image

from blip2vqa.adapters.algebra import split_weights
from blip2vqa.adapters.attach import FoundAdapter, add_adapters, merge_adapter, misfit_of, same_place
from blip2vqa.adapters.base.checkpoints import Checkpoint, open_checkpoint
from blip2vqa.adapters.base.fingerprints import DIFFERENT, SAME, UNKNOWN, compare_parts, fingerprint_base
from blip2vqa.adapters.files.adapter import Adapter
from blip2vqa.adapters.ref import BASE, CURRENT, AdapterRef
from blip2vqa.adapters.resolve import open_adapter
from blip2vqa.features.encode import Pixels
from blip2vqa.inference.generation import ANSWERS_WITH
from blip2vqa.inference.request import use_adapters
from blip2vqa.models.family import LANGUAGE_MODEL, TEXT_PARTS
from blip2vqa.models.loading import LoadedModel, load_base
from blip2vqa.models.places import part_of
from blip2vqa.utils.errors import InputError
from blip2vqa.utils.formatting import percent
from blip2vqa.utils.memory import free_memory

OK, CONVERTIBLE, INCOMPATIBLE = "ok", "convertible", "incompatible"
DRIFT = {"cast": 0.05, "quantized-8bit": 0.15, "quantized-4bit": 0.5}
"""How far logits of a copy may drift from the original's, as a share of their standard deviation, to count as the same base.
Measured on the embedded OPT base: 0.05 in 4 bits; below 0.01 for casts."""
_QUESTION = "What is in the picture?"


@dataclass
class Check:
    """What a check found out about an adapter and a base."""

    adapter: str
    base: str
    verdict: str = OK
    """`ok`, `convertible` or `incompatible`."""
    reasons: list[str] = field(default_factory=list)
    move: str | None = None
    """How `transfer` would move the adapter without training: `exact` or `copy`; None: not at all."""
    parts: dict[str, str] = field(default_factory=dict)
    """Part of the base → how it relates to that of the adapter's own base, as in `compare_parts`."""
    names: dict[str, str] = field(default_factory=dict, repr=False)
    """Layer of the adapter → its name in the base."""
    copy_of: str | None = None
    """Kind of copy of the adapter's own base that this one seems to be: cast, quantized-8bit or quantized-4bit; None: none."""

    @property
    def renamed(self) -> bool:
        """Whether the adapter's layers have other names in the base."""
        return any(old != new for old, new in self.names.items())

    def lower(self, verdict: str, reason: str) -> None:
        """Note a reason, and let the verdict be no better than `verdict`."""
        order = (OK, CONVERTIBLE, INCOMPATIBLE)
        self.verdict = max(self.verdict, verdict, key=order.index)
        self.reasons.append(reason)


def check(adapter: str, base_model_id: str, revision: str | None = None, *, quick: bool = False) -> dict:
    """Tell whether an adapter fits a base: the fields of `Check`, ready for JSON. `quick` leaves out the run of the model.

    Raises `InputError` where either cannot be reached, or is not safe to load.
    """
    adapter, base = open_adapter(adapter), open_checkpoint(base_model_id, revision)
    found = compare(adapter, base)
    if found.verdict != INCOMPATIBLE and not quick and base.family:
        _run(found, adapter, base)
    elif found.verdict != INCOMPATIBLE:
        found.reasons.append(
            "not run: this was a quick check" if quick else "not run: a bare language model sees no picture"
        )
        if found.copy_of:
            found.lower(CONVERTIBLE, "the drift of the logits is not measured")
    return {key: value for key, value in asdict(found).items() if key != "names"}


def compare(adapter: Adapter, base: Checkpoint) -> Check:
    """Do all of a check that takes no run of the model."""
    found = Check(adapter.name, base.base_model_id)
    names = {module: _find_layer(module, adapter, base) for module in adapter.modules}
    lacking = [module for module, name in names.items() if name is None]
    if lacking:
        shown = ", ".join(lacking[:2])
        found.lower(
            INCOMPATIBLE,
            f"{len(lacking)} of its {len(names)} layers are not in this base, or of another shape ({shown}, …)",
        )
        return found
    found.names = names
    here, gaps = (adapter.renamed(names), _gaps(adapter, base, names)) if found.renamed else (adapter, None)
    misfit = gaps or misfit_of(here, partial(base.outline, adapter.answers))
    if misfit:
        found.lower(INCOMPATIBLE, misfit)
        return found
    idle = [module for module in adapter.modules if not adapter.factors(module)[1].any()]
    if len(idle) == len(adapter.modules) and not split_weights(adapter)[1]:
        found.lower(INCOMPATIBLE, "it is untrained: B is zero in every layer, so it changes nothing")
    elif idle:
        found.reasons.append(f"{len(idle)} of its {len(adapter.modules)} layers are untrained: B is zero there")
    _check_parts(found, adapter, base)
    if found.renamed:
        old, new = next(iter(names.items()))
        found.lower(
            CONVERTIBLE, f"its layers have other names here: {old} is {new}; as it is, PEFT would load nothing of it"
        )
    return found


def _find_layer(module: str, adapter: Adapter, base: Checkpoint) -> str | None:
    """Find the base's name for a layer of an adapter; None where it has no such layer, or one of another shape.

    The names of a language model begin with `language_model` inside a BLIP-2, and without it when it stands alone.
    """
    inner = (base.language_model or "") + module.removeprefix("language_model.")
    there = {*base.names, *base.model.all_tied_weights_keys}
    name = next((name for name in (module, inner) if f"{name}.weight" in there), None)
    a, b = adapter.factors(module)
    return name if name and tuple(base.shape(f"{name}.weight")) == (b.shape[0], a.shape[1]) else None


def _gaps(adapter: Adapter, base: Checkpoint, names: dict[str, str]) -> str | None:
    """Say how many layers the configuration names for which an adapter of the language model holds nothing; None: none."""
    ends = tuple(f".{target.removeprefix('language_model.')}" for target in adapter.config.target_modules or ())
    layers = [name.removesuffix(".weight") for name in base.names if name.endswith(".weight")]
    meant = {name for name in layers if part_of(name, base.family) == LANGUAGE_MODEL and f".{name}".endswith(ends)}
    missing = meant - {*names.values()} if adapter.config.layers_to_transform is None else set()
    return f"{len(missing)} places have no weight, such as {min(missing)}" if missing else None


def _check_parts(found: Check, adapter: Adapter, base: Checkpoint) -> None:
    """Compare fingerprints: of the parts under the adapter, of those around it, of tokenizer and image processor."""
    mine, why = adapter.manifest.get("base"), "it does not say what its base is"
    if not mine and adapter.base_model_id:
        try:
            mine = fingerprint_base(adapter.base_model_id, adapter.base_model_revision)
        except InputError as error:
            why = error.problems[0]
    try:
        theirs = fingerprint_base(base.base_model_id, base.revision)
    except InputError as error:
        found.lower(CONVERTIBLE, f"whether the base's weights are the same is not known: {error.problems[0]}")
        return
    if not mine:
        found.lower(
            CONVERTIBLE,
            f"it has no fingerprint of its base, which cannot be reached either ({why}): nothing proves it the same",
        )
        return
    found.parts = parts = compare_parts(mine, theirs)
    adapted = {part_of(name, base.family) for name in found.names.values()}
    text_alone = adapted == {LANGUAGE_MODEL}
    under = adapted | ({*TEXT_PARTS} if text_alone and base.language_model is not None else set())
    parts |= dict.fromkeys(under - parts.keys(), UNKNOWN)  # embeddings without a tokenizer on either side
    unlike = {part for part, how in parts.items() if how in (DIFFERENT, UNKNOWN)}
    copies = {part: how for part, how in parts.items() if how not in (SAME, DIFFERENT, UNKNOWN)}
    # What a layer of the language model does depends on nothing else of the base; what another does, on all that follows.
    exact = all(parts[part] == SAME for part in (under if text_alone else parts))
    found.move = "exact" if exact else "copy"
    if exact:
        found.reasons.append(
            f"the weights under it are those it was made for ({', '.join(sorted(under))}), by fingerprint"
        )
    if under & unlike:
        found.lower(CONVERTIBLE, f"other weights than it was made for: {', '.join(sorted(under & unlike))}")
    around = ", ".join(sorted(unlike - under))
    if around and not text_alone:
        found.lower(CONVERTIBLE, f"it works together with other weights than it was made for: {around}")
    elif around and base.family:
        found.lower(CONVERTIBLE, f"it would be given other features of a picture: {around} differ or are not known")
    if copies:
        found.copy_of = max(copies.values(), key=[*DRIFT].index)
        near = ", ".join(f"{part} ({how})" for part, how in copies.items())
        found.reasons.append(f"as near as copies in another precision: {near}")
    elif mine["dtype"] != theirs["dtype"] and not unlike:
        found.reasons.append(
            f"stored in {mine['dtype']} and {theirs['dtype']}: the same where both are used in bfloat16"
        )
    for what in ("tokenizer", "image_processor"):
        if mine.get(what) and theirs.get(what) and mine[what] != theirs[what]:
            found.lower(CONVERTIBLE, f"another {what.replace('_', ' ')}")


def _run(found: Check, adapter: Adapter, base: Checkpoint) -> None:
    """Run the model with and without the adapter; beside a copy in another precision, run the adapter's own base, too."""
    loaded = load_base(base.base_model_id, revision=base.revision, answers=adapter.answers)
    put_on = FoundAdapter(adapter.renamed(found.names), base.base_model_id, base.revision, ())
    without = probe(loaded, adapter, BASE)
    try:
        add_adapters(loaded, {CURRENT: put_on}, alone=True)
    except InputError:  # what cannot be put beside a base may still be merged into it
        merge_adapter(loaded, put_on)
    with_it = probe(loaded, adapter, CURRENT)
    if torch.equal(with_it, without):
        found.lower(INCOMPATIBLE, "the model says the same with and without it, to the last bit")
        return
    found.reasons.append(f"run: it moves the logits by {percent(_drift(without, with_it), 0)} of their spread")
    if not found.copy_of:
        return
    del loaded, put_on
    free_memory()
    own, why = adapter.base_model_id, "its own base cannot be reached"
    loaded = None
    if own and not same_place(own, base.base_model_id):
        try:
            loaded = load_base(own, revision=adapter.base_model_revision, answers=adapter.answers)
        except InputError as error:
            why = error.problems[0]
    if loaded is None:
        found.lower(CONVERTIBLE, f"the drift of the logits is not measured: {why}")
        return
    drift = _drift(probe(loaded, adapter, CURRENT), without)
    said = f"logits of this copy drift by {percent(drift)} of their spread from those of {own}"
    if drift <= DRIFT[found.copy_of]:
        found.reasons.append(said)
    else:
        found.lower(CONVERTIBLE, f"{said}: more than {found.copy_of.replace('-', ' ')} weights explain")


def _drift(before: torch.Tensor, after: torch.Tensor) -> float:
    return ((after - before).square().mean().sqrt() / before.std()).item()


@torch.inference_mode()
def probe(loaded: LoadedModel, adapter: Adapter, ref: AdapterRef) -> torch.Tensor:
    """Compute the logits [vocabulary or answers], in float32, of an answer's first token about a drawn picture.

    `ref`: whether `adapter`, loaded as `CURRENT`, or the base alone gives them.
    """
    picture = Image.merge(
        "RGB", [Image.linear_gradient("L"), Image.radial_gradient("L"), Image.linear_gradient("L").rotate(90)]
    )
    pixels = Pixels({"": picture}, loaded.processor.image_processor)
    prompt, answers = adapter.manifest.get("prompt"), adapter.answers
    text = loaded.family.text_encoder(loaded.processor, loaded.base.config, prompt, answers)
    with use_adapters(loaded, [ref]):
        return ANSWERS_WITH[text.answers_with].first_scores(loaded, text, pixels, _QUESTION)
