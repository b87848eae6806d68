"""From Python: `load(adapter_or_base)`, then `answer` and `answer_batch`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from blip2vqa.collate import TextEncoder
from blip2vqa.data.images import BadImage, ImageSource, as_seen, open_image
from blip2vqa.errors import InputError
from blip2vqa.families import DEFAULT_PROMPT
from blip2vqa.features import pixel_values
from blip2vqa.generation import Answer, Decoding, answer_batch
from blip2vqa.loading import LoadedModel, add_adapter, find_adapter, load_base


@dataclass
class VQAModel:
    """A base, with an adapter or without, that answers questions about images."""

    loaded: LoadedModel
    text: TextEncoder
    decoding: Decoding

    def answer(self, image: Image.Image | str | Path, question: str) -> str:
        """The answer to one question about one image, a PIL image or a path."""
        return self.answer_batch([image], [question])[0].text

    def answer_batch(
        self, images: Sequence[Image.Image | str | Path], questions: Sequence[str], batch_size: int = 16
    ) -> list[Answer]:
        """Answers, each with `text` and `confidence` (0 to 1), to `questions[i]` about `images[i]`."""
        if len(images) != len(questions):
            raise ValueError(f"{len(images)} images for {len(questions)} questions; give one image a question")
        answers: list[Answer] = []
        for start in range(0, len(images), batch_size):
            pictures = [_open(image) for image in images[start : start + batch_size]]
            pixels = pixel_values(pictures, self.loaded.processor.image_processor)
            with torch.inference_mode():
                query_output = self.loaded.base.encode(pixels.to(self.loaded.device, self.loaded.dtype))
            rows = questions[start : start + batch_size]
            answers += answer_batch(self.loaded, self.text, query_output, rows, self.decoding)
        return answers


def load(
    adapter_or_base: str | Path,
    *,
    base_model_id: str | None = None,
    quantization: str = "auto",
    dtype: str = "auto",
    prompt: str | None = None,
    num_beams: int | None = None,
    max_new_tokens: int | None = None,
    revision: str | None = None,
) -> VQAModel:
    """Load an adapter with its base, or a base alone: a local folder or a Hub id.

    Prompt and decoding are the adapter's own unless given. Raises `InputError` for what is neither, or does not fit.
    """
    name = str(adapter_or_base)
    adapter = None
    if base_model_id or is_adapter(name, revision):
        adapter = find_adapter(name, revision, base_model_id)
    loaded = load_base(
        adapter.base_model_id if adapter else name,
        revision=adapter.base_model_revision if adapter else revision,
        dtype=dtype,
        quantization=quantization,
    )
    if adapter:
        add_adapter(loaded, adapter)
    manifest = adapter.manifest if adapter else {}
    text = TextEncoder.of(loaded.processor, loaded.base.config, prompt or manifest.get("prompt", DEFAULT_PROMPT))
    return VQAModel(loaded, text, decoding_of(manifest, num_beams, max_new_tokens))


def decoding_of(manifest: dict, num_beams: int | None = None, max_new_tokens: int | None = None) -> Decoding:
    """What was asked for, else what the adapter remembers, else the defaults."""
    known = {**vars(Decoding()), **manifest.get("decoding", {})}
    asked = {"num_beams": num_beams, "max_new_tokens": max_new_tokens}
    return Decoding(**known | {name: value for name, value in asked.items() if value is not None})


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


def _open(image: Image.Image | str | Path) -> Image.Image:
    try:
        if isinstance(image, str | Path):
            return open_image(ImageSource(str(image), path=Path(image)))
        return as_seen(image)
    except BadImage as error:
        raise InputError(f"image {image}: {error.reason}") from error
