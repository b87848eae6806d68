"""The queue of the page, in which users who ask at the same time share batches."""

from typing import Any

import gradio as gr
import orjson
from gradio.context import LocalContext

GATHERING = 0.1
"""Seconds between two looks at an empty queue (Gradio's own: 0.05): who asks within them shares a batch. With the pause of 0.05
the first of several was often answered alone, before the others."""
WAITING = 64
"""Requests that may wait; more are told that the queue is full."""
FORMS = (
    'give a picture as {"path": what its upload answered, "meta": {"_type": "gradio.FileData"}}, and the rest as plain JSON, '
    "with no half of a surrogate pair"
)


def open_queue(page: gr.Blocks) -> None:
    """Open the queue, the only way to the model; it takes no request that Gradio cannot read.

    Gradio reads the requests of a batch when it is their turn, and one that it cannot read fails all of them. So each is read
    by itself before it may wait, and refused with status 400 and a line in `detail`.
    """
    page.queue(max_size=WAITING, api_open=False)
    page._queue.sleep_when_free = GATHERING
    push = page._queue.push

    async def push_readable(body, request, username):
        if problem := await _problem(page, body.fn_index, body.data):
            return False, problem, "error"
        return await push(body=body, request=request, username=username)

    page._queue.push = push_readable


async def _problem(page: gr.Blocks, number: int | None, values: list[Any]) -> str | None:
    """Say why Gradio cannot read the values for a function of the page; None where it can."""
    function = page.fns.get(number)
    if function is None:
        return f"fn_index: there is no function {number}"
    if len(values) != len(function.inputs):
        return f"data: holds {len(values)} values; give {len(function.inputs)} to {function.api_name}"
    LocalContext.blocks.set(page)  # by which Gradio knows where uploads are
    try:
        orjson.dumps(values)  # as Gradio writes what is given back
        await page.preprocess_data(function, values, None)
    except Exception:  # each of Gradio's components raises its own
        return f"data: holds what cannot be read; {FORMS}"
    return None
