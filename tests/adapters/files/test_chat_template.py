"""A prompt comes out of its template as it was, with the question in its place, whatever signs it has."""

import pytest
from jinja2 import Environment

from blip2vqa.adapters.files.chat_template import chat_template

MESSAGES = [{"role": "system", "content": "no"}, {"role": "user", "content": "what is <it>?"}]


@pytest.mark.parametrize(
    "prompt",
    ["Question: {question} Answer:", 'Say "{{ it }}":\n{question} ü %}', "a photo of", "{question}", "\\n{question}\\"],
)
def test_filled_it_is_the_prompt(prompt):
    said = Environment().from_string(chat_template(prompt)).render(messages=MESSAGES)
    assert said == prompt.replace("{question}", "what is <it>?")
