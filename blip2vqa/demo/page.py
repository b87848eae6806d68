"""The page in Gradio's components: what stands where, and which endpoint each button asks."""

import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.events import Dependency

from blip2vqa.api import VQAModel
from blip2vqa.config.styles import known_styles
from blip2vqa.demo.answers import BASE, loaded_names, names_for_questions
from blip2vqa.demo.chat import describe_chat, keeps_history
from blip2vqa.demo.endpoints import Endpoints
from blip2vqa.demo.queueing import open_queue
from blip2vqa.demo.rendering import STYLE, alert, render
from blip2vqa.evaluation.tasks import CAPTION
from blip2vqa.inference.captioning import DEFAULT_STYLES

MOST_AT_ONCE = 8
"""Users whose questions share a batch."""
DAY = 24 * 3600
STYLING: dict[str, Any] = {
    # Fonts of the reader's own machine: the default ones would come from elsewhere.
    "theme": gr.themes.Default(
        primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    ).set(button_primary_background_fill="*primary_600", button_primary_background_fill_hover="*primary_700"),
    "css_paths": [STYLE],
}
NAME_EXAMPLES = """() => document.querySelectorAll("button.gallery-item").forEach(
    (button, number) => button.setAttribute("aria-label", `Example picture ${number + 1}`))"""
"""Gradio's buttons of pictures have no name, which a screen reader needs."""
ON_THE_MODEL = {"concurrency_id": "model", "concurrency_limit": 1, "preprocess": False}
"""One batch at a time; values come as they were sent, and are checked by the endpoints, each by itself."""
BATCHED = ON_THE_MODEL | {"batch": True, "max_batch_size": MOST_AT_ONCE}
NOTHING_CAME = "No answer came: too many are asking, or the server failed; ask again"
SHOW = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}


def build_page(model: VQAModel, examples: list[Path], open_to_changes: bool) -> gr.Blocks:
    """Build the page over a loaded model; `open_to_changes`: whether adapters may be loaded and dropped from it."""
    ends = Endpoints(model)
    with gr.Blocks(title="BLIP-2 VQA demo", analytics_enabled=False, delete_cache=(3600, DAY)) as page:
        gr.Markdown("# Ask about a picture")
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                picture = gr.Image(
                    label="Picture", sources=["upload", "webcam", "clipboard"], type="filepath", image_mode=None, height=340,
                    buttons=["fullscreen"], elem_id="picture", alt_text="The picture that is asked about",
                )  # fmt: skip
                if examples:
                    gr.Examples(
                        [[str(path)] for path in examples],
                        [picture],
                        label="Example pictures",
                        api_visibility="private",
                    )
            with gr.Column(scale=3, min_width=380):
                with gr.Tab("Ask"):
                    choices = _ask_tab(ends, picture)
                with gr.Tab("Captions"):
                    styles = _captions_tab(ends, picture)
                with gr.Tab("Chat"):
                    speaker = _chat_tab(ends, picture)
                with gr.Tab("Adapters"):
                    cards, checked, changes = _adapters_tab(ends, open_to_changes)

        def refresh():
            named, asked = [name for name in loaded_names(model) if name != BASE], names_for_questions(model)
            return (
                gr.update(choices=asked, value=asked[:6]),
                gr.update(choices=_styles(model)),
                gr.update(choices=asked, value=asked[-1]),
                render("adapters", **ends.adapters()),
                gr.update(choices=named, value=named[0] if named else None),
            )

        shown = [choices, styles, speaker, cards, checked]
        page.load(refresh, None, shown, **SHOW).then(None, js=NAME_EXAMPLES)
        for change in changes:
            change.then(refresh, None, shown, **SHOW)
        gr.api(ends.adapters, api_name="adapters", concurrency_id="model", concurrency_limit=1)
    open_queue(page)
    return page


def _show(
    asked: Dependency, show: Callable, given: list | gr.JSON, places: list | gr.HTML, problem: gr.HTML
) -> Dependency:
    """Show what an endpoint gave, or at `problem` that nothing came: the queue was full, or the server failed."""
    asked.failure(lambda: alert(NOTHING_CAME), None, problem, **SHOW)
    return asked.success(show, given, places, **SHOW)


def _ask_tab(ends: Endpoints, picture: gr.Image) -> gr.Dropdown:
    names = names_for_questions(ends.model)
    question = gr.Textbox(label="Question", placeholder="What is it?", max_length=1000, elem_id="question")
    models = gr.Dropdown(
        names, value=names[:6], multiselect=True, allow_custom_value=True, label="Asked: the base, and adapters by name"
    )
    button = gr.Button("Ask", variant="primary", elem_id="ask")
    shown = gr.HTML(elem_id="answers", min_height=60)
    found = gr.JSON(visible=False)
    asked = gr.on(
        [button.click, question.submit], ends.answer, [picture, question, models], found, api_name="answer",
        show_progress_on=shown, **BATCHED,
    )  # fmt: skip
    _show(asked, answers_table, found, shown, shown)
    picture.change(lambda: "", None, shown, **SHOW)
    return models


NOTES = {
    "probability": "Probability: how likely the answer is right, as the adapter was calibrated.",
    "confidence": "Confidence: the model's own probability of these words, which is not that of being right.",
}


