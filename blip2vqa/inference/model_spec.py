"""A base with its adapters: found and checked before any weight is read, then loaded once to answer questions."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from blip2vqa.adapters.attach import FoundAdapter, add_adapters, find_adapter, merge_adapter
from blip2vqa.adapters.multi import MEMORY_GB, unserved
from blip2vqa.adapters.ref import BASE, CURRENT, AdapterRef
from blip2vqa.config.common import DEFAULT_BASE, KeptFeatures
from blip2vqa.data.examples import Example
from blip2vqa.evaluation.calibration import Calibration
from blip2vqa.features.encode import Features, load_with_features
from blip2vqa.inference.request import AnswerRequest, Decoding
from blip2vqa.models.families import family_of
from blip2vqa.models.family import Family
from blip2vqa.models.loading import LoadedModel, load_base, load_config, load_processor
from blip2vqa.models.precision import check_dtype, stored_quantization
from blip2vqa.utils.console import named
from blip2vqa.utils.errors import InputError, collect_errors, raise_all


@dataclass(frozen=True)
class ModelSpec:
    """One base, and the adapters of it that answer."""

    base_model_id: str
    revision: str | None
    config: object
    processor: object
    adapters: dict[AdapterRef, FoundAdapter]
    """By name; one that was given without a name is `CURRENT`."""
    with_base: bool
    """Whether the base alone is asked, too."""
    dtype: str
    """Precision to load it in, as `--dtype` names it."""

    @property
    def family(self) -> Family:
        return family_of(self.config)

    @property
    def scopes(self) -> tuple[str, ...]:
        """The parts of the base that any of the adapters changes."""
        return tuple(dict.fromkeys(scope for adapter in self.adapters.values() for scope in adapter.scopes))

    @property
    def _alone(self) -> bool:
        """Whether nothing but one adapter, or nothing but the base, is asked."""
        return len(self.adapters) + self.with_base == 1

    @property
    def own_answers(self) -> tuple[str, ...] | None:
        """The answers among which the one adapter chooses; None where it may give any, and where there are several."""
        return next((adapter.answers for adapter in self.adapters.values()), None) if self._alone else None

    def request(
        self,
        ref: AdapterRef = CURRENT,
        *,
        prompt: str | None = None,
        decoding: Mapping | None = None,
        answers: Iterable[str] | None = None,
    ) -> AnswerRequest:
        """Build the request of an adapter, or of the base alone.

        Prompt, decoding and answers are those given here, else those that the adapter remembers, else the defaults. Raises
        `InputError` for answers that this base cannot give.
        """
        adapter = self.adapters.get(ref)
        manifest = adapter.manifest if adapter else {}
        prompt = prompt if prompt is not None else manifest.get("prompt")
        text = self.family.text_encoder(self.processor, self.config, prompt, adapter and adapter.answers)
        given = {name: value for name, value in (decoding or {}).items() if value is not None}
        own = Decoding(**(manifest.get("decoding") or {}))
        how = replace(own, **given)
        allowed = text.constraint(tuple(answers) if answers else None)
        asked_alike = prompt == manifest.get("prompt") and how == own and not answers
        calibration = _calibration(manifest) if asked_alike else None
        return AnswerRequest(text, how, allowed, CURRENT if self._alone else ref, calibration=calibration)

    def question_request(self, ref: AdapterRef = CURRENT, **options) -> AnswerRequest:
        """Build the request for questions, as `request` does, and check it by `check_question`."""
        return self.check_question(ref, self.request(ref, **options))

    def check_question(self, ref: AdapterRef, request: AnswerRequest) -> AnswerRequest:
        """Return the request of an adapter; raise `InputError` where its prompt has no question, but asks for a caption."""
        if ref in self.adapters and "{question}" not in request.text.prompt:
            raise InputError(
                f"adapter {self.adapters[ref].path}: its prompt, {request.text.prompt!r}, has no {{question}}: it writes "
                f"captions, as {named('caption')} asks for; give a prompt with {{question}} to ask it all the same"
            )
        return request

    def check_captions(self) -> None:
        """Raise `InputError` where the base cannot write captions."""
        if self.family.caption_prompt is None:
            raise InputError(f"base model {self.base_model_id}: {self.family.name} cannot write captions")

    def load(
        self,
        examples: Iterable[Example],
        kept: KeptFeatures | None,
        *,
        quantization: str,
        batch_size: int,
    ) -> tuple[LoadedModel, Features, list[tuple[str, str]]]:
        """Load the base with its adapters, and the features of the examples' images.

        Returns also `(label, text)` lines for the start block, which say what features these are.
        """
        self.check_served(quantization)
        images = {example.digest: example.image for example in examples}
        load = partial(
            load_base, self.base_model_id, revision=self.revision, dtype=self.dtype, quantization=quantization,
            answers=self.own_answers,
        )  # fmt: skip
        found = load_with_features(load, images, self.family, self.scopes, kept, batch_size=batch_size)
        self.attach(found[0])
        return found

    def check_served(self, quantization: str) -> None:
        """Raise `InputError`, with every problem found, for adapters that cannot stand beside a base of this `--quantization`,
        or beside each other. One alone is merged into a base that is not quantized."""
        bits = stored_quantization(self.config) or ("none" if quantization == "auto" else quantization)
        if not self.adapters or (self._alone and bits == "none"):
            return
        model = self.family.outline(self.config, answers=self.own_answers)
        adapters = self.adapters.values()
        raise_all([line for one in adapters for line in unserved(one.adapter, model, self.family, bits, self._alone)])

    def attach(self, loaded: LoadedModel, memory_gb: float = MEMORY_GB) -> None:
        """Put the adapters on their loaded base (in place): one alone is merged into its weights, several stay beside it.

        `memory_gb`: how much memory several may take. Raises `InputError` for adapters that can only be loaded alone.
        """
        if self.adapters and self._alone:
            merge_adapter(loaded, *self.adapters.values())
        else:
            add_adapters(loaded, self.adapters, memory_gb)

    def add(self, loaded: LoadedModel, name: str, path: str, revision: str | None = None) -> None:
        """Load one more adapter beside the base (in place). Raises `InputError` where it does not fit, and changes nothing."""
        if not self.with_base:
            (only,) = self.adapters.values()
            raise InputError(
                f"adapter {path}: this model is the one adapter {only.path}, merged into its base; load the base, with "
                "adapters={…}, for several"
            )
        ref = AdapterRef.named(name)
        if ref in self.adapters:
            raise InputError(f"adapter {path}: there is one called {name}; choose another name, or drop that one first")
        found = _find(path, revision, self.base_model_id, self.revision)
        add_adapters(loaded, {ref: found})
        self.adapters[ref] = found

    def check(self, ref: AdapterRef) -> None:
        """Raise `InputError` unless the adapter, or the base alone, can be asked."""
        if ref == BASE and not self.with_base:
            (only,) = self.adapters.values()
            raise InputError(
                f"this model is the one adapter {only.path}; load its base, with adapters={{…}}, to ask both"
            )
        if ref != BASE and ref not in self.adapters:
            there = ", ".join(known.name for known in self.adapters if known != CURRENT) or "none beside the base"
            raise InputError(f"adapter {ref.name}: is not loaded; there is {there}")


def find_model_spec(
    base_model_id: str | None,
    revision: str | None = None,
    adapters: Mapping[AdapterRef, tuple[str, str | None]] | None = None,
    *,
    with_base: bool = False,
    dtype: str = "auto",
) -> ModelSpec:
    """Find a base and adapters of it, `{ref: (path or Hub id, revision)}`; the base given, else the adapters' own.

    Raises `InputError` with every problem found, also for adapters of different bases.
    """
    found: dict[AdapterRef, FoundAdapter] = {}
    problems: list[str] = []
    base, own = base_model_id, None
    for ref, (path, adapter_revision) in (adapters or {}).items():
        adapter = collect_errors(problems, _find, path, adapter_revision, base_model_id, revision)
        if adapter is None:
            continue
        found[ref] = adapter
        base, own = base or adapter.base_model_id, own or adapter
        if not base_model_id and (adapter.base_model_id, adapter.base_model_revision) != (
            own.base_model_id, own.base_model_revision,
        ):  # fmt: skip
            problems.append(
                f"adapter {path}: its base is {adapter.base_model_id}, and that of {own.path} is {own.base_model_id}; "
                "adapters that answer together need one base"
            )
    raise_all(problems)
    base, revision = base or DEFAULT_BASE, own.base_model_revision if own else revision
    config = load_config(base, revision)
    check_dtype(dtype, family_of(config))
    processor = load_processor(base, config, revision)
    return ModelSpec(base, revision, config, processor, found, with_base or not found, dtype)


def _calibration(manifest: Mapping) -> Calibration | None:
    known = manifest.get("calibration")
    return Calibration(known["slope"], known["intercept"]) if known else None


def _find(path: str, revision: str | None, base_model_id: str | None, base_revision: str | None) -> FoundAdapter:
    """Find one adapter, and forget its weights again: those of many adapters would not fit in memory together."""
    found = find_adapter(path, revision, base_model_id, base_revision)
    found.adapter.forget_weights()
    return found


def parse_adapters(given: list[str] | str | None) -> dict[AdapterRef, str]:
    """Read `["PATH"]` as the `CURRENT` adapter, and `["count=A", "default=B"]` as named ones. Raises `InputError`."""
    given = [given] if isinstance(given, str) else given or []
    if len(given) == 1 and ("=" not in given[0] or Path(given[0]).is_dir()):
        return {CURRENT: given[0]}
    named: dict[AdapterRef, str] = {}
    for item in given:
        name, _, path = item.partition("=")
        if not name or not path:
            raise InputError(
                f"--lora_model_path {item}: with several adapters each is NAME=ADAPTER, as in count=runs/count"
            )
        if AdapterRef.named(name) in named:
            raise InputError(f"--lora_model_path: {name} is given twice; keep one")
        named[AdapterRef.named(name)] = path
    return named
