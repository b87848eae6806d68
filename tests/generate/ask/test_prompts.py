"""What an endpoint's answer is read as."""

from blip2vqa.generate.ask import prompts


def test_a_fence_around_json_and_half_a_surrogate_are_read():
    text = '```json\n{"questions": [{"question": "a \\ud800?", "answer": "b\\udfff", "question_type": 3}]}\n```'
    assert prompts.read_questions(text) == [("a ??", "b?", "other")]