def answers_table(found: dict) -> str:
    """Show what `/answer` gave; the number is the probability of being right, or the confidence where there is none."""
    rows = []
    for row in found["answers"]:
        known = row["probability_right"] is not None
        share = row["probability_right"] if known else row["confidence"]
        rows.append({**row, "share": share, "kind": "probability" if known else "confidence"})
    notes = [NOTES[kind] for kind in NOTES if any(row["kind"] == kind for row in rows)]
    return render("answers", answers=rows, notes=notes, error=found["error"])


def _captions_tab(ends: Endpoints, picture: gr.Image) -> gr.Dropdown:
    styles = gr.Dropdown(
        _styles(ends.model), value=list(DEFAULT_STYLES), multiselect=True, allow_custom_value=True,
        label="Styles, and adapters that write captions",
    )  # fmt: skip
    button = gr.Button("Caption", variant="primary", elem_id="caption")
    shown = gr.HTML(elem_id="captions", min_height=60)
    found = gr.JSON(visible=False)
    asked = button.click(
        ends.caption, [picture, styles], found, api_name="caption", show_progress_on=shown, **ON_THE_MODEL
    )
    _show(asked, lambda found: render("captions", **found), found, shown, shown)
    picture.change(lambda: "", None, shown, **SHOW)
    return styles


def _styles(model: VQAModel) -> list[str]:
    own = [ref.name for ref, found in model.spec.adapters.items() if found.manifest.get("task") == CAPTION.name]
    return [*dict.fromkeys([*DEFAULT_STYLES, *known_styles(), *own])]


def _chat_tab(ends: Endpoints, picture: gr.Image) -> gr.Dropdown:
    names = names_for_questions(ends.model)
    gr.HTML(render("note", text=describe_chat(ends.model)))
    speaker = gr.Dropdown(names, value=names[-1], allow_custom_value=True, label="Answered by")
    # Markdown is off, but HTML would still be shown as such: `show` escapes it.
    shown = gr.Chatbot(
        label="Conversation",
        render_markdown=False,
        height=320,
        buttons=["copy_all"],
        feedback_options=None,
        elem_id="chat",
    )
    problem = gr.HTML(elem_id="chat-problem")
    question = gr.Textbox(
        label="Your question", placeholder="Ask about the picture, then go on", max_length=1000, elem_id="chat-question"
    )
    with gr.Row():
        button = gr.Button("Send", variant="primary", elem_id="send")
        clear = gr.Button("Start anew")
    history, found = gr.JSON([], visible=False), gr.JSON(visible=False)

    def show(found: dict, question: str):
        if found["error"]:
            return gr.skip(), found["history"], question, alert(found["error"])
        messages = [
            {"role": role, "content": html.escape(text) or "(nothing)"}
            for turn in found["history"]
            for role, text in zip(("user", "assistant"), turn, strict=True)
        ]
        left = len(found["history"]) - 1 - found["turns_in_prompt"]
        note = (
            f"The first turns, {left} of them, no longer fit the prompt." if left and keeps_history(ends.model) else ""
        )
        return messages, found["history"], "", render("note", text=note)

    asked = gr.on(
        [button.click, question.submit], ends.chat, [picture, question, speaker, history], found, api_name="chat",
        show_progress_on=shown, **BATCHED,
    )  # fmt: skip
    _show(asked, show, [found, question], [shown, history, question, problem], problem)
    for begins_anew in (picture.change, clear.click, shown.clear):
        begins_anew(lambda: ([], [], ""), None, [shown, history, problem], **SHOW)
    return speaker


def _adapters_tab(ends: Endpoints, open_to_changes: bool) -> tuple[gr.HTML, gr.Dropdown, list]:
    """Build the tab; returns the cards, the adapter that is chosen, and the events that change which are loaded."""
    cards = gr.HTML(elem_id="cards")
    names = [name for name in loaded_names(ends.model) if name != BASE]
    chosen = gr.Dropdown(names, allow_custom_value=open_to_changes, label="Adapter")
    with gr.Row():
        check = gr.Button("Check against the base", elem_id="check")
        drop = gr.Button("Drop", visible=open_to_changes, elem_id="drop")
    shown, found = gr.HTML(elem_id="checked"), gr.JSON(visible=False)
    checked = check.click(
        lambda adapter: ends.check_adapter(adapter, any_path=open_to_changes), chosen, found, api_name="check_adapter",
        show_progress_on=shown, **ON_THE_MODEL,
    )  # fmt: skip
    _show(checked, lambda found: render("check", **found), found, shown, shown)
    if not open_to_changes:
        return cards, chosen, []
    with gr.Row():
        path = gr.Textbox(
            label="Load another: folder, name in the store or Hub id", scale=3, max_length=1000, elem_id="path"
        )
        name = gr.Textbox(label="Called", placeholder="as its folder", max_length=100)
    add = gr.Button("Load", elem_id="add")
    added = add.click(
        ends.add_adapter, [path, name], found, api_name="add_adapter", show_progress_on=shown, **ON_THE_MODEL
    )
    dropped = drop.click(
        ends.drop_adapter, chosen, found, api_name="drop_adapter", show_progress_on=shown, **ON_THE_MODEL
    )
    changes = [_show(event, lambda found: alert(found["error"]), found, shown, shown) for event in (added, dropped)]
    return cards, chosen, changes
