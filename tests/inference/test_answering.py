"""inference.py's work in this process: whole tables, interruptions, mistakes."""

import json

import pandas as pd
import pytest
from PIL import Image
from transformers import ViltConfig

from blip2vqa.config.common import FeatureArguments
from blip2vqa.config.inference import InferenceArguments
from blip2vqa.inference import answering, generation, model_spec
from blip2vqa.inference.answering import metrics_path
from blip2vqa.inference.scoring import score_table
from blip2vqa.utils.errors import InputError
from helpers.tiny_families import make_vilt


def arguments(base, drawn, out, **changes) -> InferenceArguments:
    images, table = drawn
    given = {"csv_path": str(table), "image_dir": str(images), "output_path": str(out), "base_model_id": str(base)}
    return InferenceArguments(**given | {"dtype": "float32", "bertscore_model": "none", "batch_size": 5} | changes)


def answer_table(args: InferenceArguments, **features) -> dict:
    return answering.answer_table(args, FeatureArguments(**features))


def read(path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def test_the_input_comes_back_with_answers_and_metrics(tiny_base, drawn, tmp_path):
    out = tmp_path / "results.csv"
    metrics = answer_table(arguments(tiny_base, drawn, out))
    table, given = read(out), read(drawn[1])
    assert list(table) == [*given, "generated_answer", "confidence", "status"]
    pd.testing.assert_frame_equal(table[list(given)], given)
    assert set(table["status"]) == {"ok"}
    assert table["confidence"].astype(float).between(0, 1).all()
    assert json.loads(metrics_path(out).read_text()) == metrics
    assert metrics["base"]["n"] == 36
    assert not (tmp_path / "results.csv.partial").exists()


def test_batches_change_nothing(tiny_base, drawn, tmp_path):
    for size in (1, 16):
        answer_table(arguments(tiny_base, drawn, tmp_path / f"{size}.csv", batch_size=size))
    one, many = read(tmp_path / "1.csv"), read(tmp_path / "16.csv")
    assert one["generated_answer"].tolist() == many["generated_answer"].tolist()
    assert one["confidence"].astype(float).tolist() == pytest.approx(
        many["confidence"].astype(float).tolist(), abs=2e-5
    )


def test_a_table_without_answers_has_no_metrics(tiny_opt, drawn, tmp_path):
    table = tmp_path / "questions.csv"
    read(drawn[1]).drop(columns="answer").to_csv(table, index=False)
    assert answer_table(arguments(tiny_opt, (drawn[0], table), tmp_path / "out.csv")) == {}
    assert not metrics_path(tmp_path / "out.csv").exists()


def test_interrupted_and_rerun_it_goes_on(tiny_opt, drawn, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole.csv", tmp_path / "out.csv"
    answer_table(arguments(tiny_opt, drawn, whole))
    answer, calls = generation.answer_with_kv_cache, []

    def stop_at_third(loaded, text, memory, rows, *args, **kwargs):
        calls.append(len(rows))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return answer(loaded, text, memory, rows, *args, **kwargs)

    monkeypatch.setattr(generation, "answer_with_kv_cache", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        answer_table(arguments(tiny_opt, drawn, out))
    assert not out.exists()
    # As version 0.1.0 wrote it: a table that it began is finished by this one.
    begun = json.loads((tmp_path / "out.csv.partial").read_text().splitlines()[0])["run"]
    decoding = {"num_beams": 1, "max_new_tokens": 10, "min_new_tokens": 0, "do_sample": False, "temperature": 1.0}
    assert begun["decoding"] == {"": decoding | {"top_p": 1.0, "sampling_seed": 0}}
    assert (begun["base_model"], begun["adapters"], begun["answers"], begun["routes"]) == (str(tiny_opt), {}, {}, None)
    assert begun["prompts"] == {"": "Question: {question} Answer in one word:"}
    calls[:] = [0] * 10  # never the third again
    asked = len(calls)
    answer_table(arguments(tiny_opt, drawn, out))
    assert sum(calls[asked:]) == 36 - 10  # two batches of five were kept
    assert read(out).drop(columns="confidence").equals(read(whole).drop(columns="confidence"))


def test_a_finished_output_is_never_overwritten_unasked(tiny_opt, drawn, tmp_path):
    out = tmp_path / "out.csv"
    out.write_text("mine")
    with pytest.raises(InputError, match="--overwrite"):
        answer_table(arguments(tiny_opt, drawn, out))
    assert out.read_text() == "mine"
    answer_table(arguments(tiny_opt, drawn, out, overwrite=True))
    assert len(read(out)) == 36


def test_a_bad_image_is_an_error_or_said_in_its_row(tiny_opt, drawn, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (16, 16), "red").save(images / "good.png")
    (images / "bad.png").write_bytes((images / "good.png").read_bytes()[:40])
    table = tmp_path / "table.csv"
    table.write_text("image_name,question\ngood.png,What?\nbad.png,What?\nabsent.png,What?\n")
    out = tmp_path / "out.csv"
    with pytest.raises(InputError, match=r"2 of 3 images cannot be used") as caught:
        answer_table(arguments(tiny_opt, (images, table), out))
    assert "bad.png" in str(caught.value) and "absent.png" in str(caught.value)
    assert not out.exists()
    answer_table(arguments(tiny_opt, (images, table), out, on_bad_image="skip"))
    status = read(out)["status"].tolist()
    assert status[0] == "ok" and all(text.startswith("bad image: ") for text in status[1:])


def test_each_row_is_answered_by_one_of_its_own_choices(tiny_base, drawn, tmp_path):
    lists = [["red", "blue"], ["two legs", "red", "no", "blue"], ["yes"], ["one", "two", "one"], []]
    rows = [
        {
            "image": "0.png",
            "question": "What?",
            "choices": choices,
            "correct_choice_idx": len(choices) - 1,
            "answers": ["x"],
        }
        for choices in lists
    ]
    table = tmp_path / "table.json"
    table.write_text(json.dumps(rows))
    answers = {}
    with pytest.raises(InputError, match="row 5: no list of choices"):
        answer_table(arguments(tiny_base, (drawn[0], table), tmp_path / "1.csv", answers="choices"))
    for size, beams in ((1, None), (5, 5)):  # more beams than answers change nothing
        out = tmp_path / f"{size}.csv"
        options = {"answers": "choices", "batch_size": size, "num_beams": beams, "on_bad_row": "skip"}
        metrics = answer_table(arguments(tiny_base, (drawn[0], table), out, **options))
        said = read(out)
        assert said["status"].tolist() == ["ok"] * 4 + ["bad row: no list of choices"]
        assert read(tmp_path / f"{size}.bad_rows.csv")["row"].tolist() == ["5"]
        ranked = [[name for name, _ in json.loads(cell)] for cell in said["ranked_answers"]]
        assert [set(names) for names in ranked[:4]] == [set(names) for names in lists[:4]]
        assert said["generated_answer"].tolist()[:4] == [names[0] for names in ranked[:4]]
        right = [answer == choices[-1] for answer, choices in zip(said["generated_answer"], lists[:4], strict=False)]
        assert metrics["base"]["accuracy"] == sum(right) / 4  # by the right choice, not by the other answers
        again = InferenceArguments(csv_path=str(out), score=str(out), bertscore_model="none", on_bad_row="skip")
        assert score_table(again)["predictions"]["accuracy"] == metrics["base"]["accuracy"]
        answers[size] = said["generated_answer"].tolist(), said["confidence"].tolist()[:4]
    assert answers[1][0] == answers[5][0]
    assert [*map(float, answers[1][1])] == pytest.approx([*map(float, answers[5][1])], abs=2e-5)


def test_a_head_chooses_among_the_rows_choices_and_rows_too_long_are_listed(drawn, tmp_path):
    base, table, out = make_vilt(tmp_path / "vilt"), tmp_path / "table.csv", tmp_path / "out.csv"
    known = list(ViltConfig.from_pretrained(base).id2label.values())
    lists = [str(known[:2]), str(known[1:]), str(known[:2]), "['elsewhere']"]
    questions = ["What?", "What?", "what " * 60, "What?"]
    rows = zip(["0.png"] * 4, questions, lists, strict=True)
    pd.DataFrame(rows, columns=["filename", "question", "choices"]).to_csv(table, index=False)
    given = arguments(base, (drawn[0], table), out, answers="choices", on_bad_row="skip")
    assert answer_table(given) == {}
    said = read(out)
    assert said["generated_answer"][0] in known[:2] and said["generated_answer"][1] in known[1:]
    reasons = read(tmp_path / "out.bad_rows.csv")["reason"].tolist()
    assert len(reasons) == 2 and "the base model has 40 positions" in reasons[0] and "'elsewhere'" in reasons[1]
    assert [text.startswith("bad row: ") for text in said["status"]] == [False, False, True, True]


def test_everything_wrong_is_said_before_the_weights(tiny_opt, drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(model_spec, "load_base", lambda *a, **k: pytest.fail("weights were loaded"))
    table = tmp_path / "table.csv"
    table.write_text("where,question\n1.png,What?\n")
    with pytest.raises(InputError) as caught:
        answer_table(arguments(tmp_path / "nowhere", (drawn[0], table), tmp_path / "out.csv", num_beams=0))
    assert all(part in str(caught.value) for part in ("nowhere", "image_name", "--num_beams: 0"))


def test_another_adapter_in_the_same_folder_does_not_finish_the_first_ones_table(
    tiny_opt, drawn, tmp_path, monkeypatch
):
    import torch

    from blip2vqa.adapters.lora import wrap
    from blip2vqa.config.common import LoraArguments
    from blip2vqa.models.loading import load_base

    def write_adapter(seed):
        loaded = load_base(str(tiny_opt), dtype="float32", quantization="none", device=torch.device("cpu"))
        wrap(loaded, LoraArguments(lora_r=2), seed=seed)
        loaded.model.save_pretrained(tmp_path / "adapter")

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    args = arguments(
        tiny_opt, drawn, tmp_path / "out.csv", lora_model_path=[str(tmp_path / "adapter")], base_model_id=None
    )
    write_adapter(0)
    monkeypatch.setattr(generation, "answer_with_kv_cache", stop)
    with pytest.raises(KeyboardInterrupt):
        answer_table(args)
    write_adapter(1)
    with pytest.raises(InputError, match="adapters was"):
        answer_table(args)


def test_the_table_of_questions_is_never_the_output(tiny_opt, drawn):
    with pytest.raises(InputError, match="is the table of questions itself"):
        answer_table(arguments(tiny_opt, drawn, drawn[1], overwrite=True))


def test_stopped_while_it_is_scored_it_goes_on_with_the_scores(tiny_opt, drawn, tmp_path, monkeypatch):
    out, score = tmp_path / "out.csv", answering.score

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(answering, "score", stop)
    with pytest.raises(KeyboardInterrupt):
        answer_table(arguments(tiny_opt, drawn, out))
    before = out.read_bytes()
    monkeypatch.setattr(answering, "score", score)
    monkeypatch.setattr(model_spec, "load_base", lambda *a, **k: pytest.fail("weights were loaded"))
    metrics = answer_table(arguments(tiny_opt, drawn, out))
    assert json.loads(metrics_path(out).read_text()) == metrics and out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "out.metrics.json", "out.report.html"]


def test_official_results_and_lines_of_json(tiny_opt, drawn, tmp_path, caplog):
    answer_table(arguments(tiny_opt, drawn, tmp_path / "out.jsonl"))
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert list(rows[0]) == [*read(drawn[1]), "generated_answer", "confidence", "status"]
    metrics = answer_table(arguments(tiny_opt, drawn, tmp_path / "out.json"))
    results = json.loads((tmp_path / "out.json").read_text())
    numbered = [{"question_id": row, "answer": said["generated_answer"]} for row, said in enumerate(rows, start=2)]
    assert results == numbered and "36 rows have no question_id" in caplog.text
    scored = [
        score_table(arguments(None, drawn, "results.csv", score=str(tmp_path / name)))
        for name in ("out.json", "out.jsonl")
    ]
    assert scored[0] == scored[1] and scored[0]["predictions"]["accuracy"] == metrics["base"]["accuracy"]


@pytest.mark.parametrize("name", ["out.txt", "out", "out.csv.gz", "out.tsv", "out.parquet"])
def test_another_ending_is_refused_before_anything_is_read(name, drawn, tmp_path):
    with pytest.raises(InputError, match=r"its ending says the format, which is \.csv, \.jsonl or \.json"):
        answer_table(arguments(tmp_path / "nowhere", drawn, tmp_path / name))
