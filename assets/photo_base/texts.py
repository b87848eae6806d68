"""What the language model reads and writes: captions of photographs, and questions about their facts.

Questions come from the project's own generator (`blip2vqa.generate.ask.templates`) and from wordings.toml.
"""

import random
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from blip2vqa.generate.ask import templates
from blip2vqa.generate.ask.templates import ask_templates, with_article
from blip2vqa.generate.catalogue.vocabulary import vocabulary
from blip2vqa.generate.rows import Item
from photo_base.pseudo_facts import with_colors
from photo_base.teacher import clean_name

FREQUENT = 12
"""Times that a word must occur in the products' names to be whole in the vocabulary."""
LEAST_NAMES = 3
"""Photographs in whose names two words must stand together for the first to be a sort of the second."""
ROUNDS = 3
"""Times that everything is asked about a photograph, each time in other words."""
OPPOSITE = {"yes": "no", "no": "yes"}
PLURAL = frozenset(templates.wordings()["articles"]["plural"])
"""Nouns that would need other forms of the verbs."""
UNCOUNTED = frozenset(templates.wordings()["articles"]["none"])


@dataclass(frozen=True, slots=True)
class Text:
    """A text about a photograph."""

    row: int
    """Row of the photograph."""
    kind: str
    """`caption`, `name`, or the kind of the question: `color`, `yes/no color`, `negated color`, `either color`."""
    prompt: str
    target: str


@cache
def wordings() -> dict:
    """Read wordings.toml, once."""
    return tomllib.loads(Path(__file__).with_name("wordings.toml").read_text(encoding="utf-8"))


def write_texts(
    items: Mapping[int, Item], titles: Mapping[int, str], seed: int, rounds: int
) -> tuple[list[Text], list[Text]]:
    """Write captions of, and questions about, photographs by row; every round in other words."""
    values: dict[str, Counter] = {}
    for item in items.values():
        for kind, value in item.facts.items():
            values.setdefault(kind, Counter())[value] += 1
    captions, questions = [], []
    sorts = find_sorts(titles)
    for number in range(seed, seed + rounds):
        rng = random.Random(number)
        for row in sorted(items.keys() | titles.keys()):
            captions += write_captions(row, items.get(row), titles.get(row, ""), rng)
            questions += [ask_sort(row, sort, noun, rng) for sort, noun in sorts.get(row, ())]
        questions += ask_generator(items, number)
        for row, item in items.items():
            questions += ask_more(row, item, values, rng)
    return captions, questions


def write_held_texts(items: Sequence[Item], colors: Sequence[Mapping[str, float]], seed: int) -> list[Text]:
    """Write one round of texts about held-out photographs, whose colors were measured; none says their names."""
    described = {row: with_colors(item, shares) for row, (item, shares) in enumerate(zip(items, colors, strict=True))}
    return [text for texts in write_texts(described, {}, seed, 1) for text in texts]


def write_captions(row: int, item: Item | None, title: str, rng: random.Random) -> Iterator[Text]:
    """Caption a photograph by its facts, `a black leather boot`, and by the cleaned name of the product."""
    prompts = wordings()["captions"]
    if item and "object" in item.facts:
        parts = [item.facts.get(kind) for kind in ("color", "pattern", "material", "object")]
        words = list(dict.fromkeys(part for part in parts if part not in (None, "solid")))
        noun, phrase = words[-1], " ".join(words)
        # "a pair of black scissors", "white soap"; "an orange boot", where the first word decides
        caption = with_article(noun).removesuffix(noun) + phrase if noun in PLURAL | UNCOUNTED else with_article(phrase)
        yield Text(row, "caption", rng.choice(prompts["facts"]), caption)
    if name := clean_name(title):
        yield Text(row, "name", rng.choice(prompts["name"]), name)


def ask_generator(items: Mapping[int, Item], seed: int) -> Iterator[Text]:
    """Ask the questions of the project's generator about photographs whose product is known, by row."""
    rng = random.Random(seed)
    row_of = {item.image_name: row for row, item in items.items() if "object" in item.facts}
    for question in ask_templates([items[row] for row in row_of.values()], seed):
        about = "proportion" if question.kind in ("taller", "height") else question.kind
        kind = about if question.question_type == about else f"{question.question_type} {about}"
        yield Text(row_of[question.item.image_name], kind, write_prompt(question.question, rng), question.answer)


