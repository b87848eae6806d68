"""A base with its adapters, as a run asks questions of it: found and checked before any weight is read, then loaded once."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from blip2vqa.adapters.attach import FoundAdapter, add_adapters, find_adapter, merge_adapter
from blip2vqa.adapters.multi import MEMORY_GB
from blip2vqa.config.common import DEFAULT_BASE, KeptFeatures
from blip2vqa.data.images import ImageSource
from blip2vqa.features.encode import Features, load_with_features
from blip2vqa.inference.request import AS_IT_IS, BASE, AnswerRequest, Decoding
from blip2vqa.models.families import family_of
from blip2vqa.models.family import Family
from blip2vqa.models.loading import LoadedModel, choose_dtype, find_device, load_base, load_config, load_processor
from blip2vqa.utils.errors import InputError, collect_errors, raise_all

ONLY = ""
"""Name of the one adapter that was given without a name."""


@dataclass(frozen=True)
class ModelSpec:
    """One base, and adapters of it by the user's names for them."""

    base_model_id: str
    revision: str | None
    config: object
    processor: object
    adapters: dict[str, FoundAdapter]
    with_base: bool
    """Whether the base alone is asked, too."""

    @property
    def family(self) -> Family:
        return family_of(self.config)

    @property
    def scopes(self) -> tuple[str, ...]:
        """What any of the adapters is put on."""
        return tuple(dict.fromkeys(scope for adapter in self.adapters.values() for scope in adapter.scopes))

    @property
    def _alone(self) -> bool:
        return len(self.adapters) + self.with_base == 1

    @property
    def own_answers(self) -> tuple[str, ...] | None:
        """Of the one adapter there is, the only answers it gives; None: any."""
        return next((adapter.answers for adapter in self.adapters.values()), None) if self._alone else None

    def _inner(self, name: str | None) -> str:
        """What an adapter is called in a request, where some names have a meaning of their own."""
        return f"adapter {name}" if name in self.adapters else BASE

    def request(
        self,
        name: str | None = None,
        *,
        prompt: str | None = None,
        decoding: Mapping | None = None,
        answers: Iterable[str] | None = None,
    ) -> AnswerRequest:
        """Who answers under an adapter, or (None) as the base alone: as asked for, else as it remembers, else by default.

        Raises `InputError` for answers that this base cannot give.
        """
        adapter = self.adapters.get(name)
        manifest = adapter.manifest if adapter else {}
        prompt = prompt if prompt is not None else manifest.get("prompt")
        text = self.family.text_encoder(self.processor, self.config, prompt, adapter and adapter.answers)
        allowed = text.constraint(tuple(answers) if answers else None)
        return AnswerRequest(
            text, decoding_of(manifest, decoding or {}), allowed, AS_IT_IS if self._alone else self._inner(name)
        )

    def load(
        self,
        images: Mapping[str, ImageSource],
        kept: KeptFeatures | None,
        *,
        dtype: str,
        quantization: str,
        batch_size: int,
        progress: bool = True,
    ) -> tuple[LoadedModel, Features, list[tuple[str, str]]]:
        """The loaded base with its adapters, features of the images, and `(label, text)` lines that say which."""
        load = partial(
            load_base, self.base_model_id, revision=self.revision, dtype=dtype, quantization=quantization,
            answers=self.own_answers,
        )  # fmt: skip
        loaded, features, lines = load_with_features(
            load, images, self.family, self.scopes, kept, batch_size=batch_size, progress=progress
        )
        self.put_on(loaded)
        return loaded, features, lines

    def put_on(self, loaded: LoadedModel, memory_gb: float = MEMORY_GB) -> None:
        """Put the adapters on their loaded base (in place): one alone into its weights, several side by side.

        `memory_gb`: what several may take of memory. Raises `InputError` for those that can only be loaded alone.
        """
        if self.adapters and self._alone:
            merge_adapter(loaded, *self.adapters.values())
        else:
            add_adapters(loaded, {self._inner(name): adapter for name, adapter in self.adapters.items()}, memory_gb)

    def add(self, loaded: LoadedModel, name: str, path: str, revision: str | None = None) -> None:
        """One more adapter beside the base (in place). Raises `InputError` where it does not fit, and changes nothing then."""
        if not self.with_base:
            (only,) = self.adapters.values()
            raise InputError(
                f"adapter {path}: this model is the one adapter {only.path}, merged into its base; load the base, with "
                "adapters={…}, for several"
            )
        if name in self.adapters:
            raise InputError(f"adapter {path}: there is one called {name}; choose another name, or drop that one first")
        self.adapters[name] = _find(path, revision, self.base_model_id, self.revision)
        try:
            add_adapters(loaded, {self._inner(name): self.adapters[name]})
        except InputError:
            del self.adapters[name]
            raise

    def drop(self, loaded: LoadedModel, name: str) -> None:
        """Take an adapter away from the base (in place). Raises `InputError` for an unknown name."""
        self.check(name)
        loaded.adapters.drop(self._inner(name))
        del self.adapters[name]

    def check(self, name: str | None) -> None:
        """Raise `InputError` unless the adapter, or (None) the base alone, can be asked."""
        if name is None and not self.with_base:
            (only,) = self.adapters.values()
            raise InputError(
                f"this model is the one adapter {only.path}; load its base, with adapters={{…}}, to ask both"
            )
        if name is not None and name not in self.adapters:
            there = ", ".join(filter(None, self.adapters)) or "none beside the base"
            raise InputError(f"adapter {name}: is not loaded; there is {there}")


