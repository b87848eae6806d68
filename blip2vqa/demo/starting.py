"""Which base, adapters and example pictures the page starts with."""

import csv
from pathlib import Path

from blip2vqa.adapters.ref import CURRENT, AdapterRef
from blip2vqa.adapters.resolve import is_adapter
from blip2vqa.api import VQAModel, load
from blip2vqa.config.demo import DemoArguments
from blip2vqa.config.files import read_config
from blip2vqa.data.images import picture_extensions
from blip2vqa.demo.answers import BASE
from blip2vqa.inference.model_spec import find_model_spec, parse_adapters
from blip2vqa.utils.console import say
from blip2vqa.utils.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[2]
QUICK_START = REPOSITORY / "configs" / "quickstart.json"
EXAMPLES = 8
"""Example pictures that are shown."""


def load_model(args: DemoArguments) -> VQAModel:
    """Load the base with the adapters beside it. Raises `InputError` for what does not fit, before any weight is read."""
    adapters = _named(args.lora_model_path)
    base, revision = args.base_model_id, args.base_model_revision
    if not base and not adapters:
        base, adapters = _quick_start()
    elif not base:
        refs = {AdapterRef.named(name): (path, None) for name, path in adapters.items()}
        spec = find_model_spec(None, None, refs, with_base=True, dtype=args.dtype)
        base, revision = spec.base_model_id, spec.revision
    return load(base, adapters=adapters, quantization=args.quantization, dtype=args.dtype, revision=revision)


def _named(given: list[str] | None) -> dict[str, str]:
    """Read `--lora_model_path` as `{name: adapter}`; one without a name is called as its folder is."""
    adapters = {(name_of(path) if ref == CURRENT else ref.name): path for ref, path in parse_adapters(given).items()}
    if BASE in adapters:
        raise InputError(
            f"--lora_model_path {BASE}={adapters[BASE]}: {BASE} is the base's own name here; choose another"
        )
    return adapters


def name_of(path: str) -> str:
    """Name an adapter by the last part of its path or Hub id."""
    return Path(path).resolve().name if Path(path).is_dir() else path.rpartition("/")[2].partition("@")[0]


def _quick_start() -> tuple[str, dict[str, str]]:
    """Return the base of the quick start and, if it has been run, its adapter."""
    if not QUICK_START.is_file():
        raise InputError(
            "--lora_model_path, --base_model_id: missing, and the embedded base comes with the repository alone; for example: "
            "--base_model_id Salesforce/blip2-opt-2.7b"
        )
    settings = read_config(QUICK_START)
    base, adapter = (str(REPOSITORY / settings[name]) for name in ("base_model_id", "output_dir"))
    if is_adapter(adapter):
        return base, {"quickstart": adapter}
    say(f"No adapter in {settings['output_dir']}, which the quick start makes: the base alone")
    return base, {}


def example_pictures(folder: str | None) -> list[Path]:
    """List a few pictures of a folder, or of the photographs that come with the repository; none where they are not there.

    Raises `InputError` for a folder without pictures.
    """
    if folder:
        found = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in picture_extensions())
        if not found:
            raise InputError(f"--image_dir {folder}: holds no pictures; name a folder that does")
        return found[:EXAMPLES]
    photos = REPOSITORY / "assets" / "photos"
    if not photos.is_dir():
        return []
    with (photos / "val.csv").open(newline="", encoding="utf-8") as table:
        unseen = sorted({row["image_name"] for row in csv.DictReader(table)})
    return [photos / "images" / name for name in unseen[:: len(unseen) // EXAMPLES][:EXAMPLES]]
