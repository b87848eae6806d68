"""From Python: `load(adapter_or_base)`, then `answer`, `answer_batch` and `caption`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from blip2vqa.captioning import Style, parse_styles, voice_of
from blip2vqa.collate import TextEncoder
from blip2vqa.data.examples import Example
from blip2vqa.data.images import BadImage, ImageSource, as_seen, open_image
from blip2vqa.errors import InputError
from blip2vqa.features import Features, Pixels
from blip2vqa.generation import Answer, answer_by_batch
from blip2vqa.loading import LoadedModel, load_base
from blip2vqa.sources import NO_ADAPTER, Source, check_asks, find_source
from blip2vqa.tasks import CAPTION
from blip2vqa.voices import Voice

Picture = Image.Image | str | Path


@dataclass(frozen=True)
class _Seen:
    """What the frozen stage made of pictures, by name."""

    name: str
    values: dict[str, torch.Tensor]

    def of(self, digests: Iterable[str]) -> torch.Tensor:
        return torch.stack([self.values[digest] for digest in digests])


@dataclass
class VQAModel:
    """A base, with adapters or without, that answers questions about images and captions them."""

    loaded: LoadedModel
    source: Source
    voice: Voice
    """Who answers a question, where no style is named."""

    @property
    def text(self) -> TextEncoder:
        """What turns questions into tokens."""
        return self.voice.text

    def answer(self, image: Picture, question: str) -> str:
        """The answer to one question about one image, a PIL image or a path."""
        return self.answer_batch([image], [question])[0].text

    def answer_batch(self, images: Sequence[Picture], questions: Sequence[str], batch_size: int = 16) -> list[Answer]:
        """Answers, each with `text` and `confidence` (0 to 1), to `questions[i]` about `images[i]`."""
        check_asks(self.voice, self.source.adapters[NO_ADAPTER].path if self.task else None)
        if len(images) != len(questions):
            raise ValueError(f"{len(images)} images for {len(questions)} questions; give one image a question")
        return self._say(images, questions, [self.voice] * len(images), batch_size)

    def caption(self, image: Picture, style: str | None = None) -> str:
        """One caption: by the adapter loaded under that style's name, else by the style's prompt and decoding alone.

        `style`: detailed, concise, creative, the name of an adapter, or the path of a style's JSON; None: as the one adapter
        was trained to caption, else as the base does by itself. Raises `InputError` for an unknown style, or a base that
        cannot write captions.
        """
        if style is not None:
            return self.compare_styles(image, [style])[style]
        self._must_write()
        voice = self.voice
        if self.task != "caption":
            prompt = self.source.family.caption_prompt
            voice = self.source.voice(prompt=prompt, decoding={"max_new_tokens": CAPTION.max_new_tokens})
        return self._say([image], [""], [voice], 1)[0].text

    def compare_styles(
        self, image: Picture, styles: Sequence[str] = ("detailed", "concise", "creative")
    ) -> dict[str, str]:
        """`{style: caption}` of one image, which is looked at once."""
        self._must_write()
        adapters = self.source.adapters
        found = [Style(name, name, {}) if name in adapters else parse_styles([name])[0] for name in styles]
        voices = [voice_of(self.source, style) for style in found]
        said = self._say([image] * len(voices), [""] * len(voices), voices, len(voices))
        return {style: answer.text for style, answer in zip(styles, said, strict=True)}

    @property
    def task(self) -> str | None:
        """What the one adapter there is was trained for; None without it."""
        return self.source.adapters[NO_ADAPTER].manifest.get("task") if NO_ADAPTER in self.source.adapters else None

    def _must_write(self) -> None:
        if self.source.family.caption_prompt is None:
            raise InputError(f"base model {self.source.base_model_id}: {self.source.family.name} cannot write captions")

    def _say(self, images: Sequence[Picture], questions, voices, batch_size: int) -> list[Answer]:
        names = [str(image) if isinstance(image, str | Path) else str(id(image)) for image in images]
        pictures = {name: _open(image) for name, image in dict(zip(names, images, strict=True)).items()}
        examples = [
            Example(row, None, name, name, question, (), "", {})
            for row, (name, question) in enumerate(zip(names, questions, strict=True))
        ]
        answers: list[Answer] = [None] * len(examples)
        features = _look(self.loaded, pictures, self.source.scopes, batch_size)
        for batch in answer_by_batch(self.loaded, features, examples, voices, batch_size=batch_size):
            for index, answer in batch:
                answers[index] = answer
        return answers


def load(
    adapter_or_base: str | Path,
    *,
    adapters: Mapping[str, str | Path] | None = None,
    base_model_id: str | None = None,
    quantization: str = "auto",
    dtype: str = "auto",
    prompt: str | None = None,
    num_beams: int | None = None,
    max_new_tokens: int | None = None,
    revision: str | None = None,
) -> VQAModel:
    """Load an adapter with its base, or a base alone: a local folder or a Hub id.

    `adapters`: further adapters of the base by name, for `caption(style=NAME)`. Prompt and decoding are the adapter's own
    unless given. Raises `InputError` for what is neither, or does not fit.
    """
    name = str(adapter_or_base)
    asked = {key: (str(path), None) for key, path in (adapters or {}).items()}
    if base_model_id or is_adapter(name, revision):
        source = find_source(base_model_id, None, {NO_ADAPTER: (name, revision), **asked}, dtype=dtype)
    else:
        source = find_source(name, revision, asked, with_base=True, dtype=dtype)
    answers = source.own_answers
    loaded = load_base(
        source.base_model_id, revision=source.revision, dtype=dtype, quantization=quantization, answers=answers
    )
    source.put_on(loaded)
    decoding = {"num_beams": num_beams, "max_new_tokens": max_new_tokens}
    return VQAModel(loaded, source, source.voice(prompt=prompt, decoding=decoding))


def is_adapter(name: str, revision: str | None = None) -> bool:
    """Whether a local folder or a Hub id holds a PEFT adapter."""
    if Path(name).is_dir():
        return (Path(name) / "adapter_config.json").is_file()
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

    try:
        hf_hub_download(name, "adapter_config.json", revision=revision)
    except (EntryNotFoundError, LocalEntryNotFoundError, HFValidationError, OSError):
        return False
    return True


@torch.inference_mode()
def _look(loaded: LoadedModel, pictures: Mapping[str, Image.Image], scopes: Iterable[str], batch_size: int) -> Features:
    """Features of opened pictures: the frozen towers look at each once, whoever is asked about it."""
    pixels = Pixels(pictures, loaded.processor.image_processor)
    stage, _ = loaded.family.last_frozen_stage(scopes)
    if stage == "pixel_values":
        return pixels
    look, names, values = loaded.base.see if stage == "image_embeds" else loaded.base.encode, list(pictures), {}
    for start in range(0, len(names), batch_size):
        batch = names[start : start + batch_size]
        seen = look(pixels.of(batch).to(loaded.device, loaded.dtype))
        values |= zip(batch, seen.cpu(), strict=True)
    return _Seen(stage, values)


def _open(image: Picture) -> Image.Image:
    try:
        if isinstance(image, str | Path):
            return open_image(ImageSource(str(image), path=Path(image)))
        return as_seen(image)
    except BadImage as error:
        raise InputError(f"image {image}: {error.reason}") from error