def find_model_spec(
    base_model_id: str | None,
    revision: str | None = None,
    adapters: Mapping[str, tuple[str, str | None]] | None = None,
    *,
    with_base: bool = False,
    dtype: str = "auto",
) -> ModelSpec:
    """Find a base and adapters of it, `{name: (path or Hub id, revision)}`; the base given, else the adapters' own.

    Raises `InputError` with every problem found, also for adapters of different bases.
    """
    found: dict[str, FoundAdapter] = {}
    problems: list[str] = []
    base, own = base_model_id, None
    for name, (path, adapter_revision) in (adapters or {}).items():
        adapter = collect_errors(problems, _find, path, adapter_revision, base_model_id, revision)
        if adapter is None:
            continue
        found[name] = adapter
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
    choose_dtype(dtype, family_of(config), find_device())
    return ModelSpec(base, revision, config, load_processor(base, config, revision), found, with_base or not found)


def _find(path: str, revision: str | None, base_model_id: str | None, base_revision: str | None) -> FoundAdapter:
    """`find_adapter`, without what it has read of the weights: those of many adapters would not fit in memory together."""
    found = find_adapter(path, revision, base_model_id, base_revision)
    found.adapter.forget_weights()
    return found


def decoding_of(manifest: dict, asked: Mapping) -> Decoding:
    """What was asked for, else what the adapter remembers, else the defaults."""
    known = Decoding(**(manifest.get("decoding") or {}))
    return replace(known, **{name: value for name, value in asked.items() if value is not None})


def check_asks(request: AnswerRequest, adapter: str | None) -> AnswerRequest:
    """Raise `InputError` for a request whose adapter remembers a prompt without a question, as one for captions does."""
    if adapter and "{question}" not in request.text.prompt:
        raise InputError(
            f"adapter {adapter}: its prompt, {request.text.prompt!r}, has no {{question}}: it writes captions, as caption.py "
            "asks for; give a prompt with {question} to ask it all the same"
        )
    return request


def parse_adapters(given: list[str] | str | None) -> dict[str, str]:
    """`["PATH"]` → `{"": PATH}`; `["count=A", "default=B"]` → `{"count": A, "default": B}`. Raises `InputError`."""
    given = [given] if isinstance(given, str) else given or []
    if len(given) == 1 and ("=" not in given[0] or Path(given[0]).is_dir()):
        return {ONLY: given[0]}
    named: dict[str, str] = {}
    for item in given:
        name, _, path = item.partition("=")
        if not name or not path:
            raise InputError(
                f"--lora_model_path {item}: with several adapters each is NAME=ADAPTER, as in count=runs/count"
            )
        if name in named:
            raise InputError(f"--lora_model_path: {name} is given twice; keep one")
        named[name] = path
    return named
