"""The Python interface: `load(adapter_or_base)`, then `answer`, `answer_batch` and `caption`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from blip2vqa.adapters.multi import MEMORY_GB
from blip2vqa.adapters.ref import BASE, CURRENT, AdapterRef
from blip2vqa.adapters.resolve import is_adapter
from blip2vqa.data.examples import Example
from blip2vqa.data.images import BadImage, ImageSource, as_seen, open_image
from blip2vqa.evaluation.tasks import CAPTION
from blip2vqa.features.encode import Pixels, encode_in_memory
from blip2vqa.inference.captioning import parse_styles, style_name, style_request, warn_of_questions
from blip2vqa.inference.generation import Answer, answer_examples
from blip2vqa.inference.model_spec import ModelSpec, find_model_spec
from blip2vqa.inference.request import AnswerRequest
from blip2vqa.inference.without_image import answer_without_image
from blip2vqa.models.loading import LoadedModel, load_base
from blip2vqa.models.text import TextEncoder
from blip2vqa.utils.errors import InputError, raise_all
from blip2vqa.utils.terminal import half_pair

Picture = Image.Image | str | Path


@dataclass
class VQAModel:
    """A base, with adapters or without, that answers questions about images and captions them."""

    loaded: LoadedModel
    spec: ModelSpec
    request: AnswerRequest
    """How questions are asked where no adapter is named."""
    caption_request: AnswerRequest
    """How captions are asked for where no style is named."""
    options: dict = field(default_factory=dict)
    """Prompt and decoding that `load` was given; they replace those that the adapters remember."""
    _requests: dict[AdapterRef, AnswerRequest] = field(default_factory=dict, repr=False)
    """Requests of adapters by name, and of the base alone; each is built when it is first needed."""

    @property
    def text(self) -> TextEncoder:
        """The encoder that turns questions into tokens."""
        return self.request.text

    def answer(self, image: Picture, question: str, adapter: str | None = None) -> str:
        """Answer one question about one image, a PIL image or a path; `adapter` is the name of the one that answers."""
        return self.answer_batch([image], [question], adapters=None if adapter is None else [adapter])[0].text

    def answer_batch(
        self,
        images: Sequence[Picture | None],
        questions: Sequence[str],
        batch_size: int = 16,
        *,
        adapters: Sequence[str | None] | None = None,
    ) -> list[Answer]:
        """Answer `questions[i]` about `images[i]`; each answer has `text` and `confidence` (0 to 1).

        Where an image is None, the language model is given the prompt alone; BLIP and ViLT cannot do without a picture.
        `adapters[i]` names the adapter that answers that question, with its own prompt and decoding; None stands for the base
        alone. Without `adapters`, the model answers all as it was loaded. An adapter gives the same answer whatever other
        adapters share its batch. Raises `InputError` for a name that is not loaded, and for an empty question.
        """
        if len(images) != len(questions):
            raise ValueError(f"{len(images)} images for {len(questions)} questions; give one image a question")
        if adapters is None:
            self.spec.check_question(CURRENT, self.request)
            return self._ask(images, questions, [self.request] * len(images), batch_size)
        if isinstance(adapters, str) or len(adapters) != len(questions):
            raise ValueError(f"{len(adapters)} adapters for {len(questions)} questions; give one adapter a question")
        requests = {name: self._request_of(_ref(name)) for name in dict.fromkeys(adapters)}
        return self._ask(images, questions, [requests[name] for name in adapters], batch_size)

    def _ask(
        self, images: Sequence[Picture | None], questions: Sequence[str], requests, batch_size: int
    ) -> list[Answer]:
        """Answer questions, none of which may be too long, or empty where the prompt has a place for it."""
        # One question needs no number, however many are asked it.
        several = any(question != questions[0] for question in questions)
        labels = [f"question {number}" if several else "question" for number in range(len(questions))]
        empty = [
            f"{labels[number]}: is {question!r}; ask something, or `caption` the picture"
            for number, (question, request) in enumerate(zip(questions, requests, strict=True))
            if not isinstance(question, str)
            or half_pair(question)
            or (not question.strip() and "{question}" in request.text.prompt)
        ]
        raise_all([*dict.fromkeys(empty)][:10])
        asked = [Example(number, None, "", "", question, (), "", {}) for number, question in enumerate(questions)]
        for request in {id(request): request for request in requests}.values():
            own = [example for example, other in zip(asked, requests, strict=True) if other is request]
            too_long = request.text.problems_by_row(own, request.decoding.max_new_tokens)
            raise_all([*dict.fromkeys(f"{labels[number]}: {reason}" for number, reason in too_long)][:10])
        blind = [row for row, image in enumerate(images) if image is None]
        if not blind:
            return self._answer(images, questions, requests, batch_size)
        seen = [row for row, image in enumerate(images) if image is not None]
        texts, how = ([[values[row] for row in rows] for rows in (blind, seen)] for values in (questions, requests))
        said = dict(zip(blind, answer_without_image(self.loaded, texts[0], how[0], batch_size), strict=True))
        if seen:
            said |= zip(seen, self._answer([images[row] for row in seen], texts[1], how[1], batch_size), strict=True)
        return [said[row] for row in range(len(images))]

    def add_adapter(self, name: str, path: str | Path, revision: str | None = None) -> None:
        """Load one more adapter beside the base, a folder or a Hub id, under a name for `adapters` and `caption(style=…)`.

        Its weights are read when it is first asked. Raises `InputError` for one that does not fit, and changes nothing then.
        """
        self.spec.add(self.loaded, name, str(path), revision)

    def drop_adapter(self, name: str) -> None:
        """Forget an adapter. Raises `InputError` for a name that is not there."""
        ref = _ref(name)
        self.spec.check(ref)
        self.loaded.adapters.drop(ref)
        del self.spec.adapters[ref]
        self._requests.pop(ref, None)

    def _request_of(self, ref: AdapterRef) -> AnswerRequest:
        self.spec.check(ref)
        if ref not in self._requests:
            self._requests[ref] = self.spec.question_request(ref, **self.options)
        return self._requests[ref]

    def caption(self, image: Picture, style: str | None = None) -> str:
        """Caption one image: by the adapter loaded under the style's name, else by the style's prompt and decoding alone.

        `style` is detailed, concise, creative, the name of an adapter, or the path of a style's file. Without one, the prompt
        that `load` was given decides, else the adapter as it was trained to caption, else the base's own prompt. Raises
        `InputError` for an unknown style, or a base that cannot write captions.
        """
        if style is not None:
            return self.compare_styles(image, [style])[style]
        self.spec.check_captions()
        if only := self.spec.adapters.get(CURRENT):
            warn_of_questions(only)
        return self._answer([image], [""], [self.caption_request], 1)[0].text

    def compare_styles(
        self, image: Picture, styles: Sequence[str] = ("detailed", "concise", "creative")
    ) -> dict[str, str]:
        """Caption one image in several styles, `{style: caption}`; the image is encoded once."""
        self.spec.check_captions()
        requests = [self._request_in_style(style) for style in styles]
        said = self._answer([image] * len(requests), [""] * len(requests), requests, len(requests))
        return {style: answer.text for style, answer in zip(styles, said, strict=True)}

    def _request_in_style(self, name: str) -> AnswerRequest:
        adapters = self.spec.adapters
        own = adapters.get(AdapterRef.named(style_name(name)))
        (style,) = parse_styles([f"{name}={own.path}" if own else name])
        only = adapters.get(CURRENT)
        if own or self.spec.with_base or only is None:
            return style_request(self.spec, style)
        if only.manifest.get("style") == style.name:
            return self.caption_request
        raise InputError(
            f"style {name}: this model is the one adapter {only.path}; load its base, with adapters={{…}}, for other styles"
        )

    def _answer(self, images: Sequence[Picture], questions, requests, batch_size: int) -> list[Answer]:
        names = [str(image) if isinstance(image, str | Path) else str(id(image)) for image in images]
        pictures = {name: open_picture(image) for name, image in dict(zip(names, images, strict=True)).items()}
        examples = [
            Example(row, None, name, name, question, (), "", {})
            for row, (name, question) in enumerate(zip(names, questions, strict=True))
        ]
        pixels = Pixels(pictures, self.loaded.processor.image_processor)
        features = encode_in_memory(self.loaded, pixels, self.spec.scopes, batch_size)
        return answer_examples(self.loaded, features, examples, requests, batch_size=batch_size)


def load(
    adapter_or_base: str | Path,
    *,
    adapters: Mapping[str, str | Path] | None = None,
    adapter_memory_gb: float = MEMORY_GB,
    base_model_id: str | None = None,
    quantization: str = "auto",
    dtype: str = "auto",
    prompt: str | None = None,
    num_beams: int | None = None,
    max_new_tokens: int | None = None,
    revision: str | None = None,
) -> VQAModel:
    """Load an adapter with its base, or a base alone: a local folder or a Hub id.

    `adapters`: further adapters of the base by name, for `answer_batch(…, adapters=[NAME, …])` and `caption(style=NAME)`; the
    least recently used leave memory where they take more than `adapter_memory_gb`. Prompt and decoding are the adapter's own
    unless given; a prompt without {question} is one for captions. Raises `InputError` for a path or id that holds neither an
    adapter nor a base, and for an adapter that does not fit its base.
    """
    name = str(adapter_or_base)
    named = {AdapterRef.named(key): (str(path), None) for key, path in (adapters or {}).items()}
    if base_model_id or is_adapter(name, revision):
        found = {CURRENT: (name, revision), **named}
        spec = find_model_spec(base_model_id, None, found, with_base=bool(named), dtype=dtype)
    else:
        spec = find_model_spec(name, revision, named, with_base=True, dtype=dtype)
    spec.check_served(quantization)
    loaded = load_base(
        spec.base_model_id,
        revision=spec.revision,
        dtype=dtype,
        quantization=quantization,
        answers=spec.own_answers,
    )
    spec.attach(loaded, adapter_memory_gb)
    decoding = {"num_beams": num_beams, "max_new_tokens": max_new_tokens}
    options = {"prompt": prompt, "decoding": decoding}
    request = captions = spec.request(**options)
    if CURRENT not in spec.adapters or spec.adapters[CURRENT].manifest.get("task") != CAPTION.name:
        longest = max_new_tokens or CAPTION.max_new_tokens
        prompt = prompt or spec.family.caption_prompt
        captions = spec.request(prompt=prompt, decoding=decoding | {"max_new_tokens": longest})
    return VQAModel(loaded, spec, request, captions, options)


def _ref(name: str | None) -> AdapterRef:
    """Refer to an adapter as `answer_batch` is told: None is the base alone, "" the adapter that was loaded without a name."""
    return BASE if name is None else AdapterRef.named(name) if name else CURRENT


def open_picture(image: Picture) -> Image.Image:
    """Open a picture as the tables' pictures are opened. Raises `InputError` for a file that is none."""
    try:
        if isinstance(image, str | Path):
            return open_image(ImageSource(str(image), path=Path(image)))
        return as_seen(image)
    except BadImage as error:
        raise InputError(f"image {image}: {error.reason}") from error
