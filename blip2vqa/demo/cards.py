"""What the page says of each adapter: where it comes from, how it was trained, what it scored."""

from pathlib import Path

from blip2vqa.adapters.attach import FoundAdapter
from blip2vqa.adapters.files.card import adapter_facts
from blip2vqa.adapters.ref import CURRENT
from blip2vqa.api import VQAModel


def describe_adapters(model: VQAModel) -> list[dict]:
    """Describe the adapters that are loaded: name, what the user calls it, facts, table of scores, verdict."""
    return [{"name": ref.name, **_describe(found)} for ref, found in model.spec.adapters.items() if ref != CURRENT]


def short_name(place: str) -> str:
    """Name an adapter or a base without the folders of this machine above it; Hub ids stay whole."""
    return Path(place).name if Path(place).is_dir() or Path(place).is_absolute() else place


def _describe(found: FoundAdapter) -> dict:
    manifest, config = found.manifest, found.adapter.config
    settings, scores, verdict = adapter_facts(manifest, manifest.get("metrics") or {})
    facts = {
        "from": short_name(found.path),
        "made for": short_name(found.adapter.base_model_id or "a base that it does not name"),
        "prompt": manifest.get("prompt"),
        **settings,
        "rank": config.r,
        "alpha": config.lora_alpha,
        "parts adapted": ", ".join(found.scopes),
    }
    return {
        # Without the marks of Markdown, in which cards are written.
        "facts": {label: str(value).strip("`") for label, value in facts.items() if value not in (None, "")},
        "scores": scores,
        "verdict": verdict,
    }
