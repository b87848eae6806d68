"""Caption pictures in several styles; each picture is encoded once, whatever the number of styles."""

import logging
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import pandas as pd

from blip2vqa.adapters.attach import FoundAdapter
from blip2vqa.adapters.ref import BASE, AdapterRef
from blip2vqa.config.caption import CaptionArguments
from blip2vqa.config.common import FeatureArguments
from blip2vqa.config.decoding import DECODING
from blip2vqa.config.files import is_config_file
from blip2vqa.config.sharding import refuse_sharding
from blip2vqa.config.styles import known_styles, read_style
from blip2vqa.data.collect import Picture, gather_images
from blip2vqa.data.downloading import ADDRESS
from blip2vqa.data.examples import Example
from blip2vqa.data.images import BadImage, open_image
from blip2vqa.data.prediction_table import write_table
from blip2vqa.evaluation.tasks import CAPTION, VQA
from blip2vqa.features.encode import Pixels, encode_in_memory
from blip2vqa.inference.generation import Answer, answer_by_batch
from blip2vqa.inference.keeping import keep_answers, opened_journal
from blip2vqa.inference.model_spec import ModelSpec, find_model_spec
from blip2vqa.inference.request import AnswerRequest
from blip2vqa.inference.startup import start_pairs
from blip2vqa.reporting.pages.sheet import write_sheet
from blip2vqa.reporting.tables import format_block
from blip2vqa.utils.console import named
from blip2vqa.utils.distributed import run_on_main_rank, start
from blip2vqa.utils.errors import InputError, collect_errors, raise_all

logger = logging.getLogger(__name__)

COLUMNS = ("image", "style", "caption", "confidence", "adapter", "status")
NO_ADAPTER = "prompt and decoding alone"
DEFAULT_STYLES = ("detailed", "concise", "creative")
SHOWN = 3  # pictures whose captions are printed at the end
NO_QUESTION = Example(0, None, "", "", "", (), "", {})


@dataclass(frozen=True)
class Style:
    """A way to write captions."""

    name: str
    adapter: str | None
    """Path or Hub id; None where the base writes by the style's prompt and decoding alone."""
    options: dict
    """Prompt and decoding from the style's file; `{}` where the adapter bears a name that is no style."""

    @property
    def ref(self) -> AdapterRef:
        """The adapter that writes in this style, or the base alone."""
        return AdapterRef.named(self.name) if self.adapter else BASE

    @property
    def writer(self) -> str:
        """Who writes in this style, in words."""
        return f"adapter {self.adapter}" if self.adapter else NO_ADAPTER


def parse_styles(given: Sequence[str]) -> list[Style]:
    """Read styles such as `["detailed=ADAPTER", "concise", "mine.json"]`. Raises `InputError` with every problem found."""
    problems, styles = [], []
    for item in given:
        name, sign, adapter = item.partition("=")
        known = name in known_styles() or is_config_file(name)
        # An adapter remembers its own prompt: any name will do for it.
        options = collect_errors(problems, read_style, name) if name and (known or not adapter) else {}
        label = style_name(name)
        if not name or (sign and not adapter):
            problems.append(f"--styles {item}: is STYLE=ADAPTER, as in concise=runs/concise, or STYLE alone")
        if label in [style.name for style in styles]:
            problems.append(f"--styles: {label} is given twice; keep one")
        styles.append(Style(label, adapter or None, options or {}))
    raise_all(problems)
    return styles


def style_name(given: str) -> str:
    """Name a style that is given by its name or by the path of its file."""
    return Path(given).stem if is_config_file(given) else given


