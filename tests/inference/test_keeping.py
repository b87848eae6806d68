"""Long runs in bfloat16 that are stopped anywhere end as if they had not been, to the last bit of each confidence."""

import errno
import json

import pytest

from blip2vqa.config.caption import CaptionArguments
from blip2vqa.config.common import FeatureArguments
from blip2vqa.config.inference import InferenceArguments
from blip2vqa.inference import captioning, generation, systems
from blip2vqa.inference.answering import answer_table
from blip2vqa.inference.captioning import caption_images
from blip2vqa.inference.systems import compare_systems
from helpers.family_bases import random_adapter


@pytest.fixture
def stop_at(monkeypatch):
    """Stops a run with Ctrl-C at its batch of that number, counted from now."""
    answer = generation.answer_with_kv_cache

    def stop_at(number: int) -> None:
        calls = []

        def answer_or_stop(*args, **kwargs):
            calls.append(args)
            if len(calls) == number:
                raise KeyboardInterrupt
            return answer(*args, **kwargs)

        monkeypatch.setattr(generation, "answer_with_kv_cache", answer_or_stop)

    return stop_at


@pytest.fixture(scope="module")
def adapters(tiny_opt, tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("adapters")
    return [
        str(
            random_adapter(
                tiny_opt, folder / str(seed), seed, prompt="{question} Answer:", decoding={"max_new_tokens": 8}
            )
        )
        for seed in (1, 2)
    ]


def goes_on(run, stop_at, out) -> None:
    """Run whole, then stopped twice and gone on with; both must have written the same."""
    run(out / "whole.csv")
    for _ in range(2):
        stop_at(3)
        with pytest.raises(KeyboardInterrupt):
            run(out / "stopped.csv")
    stop_at(0)
    run(out / "stopped.csv")
    assert (out / "stopped.csv").read_bytes() == (out / "whole.csv").read_bytes()
    assert not [path.name for path in out.iterdir() if "partial" in path.name or "tmp" in path.name]


def table_run(drawn, **given):
    def run(path):
        args = {"csv_path": str(drawn[1]), "image_dir": str(drawn[0]), "dtype": "bfloat16", "bertscore_model": "none"}
        return answer_table(
            InferenceArguments(**args | given, batch_size=5, output_path=str(path)),
            FeatureArguments(feature_cache=kept),
        )

    kept = given.pop("feature_cache", None) or FeatureArguments().feature_cache
    return run


@pytest.mark.parametrize("feature_cache", [None, "none"])
def test_a_table_goes_on(feature_cache, tiny_opt, drawn, tmp_path, stop_at):
    goes_on(table_run(drawn, base_model_id=str(tiny_opt), feature_cache=feature_cache), stop_at, tmp_path)


def test_a_table_of_several_adapters_goes_on(adapters, drawn, tmp_path, stop_at):
    named = [f"color={adapters[0]}", f"default={adapters[1]}"]
    goes_on(table_run(drawn, lora_model_path=named), stop_at, tmp_path)


def captions_run(drawn, adapters, tiny_opt, **more):
    def run(path):
        (path.parent / "short.json").write_text('{"prompt": "a photo of", "max_new_tokens": 8}')
        styles = [f"{path.parent / 'short.json'}={adapters[0]}", "concise"]
        args = {"images": [str(drawn[0])], "styles": styles, "base_model_id": str(tiny_opt), "dtype": "bfloat16"}
        return caption_images(CaptionArguments(**args, batch_size=5, output_path=str(path), **more), FeatureArguments())

    return run


def test_captions_go_on(adapters, tiny_opt, drawn, tmp_path, stop_at):
    goes_on(captions_run(drawn, adapters, tiny_opt), stop_at, tmp_path)


def test_captions_whose_page_was_not_written_are_not_written_again(adapters, tiny_opt, drawn, tmp_path, monkeypatch):
    page, write = tmp_path / "page.html", captioning.write_sheet

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(captioning, "write_sheet", full)
    run = captions_run(drawn, adapters, tiny_opt, compare=str(page))
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path / "out.csv")
    before = (tmp_path / "out.csv").read_bytes()
    monkeypatch.setattr(captioning, "write_sheet", write)
    monkeypatch.setattr("blip2vqa.inference.model_spec.load_base", lambda *a, **k: pytest.fail("weights were loaded"))
    run(tmp_path / "out.csv")
    assert page.exists() and (tmp_path / "out.csv").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "page.html", "short.json"]


def test_a_comparison_goes_on(adapters, tiny_opt, drawn, tmp_path, stop_at, monkeypatch):
    listed = [{"name": "base", "base_model_id": str(tiny_opt)}, {"name": "first", "lora_model_path": adapters[0]}]
    (tmp_path / "systems.json").write_text(json.dumps(listed))

    def run(path):
        args = {"csv_path": str(drawn[1]), "image_dir": str(drawn[0]), "dtype": "bfloat16", "bertscore_model": "none"}
        given = {"systems": str(tmp_path / "systems.json"), "batch_size": 5, "output_path": str(path)}
        return compare_systems(InferenceArguments(**args | given), FeatureArguments())

    whole, _ = run(tmp_path / "whole.csv")
    stop_at(3)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out.csv")
    stop_at(0)
    compare = systems.compare

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(systems, "compare", stop)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out.csv")  # all is answered, and nothing written
    monkeypatch.setattr(systems, "compare", compare)
    stop_at(1)
    done, written = run(tmp_path / "out.csv")
    assert all(path.exists() for path in written)
    assert (tmp_path / "out.answers.csv").read_bytes() == (tmp_path / "whole.answers.csv").read_bytes()
    assert [row["accuracy"] for row in done["systems"]] == [row["accuracy"] for row in whole["systems"]]
    assert all(row["seconds_per_question"] > 0 for row in done["systems"][:2])
