"""The prompt of an adapter as servers of models read it."""

import json

CHAT_TEMPLATE = "chat_template.jinja"
"""The file in a model's folder that tokenizers and servers read."""


def chat_template(prompt: str) -> str:
    """Write a prompt as a Jinja template of messages, by which servers such as vLLM ask a model."""
    before, question, after = (json.dumps(part, ensure_ascii=False) for part in prompt.partition("{question}"))
    asked = "{{ message.content }}" if question != '""' else ""
    return f'{{% for message in messages if message.role == "user" %}}{{{{ {before} }}}}{asked}{{{{ {after} }}}}{{% endfor %}}'
