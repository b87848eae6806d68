"""From Python: `load(adapter_or_base)`, then `answer`, `answer_batch` and `caption`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from blip2vqa.adapters.multi import MEMORY_GB
from blip2vqa.adapters.resolve import is_adapter
from blip2vqa.data.examples import Example
from blip2vqa.data.images import BadImage, ImageSource, as_seen, open_image
from blip2vqa.evaluation.tasks import CAPTION
from blip2vqa.features.encode import Pixels, encode_in_memory
from blip2vqa.inference.captioning import parse_styles, style_request
from blip2vqa.inference.generation import Answer, answer_examples
from blip2vqa.inference.model_spec import ONLY, ModelSpec, check_asks, find_model_spec
from blip2vqa.inference.request import AnswerRequest
from blip2vqa.models.loading import LoadedModel, load_base
from blip2vqa.models.text import TextEncoder
from blip2vqa.utils.errors import InputError

Picture = Image.Image | str | Path


@dataclass
class VQAModel:
    """A base, with adapters or without, that answers questions about images and captions them."""

    loaded: LoadedModel
    spec: ModelSpec
    request: AnswerRequest
    """Who answers questions."""
    caption_voice: AnswerRequest
    """Who writes captions, where no style is named."""
    asked: dict = field(default_factory=dict)
    """Prompt and decoding that are not the adapters' own, but as `load` was told."""
    _named: dict[str | None, AnswerRequest] = field(default_factory=dict, repr=False)
    """Who answers under an adapter's name, as far as asked."""

    @property
    def text(self) -> TextEncoder:
        """What turns questions into tokens."""
        return self.request.text

    def answer(self, image: Picture, question: str, adapter: str | None = None) -> str:
        """The answer to one question about one image, a PIL image or a path; `adapter`: by its name, else the model's own."""
        return self.answer_batch([image], [question], adapters=None if adapter is None else [adapter])[0].text

    def answer_batch(
        self,
        images: Sequence[Picture],
        questions: Sequence[str],
        batch_size: int = 16,
        *,
        adapters: Sequence[str | None] | None = None,
    ) -> list[Answer]:
        """Answers, each with `text` and `confidence` (0 to 1), to `questions[i]` about `images[i]`.

        `adapters[i]` answers that question, with its own prompt and decoding, or (None) the base alone; without `adapters` all
        are answered by what was loaded. Each answer is the one that its adapter gives alone, whatever shares its batch. Raises
        `InputError` for a name that is not there.
        """
        if len(images) != len(questions):
            raise ValueError(f"{len(images)} images for {len(questions)} questions; give one image a question")
        if adapters is None:
            check_asks(self.request, self.spec.adapters[ONLY].path if ONLY in self.spec.adapters else None)
            return self._say(images, questions, [self.request] * len(images), batch_size)
        if isinstance(adapters, str) or len(adapters) != len(questions):
            raise ValueError(f"{len(adapters)} adapters for {len(questions)} questions; give one adapter a question")
        requests = {name: self._voice(name) for name in dict.fromkeys(adapters)}
        return self._say(images, questions, [requests[name] for name in adapters], batch_size)

    def add_adapter(self, name: str, path: str | Path, revision: str | None = None) -> None:
        """Load one more adapter beside the base, a folder or a Hub id, under a name for `adapters` and `caption(style=…)`.

        Its weights are read when it is first asked. Raises `InputError` for one that does not fit, and changes nothing then.
        """
        self.spec.add(self.loaded, name, str(path), revision)
        self._named.clear()

    def drop_adapter(self, name: str) -> None:
        """Forget an adapter. Raises `InputError` for a name that is not there."""
        self.spec.drop(self.loaded, name)
        self._named.clear()

    def _voice(self, name: str | None) -> AnswerRequest:
        self.spec.check(name)
        if name not in self._named:
            request = self.spec.request(name, **self.asked)
            self._named[name] = check_asks(request, self.spec.adapters[name].path if name is not None else None)
        return self._named[name]

    def caption(self, image: Picture, style: str | None = None) -> str:
        """One caption: by the adapter loaded under that style's name, else by the style's prompt and decoding alone.

        `style`: detailed, concise, creative, the name of an adapter, or the path of a style's JSON; None: by the prompt that
        `load` was given, else as the one adapter was trained to caption, else as the base does by itself. Raises `InputError`
        for an unknown style, or a base that cannot write captions.
        """
        if style is not None:
            return self.compare_styles(image, [style])[style]
        self._must_write()
        return self._say([image], [""], [self.caption_voice], 1)[0].text

    def compare_styles(
        self, image: Picture, styles: Sequence[str] = ("detailed", "concise", "creative")
    ) -> dict[str, str]:
        """`{style: caption}` of one image, which is looked at once."""
        self._must_write()
        requests = [self._in_style(style) for style in styles]
        said = self._say([image] * len(requests), [""] * len(requests), requests, len(requests))
        return {style: answer.text for style, answer in zip(styles, said, strict=True)}

    def _in_style(self, name: str) -> AnswerRequest:
        adapters = self.spec.adapters
        style = parse_styles([f"{name}={adapters[name].path}" if name in adapters else name])[0]
        only = adapters.get(ONLY)
        if name in adapters or self.spec.with_base or only is None:
            return style_request(self.spec, style)
        if only.manifest.get("style") == style.name:
            return self.caption_voice
        raise InputError(
            f"style {name}: this model is the one adapter {only.path}; load its base, with adapters={{…}}, for other styles"
        )

    def _must_write(self) -> None:
        if self.spec.family.caption_prompt is None:
            raise InputError(f"base model {self.spec.base_model_id}: {self.spec.family.name} cannot write captions")

    def _say(self, images: Sequence[Picture], questions, requests, batch_size: int) -> list[Answer]:
        names = [str(image) if isinstance(image, str | Path) else str(id(image)) for image in images]
        pictures = {name: _open(image) for name, image in dict(zip(names, images, strict=True)).items()}
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
    unless given; a prompt without {question} is one for captions. Raises `InputError` for what is neither, or does not fit.
    """
    name = str(adapter_or_base)
    named = {key: (str(path), None) for key, path in (adapters or {}).items()}
    if base_model_id or is_adapter(name, revision):
        adapters = {ONLY: (name, revision), **named}
        spec = find_model_spec(base_model_id, None, adapters, with_base=bool(named), dtype=dtype)
    else:
        spec = find_model_spec(name, revision, named, with_base=True, dtype=dtype)
    loaded = load_base(
        spec.base_model_id,
        revision=spec.revision,
        dtype=dtype,
        quantization=quantization,
        answers=spec.own_answers,
    )
    spec.put_on(loaded, adapter_memory_gb)
    only = ONLY if ONLY in spec.adapters else None
    decoding = {"num_beams": num_beams, "max_new_tokens": max_new_tokens}
    asked = {"prompt": prompt, "decoding": decoding}
    request = spec.request(only, **asked)
    captions = request
    if only is None or spec.adapters[ONLY].manifest.get("task") != CAPTION.name:
        longest = max_new_tokens or CAPTION.max_new_tokens
        prompt = prompt or spec.family.caption_prompt
        captions = spec.request(only, prompt=prompt, decoding=decoding | {"max_new_tokens": longest})
    return VQAModel(loaded, spec, request, captions, asked)


def _open(image: Picture) -> Image.Image:
    try:
        if isinstance(image, str | Path):
            return open_image(ImageSource(str(image), path=Path(image)))
        return as_seen(image)
    except BadImage as error:
        raise InputError(f"image {image}: {error.reason}") from error
