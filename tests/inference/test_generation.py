"""Answers in bulk: a picture's keys and values shared by its questions, lengths sorted, lists of answers; as the plain way."""

import itertools
from types import SimpleNamespace

import pytest
import torch

from blip2vqa.data.examples import Example
from blip2vqa.inference import generation
from blip2vqa.inference.generation import answer_batch, answer_by_batch, answer_examples
from blip2vqa.inference.request import Answer, AnswerRequest, Decoding
from blip2vqa.models.answer_lists import AnswerTree, read_answers
from blip2vqa.models.loading import load_base
from blip2vqa.training.recipe import finetune
from blip2vqa.utils.errors import InputError
from helpers.finetune_runs import make_run
from helpers.tiny_blip2 import GivenFeatures, upstream_logits

QUESTIONS = [
    "Red?",
    "What color is the square?",
    "How many squares are there?",
    "Is it?",
    "Is the square red or is it not?",
]
ANSWERS = ("red", "green", "blue", "yes", "no", "one", "one two", "red square")


@pytest.fixture(params=["opt", "t5"])
def model(request, tiny_opt, tiny_t5):
    base = tiny_opt if request.param == "opt" else tiny_t5
    loaded = load_base(str(base), dtype="float32", quantization="none", device=torch.device("cpu"))
    return loaded, loaded.family.text_encoder(loaded.processor, loaded.base.config, "Question: {question} Answer:")


@pytest.fixture
def asked():
    """Thirteen questions on four images, the images' questions not side by side, and the images' features."""
    pairs = [("abcd"[number % 3 if number < 12 else 3], QUESTIONS[number % 5]) for number in range(13)]
    examples = [
        Example(row, None, digest, digest, question, (), "other", {}) for row, (digest, question) in enumerate(pairs)
    ]
    values = 2 * torch.randn(4, 4, 32, generator=torch.Generator().manual_seed(3))
    return examples, GivenFeatures("abcd", values)


def one_by_one(model, asked, decoding, tree=None):
    loaded, text = model
    examples, features = asked
    return [
        answer_batch(loaded, AnswerRequest(text, decoding, tree), features.of([example.digest]), [example.question])[0]
        for example in examples
    ]


@pytest.mark.parametrize(("beams", "batch_size"), [(1, 1), (1, 2), (1, 16), (3, 4)])
def test_bulk_answers_are_those_of_one_question_at_a_time(model, asked, beams, batch_size):
    decoding = Decoding(beams, 6)
    loaded, text = model
    examples, features = asked
    plain = one_by_one(model, asked, decoding)
    bulk = answer_examples(loaded, features, examples, AnswerRequest(text, decoding), batch_size=batch_size)
    assert [answer.text for answer in bulk] == [answer.text for answer in plain]
    assert len({answer.text for answer in plain}) > 3  # not one answer to all
    for fast, slow in zip(bulk, plain, strict=True):
        assert fast.confidence == pytest.approx(slow.confidence, rel=1e-4)


def test_processes_that_share_a_base_have_as_many_batches_each_and_answer_each_row_once(asked, monkeypatch):
    examples, features = asked
    batches: list[list[str]] = []

    class Noted:
        share_batches = True

        def prepare(self, *args):
            return None

        def answer(self, loaded, request, features, memory, rows, digests, questions, prompts):
            batches.append(list(questions))
            return [Answer(question, 1.0) for question in questions]

    text = SimpleNamespace(answers_with="noted", prompt="", prompt_ids=lambda questions, prompts: questions)
    monkeypatch.setitem(generation.ANSWERS_WITH, "noted", Noted())
    monkeypatch.setattr(generation, "gather_object", lambda found: found)
    loaded, counts, answered = SimpleNamespace(sharded=True, adapters=None), [], []
    for rank in range(4):  # of 13 rows each has 4, and the last one
        state = SimpleNamespace(num_processes=4, process_index=rank)
        monkeypatch.setattr(generation, "PartialState", lambda state=state: state)
        batches.clear()
        asking = answer_by_batch(loaded, features, examples, [AnswerRequest(text)] * 13, batch_size=3)
        answered += [index for batch in asking for index, answer in batch if answer.text == examples[index].question]
        counts.append([len(batch) for batch in batches])
    assert counts == [[3, 1]] * 4 and sorted(answered) == list(range(13))


def test_a_causal_model_runs_the_tokens_of_an_image_once(tiny_opt, asked, monkeypatch):
    loaded = load_base(str(tiny_opt), dtype="float32", quantization="none", device=torch.device("cpu"))
    text = loaded.family.text_encoder(loaded.processor, loaded.base.config, "Question: {question} Answer:")
    remember, images = generation.prefill_images, []
    monkeypatch.setattr(
        generation, "prefill_images", lambda loaded, output: images.append(len(output)) or remember(loaded, output)
    )
    rows = []
    hook = (
        loaded.base.language_model.get_decoder()
        .layers[0]
        .register_forward_hook(lambda module, args, output: rows.append(args[0].shape[:2]))
    )
    examples, features = asked
    answer_examples(loaded, features, examples, AnswerRequest(text, Decoding(1, 1)), batch_size=4)
    hook.remove()
    assert sum(images) == 4
    image_tokens = sum(size * length for size, length in rows if length == text.num_query_tokens)
    assert image_tokens == 4 * text.num_query_tokens
    longest = max(len(ids) for ids in text.prompt_ids(QUESTIONS)) - text.num_query_tokens
    assert all(length <= longest for _, length in rows)


