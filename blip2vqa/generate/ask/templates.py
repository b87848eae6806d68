"""Questions in the fixed wordings of templates.toml, about what the catalogue says: no model, no network."""

import random
import tomllib
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from blip2vqa.generate.catalogue.vocabulary import vocabulary
from blip2vqa.generate.rows import Item, Question

SOURCE = "templates"
CHOICES = 4  # answers offered by a question to choose from
NAMED = 0.5  # share of the questions that name the product ("the boot"); the others say "the product"


@cache
def wordings() -> dict:
    """Read templates.toml, once."""
    return tomllib.loads((Path(__file__).parent / "templates.toml").read_text(encoding="utf-8"))


def ask_templates(items: Sequence[Item], seed: int) -> list[Question]:
    """Ask one question for each fact and form that there are wordings for, in the order of the items.

    Wrong answers to choose from, and the values of questions whose answer is no, are drawn from the facts of the other items,
    in proportion to how often they occur, and never from values that could be right, too. An item's questions depend on the
    seed, its name and the values of all items, not on their order.
    """
    values = {kind: Counter(item.facts[kind] for item in items if kind in item.facts) for kind in wordings()["open"]}
    return [question for item in items for question in _about(item, values, random.Random(f"{seed} {item.image_name}"))]


def ask_unknown(items: Sequence[Item], seed: int) -> list[Question]:
    """Ask, without an answer, about every kind of fact that the catalogue does not state for an item."""
    asked = []
    for item in items:
        rng = random.Random(f"{seed} unknown {item.image_name}")
        for kind, wording in wordings()["open"].items():
            if kind not in item.facts:
                asked.append(Question(item, _fill(rng.choice(wording), item, kind, rng, {}), "", kind, SOURCE, kind))
    return asked


def with_article(noun: str) -> str:
    """Put the right article before a noun: `a boot`, `an umbrella`, `a pair of scissors`, `soap`."""
    articles = wordings()["articles"]
    if noun in articles["none"]:
        return noun
    if noun in articles["plural"]:
        return f"a pair of {noun}"
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _about(item: Item, values: dict[str, Counter], rng: random.Random) -> list[Question]:
    words, asked = wordings(), []

    def add(kind: str, form: str, wording: str, answer: str, about: str, **more: str) -> None:
        text = _fill(wording, item, kind, rng, more)
        asked.append(Question(item, text, answer, form, SOURCE, about, raw_answer=answer))

    for kind, answer in item.facts.items():
        if kind in words["open"]:
            add(kind, kind, rng.choice(words["open"][kind]), answer, kind)
    for kind, wording in words["choice"].items():
        wrong = _wrong(item, kind, values[kind], rng, CHOICES - 1)
        if len(wrong) == CHOICES - 1:
            shown = [with_article(value) if kind == "object" else value for value in (item.facts[kind], *wrong)]
            rng.shuffle(shown)
            options = dict(zip("abcd", shown, strict=True))
            add(kind, "comparison", rng.choice(wording), item.facts[kind], f"{kind} of {CHOICES}", **options)
    if "proportion" in item.facts:
        form = rng.choice(list(words["proportion"]))
        answer = item.facts["proportion"]
        if form == "height":
            answer = {"taller": "height", "wider": "width"}[answer]
        add("proportion", "comparison", rng.choice(words["proportion"][form]), answer, form)
    for kind, wording in words["yes/no"].items():
        if kind in item.facts:
            plausible = _plausible(item, kind, values[kind], rng)
            wrong = _wrong(item, kind, plausible, rng, 1) or _wrong(item, kind, values[kind], rng, 1)
            true = rng.random() < 0.5
            value = item.facts[kind] if true or not wrong else wrong[0]
            shown = with_article(value) if kind == "object" else value
            answer = "yes" if value == item.facts[kind] else "no"
            add(kind, "yes/no", rng.choice(wording), answer, f"{kind}={value}", value=shown)
    return asked


def _plausible(item: Item, kind: str, counts: Counter, rng: random.Random) -> Counter:
    """Narrow nouns, half of the time, to those of the item's own category: a sandal for a boot rather than a lamp."""
    category_of = vocabulary().category_of
    if kind != "object" or rng.random() < 0.5:
        return counts
    own = category_of[item.facts["object"]]
    return Counter({noun: count for noun, count in counts.items() if category_of[noun] == own})


def _wrong(item: Item, kind: str, counts: Counter, rng: random.Random, number: int) -> list[str]:
    """Draw values that are wrong for the item, weighted by their counts; [] where its own value is not known."""
    if kind not in item.facts:
        return []
    could = vocabulary().could_both_be
    left = {
        value: count
        for value, count in sorted(counts.items())
        if not could(kind, item.facts[kind], value) and value not in item.not_wrong | item.named
    }
    drawn = []
    while left and len(drawn) < number:
        value = rng.choices(list(left), list(left.values()))[0]
        drawn.append(value)
        left = {other: count for other, count in left.items() if not could(kind, value, other)}
    return drawn


def _fill(wording: str, item: Item, kind: str, rng: random.Random, more: dict[str, str]) -> str:
    articles, neutral = wordings()["articles"], rng.choice(wordings()["things"]["neutral"])
    noun = item.facts.get("object")
    # "What is the glass made of?" would answer itself.
    named = noun not in (None, item.facts.get(kind)) and kind not in ("object", "category") and rng.random() < NAMED
    plural = named and noun in articles["plural"]
    verb = "are" if plural else "is"
    return wording.format(
        **{"thing": f"the {noun}" if named else neutral, "neutral": neutral, "is": verb, "Is": verb.title()},
        does="do" if plural else "does",
        **more,
    )
