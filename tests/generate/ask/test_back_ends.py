"""Each back end is asked what it can answer."""

import pytest

from blip2vqa.config.generate import ApiArguments, CatalogueArguments, QuestionArguments, WriterArguments
from blip2vqa.generate.ask import model_backend
from blip2vqa.generate.generating import generate
from helpers.tiny_blip2 import COLORS


def arguments(base=None, **more) -> WriterArguments:
    given = {"base_model_id": base and str(base), "dtype": "float32", "quantization": "none", "batch_size": 3}
    return WriterArguments(**given | more)


def test_questions_are_written_for_open_answers_alone(drawn, tiny_opt, tmp_path, monkeypatch):
    class Asked(Exception):
        pass

    def ask(wanted, *_):
        raise Asked(wanted)

    monkeypatch.setattr(model_backend, "ask_model", ask)
    table = tmp_path / "catalogue.csv"
    rows = [f"{number}.png,sofa,{list(COLORS)[number % len(COLORS)]},leather\n" for number in range(8)]
    table.write_text("image_name,product_type,color,material\n" + "".join(rows))
    wanted = {}
    for writes in ("answers", "questions"):
        catalogue = CatalogueArguments(csv_path=str(table), image_dir=str(drawn[0]), max_product_type_share=1.0)
        asks = QuestionArguments(output_path=str(tmp_path / "vqa.csv"), backend="model")
        with pytest.raises(Asked) as caught:
            generate(catalogue, asks, arguments(tiny_opt, model_writes=writes), ApiArguments(), {})
        wanted[writes] = caught.value.args[0]
    assert {"yes/no", "color"} <= {row.question_type for row in wanted["answers"]}
    assert "color" in {row.about for row in wanted["questions"]}
    assert all(row.about == row.question_type and row.answer for row in wanted["questions"])