def style_request(spec: ModelSpec, style: Style) -> AnswerRequest:
    """Build the request for captions in a style: of its adapter as it was trained, or of the base with the style's prompt.

    Raises `InputError` where the base has no room for prompt and caption.
    """
    options = {name: style.options[name] for name in DECODING if name in style.options}
    if style.ref == BASE:
        request = spec.request(BASE, prompt=style.options["prompt"], decoding=options)
    elif spec.adapters[style.ref].manifest.get("task") == CAPTION.name:
        request = spec.request(style.ref)
    else:
        # The adapter is of another task, or of other tools: the prompt that it was trained with does not write captions.
        warn_of_questions(spec.adapters[style.ref])
        prompt = style.options.get("prompt") or spec.family.caption_prompt
        options = {"max_new_tokens": CAPTION.max_new_tokens} | options
        request = spec.request(style.ref, prompt=prompt, decoding=options)
    problems: list[str] = []
    collect_errors(problems, request.text.check_lengths, [NO_QUESTION], request.decoding.max_new_tokens)
    raise_all([f"style {style.name}: {problem.removeprefix('row 0: ')}" for problem in problems])
    return request


def warn_of_questions(adapter: FoundAdapter) -> None:
    """Warn that an adapter which was trained to answer questions writes captions now."""
    if adapter.manifest.get("task") == VQA.name or "{question}" in (adapter.manifest.get("prompt") or ""):
        logger.warning(
            "adapter %s: was trained to answer questions, not to write captions: what it writes is no measure of it; %s trains "
            "one that does, or leave the adapter out",
            adapter.path,
            f"{named('finetune')} --task caption",
        )


def find_requests(args: CaptionArguments) -> tuple[list[Style], ModelSpec, list[AnswerRequest]]:
    """Read the styles asked for, --prompt being one more; find their base with its adapters, and build a request for each.

    Raises `InputError` with every problem found.
    """
    styles = parse_styles(args.styles or ([] if args.prompt else DEFAULT_STYLES))
    if args.prompt:
        styles.append(Style("prompt", None, {"prompt": args.prompt, "max_new_tokens": CAPTION.max_new_tokens}))
    adapters = {style.ref: (style.adapter, None) for style in styles if style.adapter}
    base, with_base = (args.base_model_id, args.base_model_revision), len(adapters) < len(styles)
    spec = find_model_spec(*base, adapters, with_base=with_base, dtype=args.dtype)
    spec.check_captions()
    spec.check_served(args.quantization)
    problems: list[str] = []
    requests = [collect_errors(problems, style_request, spec, style) for style in styles]
    raise_all(problems)
    return styles, spec, requests


def caption_images(args: CaptionArguments, features: FeatureArguments) -> dict | None:
    """Caption pictures and write the table, and the sheet if asked for; returns counts and the first captions to print.

    The main process alone writes; the others return None. Raises `InputError`, with every problem found, before any weight is
    loaded. A picture that cannot be used is left out, with the reason in its rows; if none is left, that is an error.
    """
    refuse_sharding("caption.py captions")
    start()
    problems = args.check() + features.check()
    found = collect_errors(problems, find_requests, args)
    raise_all(problems)
    styles, spec, requests = found
    pictures, bad = run_on_main_rank(lambda: _gather(args))
    began = time.monotonic()
    asked = [(picture, style) for picture in pictures for style in styles]
    keys = [f"{picture.digest} {style.name}" for picture, style in asked]
    examples = [
        Example(row, picture.source, picture.source.name, picture.digest, "", (), "", {})
        for row, (picture, _) in enumerate(asked)
    ]
    with opened_journal(
        args.output_path, _run_key(args, spec, styles, requests), others=[args.compare] if args.compare else [],
        overwrite=args.overwrite,
    ) as (journal, known):  # fmt: skip
        done = {index for index, key in enumerate(keys) if key in known}
        if done and journal:
            print(f"{args.output_path}: going on where it was, {len(done):,} of {len(keys):,} captions are written")
        if len(done) < len(keys):
            options = {"quantization": args.quantization, "batch_size": args.batch_size}
            loaded, kept, lines = spec.load(examples, features.kept(), **options)
            if journal:
                print(_start_block(args, styles, requests, loaded, lines, len(pictures), bad), flush=True)
            if isinstance(kept, Pixels):
                kept = encode_in_memory(loaded, kept, spec.scopes, args.batch_size)
            batches = answer_by_batch(
                loaded, kept, examples, requests * len(pictures), batch_size=args.batch_size, done=done
            )
            keep_answers(batches, journal, keys, done, "captioning", "caption")
        if not journal:
            return None
        said = [Answer(journal.results[key]["answer"], journal.results[key]["confidence"]) for key in keys]
        names = short_names([picture.source.name for picture in pictures] + [place for place, _ in bad])
        rows = _rows(styles, pictures, said, bad)

        def write() -> None:
            write_table(args.output_path, pd.DataFrame(rows, columns=COLUMNS))
            if args.compare:
                _write_sheet(args.compare, styles, pictures, names, said, bad)

        journal.finish(write)
    return {
        "captions": len(examples),
        "images": len(pictures),
        "bad": bad,
        "seconds": time.monotonic() - began,
        "shown": [(names[image], style, caption) for image, style, caption, *_ in rows[: SHOWN * len(styles)]],
        "more": max(0, len(pictures) - SHOWN),
    }