def ask_more(row: int, item: Item, values: Mapping[str, Counter], rng: random.Random) -> Iterator[Text]:
    """Ask about every fact of a photograph in the words of wordings.toml; `values` are all photographs' facts, by kind."""
    facts, words = item.facts, wordings()
    for kind, forms in words["open"].items():
        known = {"{category}": "category" in facts, "{color}": "color" in facts}
        forms = [form for form in forms if all(known[word] for word in known if word in form)]
        if kind in facts:
            yield Text(row, kind, write_prompt(_fill(rng.choice(forms), kind, item, rng), rng), facts[kind])
    for form, true_answer in (("yes/no", "yes"), ("negated", "no")):
        for kind, forms in words[form].items():
            if wrong := wrong_value(item, kind, values, rng):
                is_true = rng.random() < 0.5
                value = facts[kind] if is_true else wrong
                answer = true_answer if is_true else OPPOSITE[true_answer]
                forms = [wording for wording in forms if value not in PLURAL or "{value}" not in wording]
                yield Text(
                    row, f"{form} {kind}", write_prompt(_fill(rng.choice(forms), kind, item, rng, value), rng), answer
                )
    for kind in ("object", "color", "material"):
        if wrong := wrong_value(item, kind, values, rng):
            pair = [with_article(value) if kind == "object" else value for value in (facts[kind], wrong)]
            rng.shuffle(pair)
            one, two = pair
            question = rng.choice(words["either"]).format(one=one, two=two, One=one.capitalize())
            yield Text(row, f"either {kind}", write_prompt(question, rng), facts[kind])


def find_sorts(titles: Mapping[int, str]) -> dict[int, list[tuple[str, str]]]:
    """Find in names which sort of a thing, or of its part, a product is or has; returns (sort, noun) pairs by row.

    Such a pair, as (`block`, `heel`), stands in the names of a few photographs, and its sort says no color, material, shape or
    pattern.
    """
    own = wordings()["sorts"]
    nouns = {*vocabulary().category_of, *own["part"].split()} - set(own["unclear"].split())
    pairs = {row: list(pairwise(clean_name(title).split())) for row, title in titles.items()}
    times = Counter(pair for found in pairs.values() for pair in found)

    @cache
    def is_sort(sort: str, noun: str) -> bool:
        known = any(phrases.meanings(sort) for kind, phrases in vocabulary().phrases.items() if kind != "object")
        other = known or len(sort) < 4 or sort in own["other"].split()
        return noun in nouns and not other and times[sort, noun] >= LEAST_NAMES

    return {row: kept for row, found in pairs.items() if (kept := [pair for pair in found if is_sort(*pair)])}


def ask_sort(row: int, sort: str, noun: str, rng: random.Random) -> Text:
    """Ask which sort of a thing, or of its part, a photograph shows."""
    own = wordings()["sorts"]
    forms = own["of_part" if noun in own["part"].split() else "of_thing"]
    return Text(row, "sort", write_prompt(rng.choice(forms).format(noun=noun), rng), sort)


def wrong_value(item: Item, kind: str, values: Mapping[str, Counter], rng: random.Random) -> str | None:
    """Draw a value that is wrong for the item; None where its own is not known, or none is safely wrong.

    Half of the wrong objects are of the item's own category: a sandal for a boot rather than a lamp.
    """
    if kind not in item.facts:
        return None
    could, own = vocabulary().could_both_be, item.facts[kind]
    maybe = item.not_wrong | item.named
    left = [value for value in values[kind] if value not in maybe and not could(kind, own, value)]
    if kind == "object" and rng.random() < 0.5:
        category_of = vocabulary().category_of
        left = [value for value in left if category_of[value] == category_of[own]] or left
    return rng.choices(left, [values[kind][value] ** 0.5 for value in left])[0] if left else None


def echo(row: int, words: list[str], rng: random.Random) -> Text:
    """Ask to repeat some words, so that the language model learns to write all of its vocabulary."""
    said = " ".join(rng.choice(words) for _ in range(rng.randint(1, 3)))
    return Text(row, "echo", rng.choice(wordings()["echo"]).format(words=said), said)


def whole_words(titles: list[str]) -> list[str]:
    """List the words that the vocabulary must have whole."""
    counts = Counter(word for title in titles for word in clean_name(title).split())
    frequent = {word for word, count in counts.items() if count >= FREQUENT}
    own = wordings()["vocabulary"]["words"].split()
    return sorted({*vocabulary().category_of, *vocabulary().seen_as, *own, *frequent})


def write_prompt(question: str, rng: random.Random) -> str:
    """Put a question into a prompt, some in small letters, some without a question mark, as people write."""
    if rng.random() < 0.2:
        question = question[0].lower() + question[1:]
    if rng.random() < 0.15:
        question = question.rstrip("?.")
    return rng.choice(wordings()["prompts"]).format(question=question)


def _fill(wording: str, kind: str, item: Item, rng: random.Random, value: str = "") -> str:
    things, noun = wordings()["things"], item.facts.get("object")
    if noun and noun != item.facts.get(kind) and kind not in ("object", "category") and noun not in PLURAL:
        things = [*things, f"the {noun}", f"the {noun}"]
    question = wording.format(
        thing=rng.choice(things), value=value, a=with_article(value) if value and kind == "object" else value,
        category=item.facts.get("category", ""), color=item.facts.get("color", ""),
    )  # fmt: skip
    return question[0].upper() + question[1:]
