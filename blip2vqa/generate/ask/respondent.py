"""Let a base of this package, or an adapter on it, respond to texts about pictures; what it once said is kept in the ledger.

Imports torch and the models: import it where a model is asked, inside a function.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

from blip2vqa.adapters.ref import CURRENT
from blip2vqa.adapters.resolve import is_adapter
from blip2vqa.config.generate import WriterArguments
from blip2vqa.data.examples import Example
from blip2vqa.features.encode import Pixels, encode_in_memory
from blip2vqa.generate.ledger import Ledger
from blip2vqa.generate.rows import Item
from blip2vqa.inference.generation import answer_examples
from blip2vqa.inference.model_spec import ModelSpec, find_model_spec
from blip2vqa.inference.request import AnswerRequest
from blip2vqa.models.loading import remembered
from blip2vqa.utils.errors import InputError
from blip2vqa.utils.memory import free_memory
from blip2vqa.utils.progress import show_progress

logger = logging.getLogger(__name__)

PICTURES_TOGETHER = 64
"""Pictures between two writes to the ledger, which a killed run computes again at most."""


@dataclass(frozen=True)
class Respondent:
    """A base, or an adapter on its base, found and checked; its weights are not read yet."""

    spec: ModelSpec
    request: AnswerRequest
    args: WriterArguments
    """Of which the precision and the batch size count."""

    @property
    def name(self) -> str:
        """Name for the rows: a Hub id or a name in the store; of a local folder, its last part."""
        adapter = self.spec.adapters.get(CURRENT)
        called = adapter.path if adapter else self.spec.base_model_id
        return Path(called).resolve().name if Path(called).exists() else called

    def key(self, item: Item, text: str) -> str:
        """Hash all that decides the response to `text` about the picture: SHA-256, hexadecimal."""
        return hashlib.sha256(json.dumps([self._identity, item.digest, text]).encode()).hexdigest()

    @cached_property
    def _identity(self) -> list:
        base, adapter = self.spec.base_model_id, self.spec.adapters.get(CURRENT)
        if Path(base).is_dir():
            # Files may be replaced by others; to hash them would take as long as to load them.
            stats = {path.name: path.stat() for path in sorted(Path(base).iterdir()) if path.is_file()}
            version = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()]
        else:
            version = getattr(self.spec.config, "_commit_hash", None) or self.spec.revision
        own = None
        if adapter:
            own = [adapter.digest, adapter.answers]
            adapter.adapter.forget_weights()
        prompt, decoding = self.request.text.prompt, asdict(self.request.decoding)
        return [remembered(base), version, own, prompt, decoding, self.args.dtype, self.args.quantization]


def find_spec(args: WriterArguments) -> ModelSpec:
    """Find the base and the adapter that `args` names. Raises `InputError`."""
    adapters = {CURRENT: (args.lora_model_path, None)} if args.lora_model_path else {}
    return find_model_spec(args.base_model_id, args.base_model_revision, adapters, dtype=args.dtype)


def find_answerer(args: WriterArguments, adapter_or_base: str | None = None) -> Respondent:
    """Find the model that answers: the one of `args`, or another adapter or base in its precision. Raises `InputError`."""
    if adapter_or_base is not None:
        base, adapter = (None, adapter_or_base) if is_adapter(adapter_or_base) else (adapter_or_base, None)
        args = replace(args, base_model_id=base, base_model_revision=None, lora_model_path=adapter)
    spec = find_spec(args)
    # Sampled answers would differ between batches, and so in a run that goes on.
    request = spec.request(decoding={"do_sample": False})
    spec.check_question(CURRENT, request)
    return Respondent(spec, request, args)


def respond(
    model: Respondent, asked: Sequence[tuple[Item, str]], ledger: Ledger, progress: str
) -> list[tuple[str, str]]:
    """Let the model respond to each text about its item's picture; returns the responses in order, with their ledger keys.

    What the ledger holds is not computed again, and where it holds all, the model is not loaded. The rest is computed
    `PICTURES_TOGETHER` pictures at a time, each encoded once for all its texts. The response to a text longer than the model
    can read is "". `progress` labels the progress bar. Raises `InputError` for a picture that has changed.
    """
    keys = [model.key(item, text) for item, text in asked]
    missing: dict[str, dict[str, tuple[Item, str]]] = {}  # by picture
    for key, (item, text) in zip(keys, asked, strict=True):
        if ledger.get(key) is None:
            missing.setdefault(item.digest, {})[key] = (item, text)
    if missing:
        _compute(model, list(missing.values()), ledger, progress)
        free_memory()  # the next model may need the room
    return [(ledger.get(key)["said"], key) for key in keys]


def _compute(model: Respondent, missing: list[dict[str, tuple[Item, str]]], ledger: Ledger, progress: str) -> None:
    args, batch_size = model.args, model.args.batch_size
    loaded, _, _ = model.spec.load([], None, quantization=args.quantization, batch_size=batch_size)
    # They leave the model no room for a response, or spell the token that stands for the picture.
    too_long = {
        text for text in {text for rows in missing for _, text in rows.values()} if not _fits(model.request, text)
    }
    if too_long:
        logger.warning(
            "%s: %d questions are longer than it can read, and count as not answered", model.name, len(too_long)
        )
    with show_progress(total=sum(map(len, missing)), desc=progress, unit="question") as bar:
        for start in range(0, len(missing), PICTURES_TOGETHER):
            rows = {key: row for one in missing[start : start + PICTURES_TOGETHER] for key, row in one.items()}
            items = {item.digest: item for item, _ in rows.values()}
            images = {digest: item.read_image() for digest, item in items.items()}
            pixels = Pixels(images, loaded.processor.image_processor)
            features = encode_in_memory(loaded, pixels, model.spec.scopes, batch_size)
            readable = {key: row for key, row in rows.items() if row[1] not in too_long}
            examples = [_example(text, item) for item, text in readable.values()]
            answers = answer_examples(loaded, features, examples, model.request, batch_size=batch_size)
            texts = dict(zip(readable, (answer.text for answer in answers), strict=True))
            ledger.add({
                key: {"model": model.name, "image_name": item.image_name, "asked": text, "said": texts.get(key, "")}
                for key, (item, text) in rows.items()
            })  # fmt: skip
            bar.update(len(rows))


def _example(text: str, item: Item | None = None) -> Example:
    name, digest = (item.image_name, item.digest) if item else ("", "")
    return Example(0, None, name, digest, text, (), "", {})


def _fits(request: AnswerRequest, text: str) -> bool:
    try:
        request.text.check_lengths([_example(text)], request.decoding.max_new_tokens)
    except InputError:
        return False
    return True
