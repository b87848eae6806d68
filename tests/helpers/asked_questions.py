"""Questions about pictures that need not be there, and a few that pass two filters, for tests."""

from pathlib import Path

from blip2vqa.generate.filter.funnel import Funnel
from blip2vqa.generate.rows import Item, Question

AWKWARD = ['What, "now"?', "Is it 'red'?", "Größe – 色 😀?", "two\nlines?", "tab\t; and = sign?", " a ", "a\u2028b?"]


def asked(
    picture="a.jpg", question="What is this?", answer="boot", kind="object", group=0, item_id="B0", **more
) -> Question:
    item = Item(picture, Path(picture), f"digest of {picture}", item_id, "SHOES", "Boot", {}, group=group)
    return Question(item, question, answer, kind, "templates", **more)


def funnel_of_four() -> Funnel:
    """Two stay; one falls at the first filter, one at the second."""
    funnel = Funnel([
        asked("a.jpg", "Red?", "dark red", raw_answer="Dark red.", prompt_hash="ab"), asked("a.jpg", AWKWARD[2]),
        asked("b.jpg", group=1), asked("c.jpg", group=2, answer="lamp"),
    ])  # fmt: skip
    funnel.pass_through("single word", ["more than one word", None, None, None])
    funnel.pass_through("listing", iter([None, None, "the catalogue says otherwise"]))
    return funnel