def test_every_example_once_and_like_lengths_together(model, asked):
    loaded, text = model
    examples, features = asked
    requests = [AnswerRequest(text, Decoding(1, 2))] * len(examples)
    batches = list(answer_by_batch(loaded, features, examples, requests, batch_size=3))
    assert sorted(index for batch in batches for index, _ in batch) == list(range(13))
    lengths = [[len(text.prompt_ids([examples[index].question])[0]) for index, _ in batch] for batch in batches]
    # Four batches are sorted together, the longest questions first.
    flat = [length for batch in lengths[:4] for length in batch]
    assert flat == sorted(flat, reverse=True)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_a_list_of_answers_is_kept_to_and_ranked(model, asked, count):
    """Probabilities against the model's own, answer by answer."""
    loaded, text = model
    examples, features = asked
    tree = AnswerTree(ANSWERS[:count], text)
    requests = [AnswerRequest(text, Decoding(1, 1), tree)] * len(examples)
    batches = answer_by_batch(loaded, features, examples, requests, batch_size=4)
    said = dict(itertools.chain.from_iterable(batches))
    for index, example in enumerate(examples):
        true = {answer: probability(model, features, example, answer) for answer in tree.answers}
        ranked = said[index].ranked
        assert (said[index].text, said[index].confidence) == ranked[0]
        assert set(dict(ranked)) <= set(tree.answers) and len(ranked) == min(count, 5)
        assert [value for _, value in ranked] == sorted((value for _, value in ranked), reverse=True)
        for answer, value in ranked:
            assert value == pytest.approx(true[answer], rel=1e-3)
        if count <= tree.beams:
            assert [answer for answer, _ in ranked] == sorted(true, key=true.get, reverse=True)
    alone = one_by_one(model, asked, Decoding(1, 1), tree)
    assert [answer.text for answer in alone] == [said[index].text for index in range(len(examples))]


def probability(model, features, example, answer) -> float:
    loaded, text = model
    batch = text.training_batch([example.question], [answer])
    labels = batch.pop("labels")
    with torch.no_grad():
        logits = upstream_logits(loaded.base, features.of([example.digest]), **batch).log_softmax(-1)
    if not text.seq2seq:
        logits, labels = logits[:, :-1], labels[:, 1:]
    kept = labels != -100
    return logits[kept].gather(1, labels[kept][:, None]).sum().exp().item()


def test_answers_that_cannot_be_told_apart_are_refused(model):
    _, text = model
    end = text.tokenizer.decode([text.end_token_id])
    AnswerTree(ANSWERS, text).check()
    with pytest.raises(InputError, match="contains the sign that ends an answer"):
        AnswerTree((f"red{end}blue",), text).check()
    with pytest.raises(InputError, match="are the same to this base; keep one"):
        AnswerTree(("red", " red"), TwinText(text)).check()


class TwinText:
    """A text encoder to which blanks are nothing."""

    def __init__(self, text):
        self.text, self.end_token_id = text, text.end_token_id

    def answer_ids(self, answers):
        return self.text.answer_ids([answer.strip() for answer in answers])


def test_the_file_of_answers(tmp_path):
    (tmp_path / "a.txt").write_text("red\n\n blue \nred\n", encoding="utf-8")
    assert read_answers(str(tmp_path / "a.txt")) == ["red", "blue"]
    (tmp_path / "none.txt").write_text("\n \n")
    with pytest.raises(InputError, match="holds no answer"):
        read_answers(str(tmp_path / "none.txt"))
    with pytest.raises(InputError, match="cannot be read"):
        read_answers(str(tmp_path / "absent.txt"))


def test_merged_for_inference_answers_as_the_adapter_beside_the_base(tiny_opt, drawn, tmp_path):
    from peft import PeftModel
    from peft.utils import load_peft_weights, set_peft_model_state_dict

    from blip2vqa import load
    from blip2vqa.adapters.attach import find_adapter

    finetune(make_run(tiny_opt, drawn, tmp_path / "run"))
    merged = load(str(tmp_path / "run"), dtype="float32", quantization="none")
    assert not isinstance(merged.loaded.model, PeftModel)
    beside = load(str(tiny_opt), dtype="float32", quantization="none", prompt=merged.text.prompt)
    adapter = find_adapter(str(tmp_path / "run"))
    beside.loaded.model = PeftModel(beside.loaded.model, adapter.adapter.config)
    set_peft_model_state_dict(beside.loaded.model, load_peft_weights(str(tmp_path / "run"), device="cpu"))
    beside.loaded.model.eval()
    images = [str(drawn[0] / f"{number}.png") for number in range(4)]
    for one, other in zip(
        merged.answer_batch(images, QUESTIONS[:4]), beside.answer_batch(images, QUESTIONS[:4]), strict=True
    ):
        assert one.text == other.text
        assert one.confidence == pytest.approx(other.confidence, rel=1e-3)


def test_the_head_is_given_its_input_in_one_piece(tiny_opt, asked):
    """A slice would be multiplied with one copy of the head's matrix for each row: gigabytes at the real size."""
    loaded = load_base(str(tiny_opt), dtype="float32", quantization="none", device=torch.device("cpu"))
    text = loaded.family.text_encoder(loaded.processor, loaded.base.config, "{question}")
    examples, features = asked
    seen = []
    head = loaded.base.language_model.get_output_embeddings()
    head.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].is_contiguous()))
    answer_examples(loaded, features, examples, AnswerRequest(text, Decoding(1, 2)), batch_size=8)
    assert seen and all(seen)
    from transformers import Blip2ForConditionalGeneration

    plain = Blip2ForConditionalGeneration.from_pretrained(tiny_opt)
    hidden = torch.randn(8, 5, 64)
    torch.testing.assert_close(head(hidden[:, -1:]), plain.language_model.lm_head(hidden[:, -1:]))
