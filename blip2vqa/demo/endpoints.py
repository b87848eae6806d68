"""What the page and other programs may ask for: plain values in, JSON out, and what is wrong in its field `error`.

The batched ones take lists, one item for each user who waits, and return lists; what is wrong with one item stays with it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from blip2vqa.api import VQAModel
from blip2vqa.demo.answers import BASE, Asked, answer_all, loaded_names, ref_of
from blip2vqa.demo.cards import describe_adapters, short_name
from blip2vqa.demo.chat import MOST_TURNS, AskedInChat, with_history
from blip2vqa.demo.pictures import open_upload
from blip2vqa.demo.starting import name_of
from blip2vqa.utils.errors import InputError

MOST_MODELS = 16
"""Models that one question may be put to, so that a batch stays bounded."""


class Endpoints:
    """The functions behind the page, over one loaded model."""

    def __init__(self, model: VQAModel):
        self.model = model

    def answer(self, pictures: Sequence, questions: Sequence, models: Sequence) -> tuple[list[dict]]:
        """Answer each question about its picture by each of its models, in common batches.

        Gives `{"answers": [{adapter, answer, confidence, probability_right, without_picture, grey_picture}], "error": null}`.
        """

        def prepare(picture, question, names) -> Asked:
            return Asked(open_upload(picture), question, _names(names))

        said = self._ask(_prepared(prepare, pictures, questions, models))
        return (
            [
                _failed(one, answers=[]) if isinstance(one, InputError) else {"answers": one, "error": None}
                for one in said
            ],
        )

    def chat(self, pictures: Sequence, questions: Sequence, models: Sequence, histories: Sequence) -> tuple[list[dict]]:
        """Answer each question by one model, in common batches; `histories`: lists of [question, answer].

        Gives `{"answer", "confidence", "probability_right", "history", "turns_in_prompt", "error": null}`.
        """

        def prepare(picture, question, name, history) -> AskedInChat:
            (name,) = _names([name or BASE])
            turns = _turns(history)
            alone = AskedInChat(open_upload(picture), question, (name,), False, turns)
            alone.check(self.model)
            text, kept = with_history(self.model, name, question, turns)
            return replace(alone, question=text, in_prompt=kept)

        found = []
        asked = _prepared(prepare, pictures, questions, models, histories)
        for question, history, one, said in zip(questions, histories, asked, self._ask(asked), strict=True):
            if isinstance(said, InputError):
                found.append(_failed(said, answer=None, history=history or []))
                continue
            sure = {name: said[0][name] for name in ("answer", "confidence", "probability_right")}
            if one.in_prompt:  # single questions were calibrated
                sure["probability_right"] = None
            turns = [*one.turns, [question, said[0]["answer"]]][-MOST_TURNS:]
            found.append({**sure, "history": turns, "turns_in_prompt": one.in_prompt, "error": None})
        return (found,)

    def caption(self, picture: Any, styles: Any) -> dict:
        """Caption a picture in styles or by adapters: `{"captions": {style: text}, "error": null}`."""

        def run() -> dict:
            names = _names(styles)
            if not names:
                raise InputError("No style: choose at least one")
            return {"captions": self.model.compare_styles(open_upload(picture), names)}

        return _answered(run, captions={})

    def adapters(self) -> dict:
        """Describe the base and the adapters beside it."""
        base, family = short_name(self.model.spec.base_model_id), self.model.spec.family.name
        return {"base": base, "family": family, "adapters": describe_adapters(self.model)}

    def add_adapter(self, adapter: Any, name: Any = None) -> dict:
        """Load an adapter beside the base: `{"models": [names], "error": null}`."""

        def run() -> dict:
            (path,) = _names([adapter])
            (called,) = _names([name or name_of(path)])
            if called == BASE:
                raise InputError(f"adapter {path}: {BASE} is the base's own name here; choose another")
            self.model.add_adapter(called, path)
            return {"models": loaded_names(self.model)}

        return _answered(run, models=loaded_names(self.model))

    def drop_adapter(self, name: Any) -> dict:
        """Drop an adapter: `{"models": [names], "error": null}`."""

        def run() -> dict:
            (known,) = _names([name])
            if known == BASE:
                raise InputError(f"{BASE}: is the base alone, which stays; name an adapter")
            self.model.drop_adapter(known)
            return {"models": loaded_names(self.model)}

        return _answered(run, models=loaded_names(self.model))

    def check_adapter(self, adapter: Any, any_path: bool = True) -> dict:
        """Check whether an adapter fits the base, without running it: `{"verdict", "reasons", …, "error": null}`.

        `any_path`: whether it may be one that is not loaded: a folder, a name in the store or a Hub id.
        """

        def run() -> dict:
            from blip2vqa.exchange.checking import check

            (name,) = _names([adapter])
            loaded = self.model.spec.adapters.get(ref_of(name))
            if loaded is None and not any_path:
                self.model.spec.check(ref_of(name))
            spec = self.model.spec
            found = check(loaded.path if loaded else name, spec.base_model_id, spec.revision, quick=True)
            return {**found, "adapter": name, "base": short_name(found["base"])}

        return _answered(run, verdict=None, reasons=[])

    def _ask(self, asked: Sequence[Asked | InputError]) -> list[list[dict] | InputError]:
        good = [one for one in asked if isinstance(one, Asked)]
        said = iter(answer_all(self.model, good) if good else [])
        return [next(said) if isinstance(one, Asked) else one for one in asked]


def _prepared(prepare: Callable[..., Asked], *items: Sequence) -> list[Asked | InputError]:
    found: list[Asked | InputError] = []
    for one in zip(*items, strict=True):
        try:
            found.append(prepare(*one))
        except InputError as error:
            found.append(error)
    return found


def _names(given: Any) -> tuple[str, ...]:
    """Read names that a request brings. Raises `InputError` for anything but a few texts."""
    if not isinstance(given, list):
        raise InputError('No list of names: give one, such as ["base"]')
    if not all(isinstance(name, str) and name.strip() for name in given):
        raise InputError("No name: give one, as text")
    if len(given) > MOST_MODELS:
        raise InputError(f"{len(given)} names: more than {MOST_MODELS} at once; choose fewer")
    return tuple(dict.fromkeys(name.strip() for name in given))


def _turns(given: Any) -> list[list[str]]:
    """Read a conversation that a request brings, the last turns of it. Raises `InputError` for what is none."""
    turns = given or []
    if not isinstance(turns, list) or not all(
        isinstance(turn, list) and len(turn) == 2 and all(isinstance(text, str) for text in turn) for turn in turns
    ):
        raise InputError("history: is no list of [question, answer]")
    return turns[-MOST_TURNS:]


def _failed(error: InputError, **empty: Any) -> dict:
    return {**empty, "error": "; ".join(error.problems)}


def _answered(run: Callable[[], Mapping], **empty: Any) -> dict:
    """Run one request and add its field `error`; `empty` is what stands beside an error."""
    try:
        return {**run(), "error": None}
    except InputError as error:
        return _failed(error, **empty)