def _run_key(args: CaptionArguments, spec: ModelSpec, styles: list[Style], requests: list[AnswerRequest]) -> dict:
    """Collect what the captions depend on, beside the pictures, by whose bytes they are kept."""
    return {
        "base_model": spec.base_model_id,
        "base_revision": spec.revision,
        "adapters": {ref.name: adapter.digest for ref, adapter in spec.adapters.items()},
        "prompts": {style.name: request.text.prompt for style, request in zip(styles, requests, strict=True)},
        "decoding": {style.name: asdict(request.decoding) for style, request in zip(styles, requests, strict=True)},
        "dtype": args.dtype,
        "quantization": args.quantization,
    }


def _rows(styles: list[Style], pictures: list[Picture], said: list[Answer], bad: list[tuple[str, str]]) -> list[tuple]:
    """Build the rows of `COLUMNS`; `said` holds the captions picture by picture, style by style in each."""
    asked = [(picture.source.name, style) for picture in pictures for style in styles]
    rows = [
        (image, style.name, answer.text, f"{answer.confidence:.6f}", style.adapter or "", "ok")
        for (image, style), answer in zip(asked, said, strict=True)
    ]
    for place, reason in bad:
        rows += [(place, style.name, "", "", style.adapter or "", f"bad image: {reason}") for style in styles]
    return rows


def short_names(places: Sequence[str]) -> dict[str, str]:
    """Map each place to its file's name where no other has it: a page made to be shown hides the user's folders."""
    last = {place: PurePosixPath(_path(place)).name or place for place in places}
    counts = Counter(last.values())
    return {place: name if counts[name] == 1 else place for place, name in last.items()}


def _path(place: str) -> str:
    with suppress(ValueError):  # what only begins as an address
        return urlsplit(place).path if ADDRESS.match(place) else place
    return place


def _gather(args: CaptionArguments) -> tuple[list[Picture], list[tuple[str, str]]]:
    pictures, bad = gather_images(
        args.images,
        allow_private=args.allow_private_addresses,
        seconds=args.download_seconds,
        max_bytes=int(args.download_mb * 1e6),
    )
    if not pictures:
        raise InputError(*[f"--images {place}: {reason}" for place, reason in bad[:10]], "--images: no usable picture")
    return pictures, bad


def _start_block(args, styles, requests, loaded, lines, images: int, bad) -> str:
    pairs = [*start_pairs(loaded, lines), ("images", f"{images:,}, {args.batch_size} captions at once")]
    for style, request in zip(styles, requests, strict=True):
        pairs.append((style.name, f"{style.writer}; {request.text.prompt!r}, {request.decoding.describe()}"))
    pairs += [("left out", f"{place}: {reason}") for place, reason in bad]
    return format_block("Captioning", pairs)


def _write_sheet(path: str, styles: list[Style], pictures: list[Picture], names: dict[str, str], said, bad) -> None:
    def rows():
        for number, picture in enumerate(pictures):
            mine = said[number * len(styles) : (number + 1) * len(styles)]
            captions = {style.name: answer.text for style, answer in zip(styles, mine, strict=True)}
            try:
                yield names[picture.source.name], open_image(picture.source), captions, None
            except BadImage as gone:
                yield names[picture.source.name], None, captions, gone.reason
        for place, reason in bad:
            yield names[place], None, dict.fromkeys(style.name for style in styles), reason

    write_sheet(path, rows(), [(style.name, style.writer) for style in styles])
