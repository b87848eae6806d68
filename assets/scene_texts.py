"""Captions of a scene, and questions with one-word answers, in wordings of our own.

    python assets/scene_texts.py             # print some

Every function draws from the `random.Random` it is given and reads the scene's description, never its pixels.
"""

import random
from collections.abc import Callable

from scenes import COLOR_NAMES, SHAPES, Item, Scene, draw_scene

THINGS = ("shape", "shape", "object", "thing", "figure", "item")
PICTURES = ("picture", "picture", "image", "image", "drawing", "scene", "photo")
CAPTION_PROMPTS = {
    "short": ("", "", "", "a picture of", "A photo of", "an image of", "a drawing of"),
    "detailed": ("A detailed description:", "Describe the picture in detail:", "the picture shows"),
    "creative": ("A playful line about the picture:", "A story about the picture:", "Write something creative:"),
}
"""Prompts a caption may follow, by style. A caption after a prompt that ends in `of` starts without a capital."""
QUESTION_PROMPTS = (
    "Question: {question} Answer in one word:", "Question: {question} Answer in one word:",
    "Question: {question} Answer:", "Question: {question} Short answer:",
)  # fmt: skip

POSITIVE = (
    "is there {a}?", "is there {a} in the {pic}?", "is there {a} here?", "is {a} visible?", "can you see {a}?",
    "do you see {a} in the {pic}?", "does the {pic} show {a}?", "does this {pic} contain {a}?", "is {a} shown?",
    "does the {pic} have {a}?", "is any {bare} present?", "is {a} present in the {pic}?", "are there any {many}?",
    "does the {pic} include {a}?", "is {a} in the {pic}?", "do we find {a} here?", "is {a} in sight?",
)  # fmt: skip
NEGATIVE = (
    "is there no {bare}?", "is there no {bare} in the {pic}?", "is there not {a}?", "is there not {a} in this {pic}?",
    "is there not any {bare} here?", "is no {bare} here?", "is no {bare} visible?", "is no {bare} shown?",
    "does the {pic} lack {a}?", "is {a} missing?", "is {a} missing from the {pic}?", "is {a} absent?",
    "does the {pic} not show {a}?", "does this {pic} not contain {a}?", "does the {pic} not have {a}?",
    "does the {pic} contain no {bare}?", "does the {pic} show no {bare}?", "can you see no {bare}?",
    "is the {pic} without {a}?", "is the {pic} free of {many}?", "are there no {many}?", "is {a} not present?",
    "is {a} not in the {pic}?", "is no {bare} present in this {pic}?", "do you not see {a}?", "are {many} missing?",
)  # fmt: skip
COLOR_ASKED = (
    "what color is {the}?", "which color is {the}?", "what is the color of {the}?", "which color does {the} have?",
    "{the} has what color?", "what colour is {the}?", "what is {the} painted in?", "name the color of {the}.",
)  # fmt: skip
SHAPE_ASKED = (
    "what shape is {the}?", "which shape is {the}?", "what is {the}?", "what kind of shape is {the}?",
    "what is the shape of {the}?", "which form does {the} have?", "name {the}.",
)  # fmt: skip
ONLY_SHAPE_ASKED = (
    "what shape is in the {pic}?", "which shape does the {pic} show?", "what does the {pic} show?", "what do you see?",
)  # fmt: skip
WHERE_ASKED = (
    "where is {the}?", "on which side is {the}?", "where in the {pic} is {the}?", "in which part lies {the}?",
    "what is the position of {the}?", "where does {the} lie?",
)  # fmt: skip
SIZE_ASKED = ("how big is {the}?", "what size is {the}?", "is {the} small or large?", "what is the size of {the}?")
COUNT_ASKED = (
    "how many {many} are there?", "how many {many} are in the {pic}?", "what is the number of {many}?",
    "count the {many}.", "how many {many} can you see?", "how many {many} does the {pic} show?",
)  # fmt: skip
PLACES = ("left", "right", "top", "bottom")
NUMBERS = ("no", "one", "two", "three", "four", "five")


def a(words: str) -> str:
    """The words with their article: `an orange star`."""
    return ("an " if words[0] in "aeiou" else "a ") + words


def plural(words: str) -> str:
    """The words in the plural: `crosses`, `red stars`."""
    return words + ("es" if words.endswith("s") else "s")


def _holds(item: Item, color: str, shape: str) -> bool:
    return color in ("", item.color) and shape in ("", item.shape)


def _words(rng: random.Random, color: str, shape: str) -> str:
    return f"{color} {shape or rng.choice(THINGS)}".strip()


def _blurred(scene: Scene, shape: str) -> bool:
    """Whether people could quarrel over this name here: a square is a rectangle too."""
    names = {item.shape for item in scene.items}
    return shape == "rectangle" and "square" in names


def _fill(rng: random.Random, template: str, words: str, **more: str) -> str:
    return template.format(a=a(words), bare=words, many=plural(words), pic=rng.choice(PICTURES), **more)


def references(scene: Scene, item: Item, hide: str = "") -> list[str]:
    """Phrases that mean this item and no other; `hide` ("color" or "shape") is what they may not tell."""
    others = [other for other in scene.items if other is not item]
    found = []
    if not others:
        found += ["the shape", "the object", "the thing", "the figure"] + (["it"] if hide else [])
    if hide != "color" and all(other.color != item.color for other in others):
        found += [f"the {item.color} {thing}" for thing in ("shape", "object", "thing", "item")] * (1 + (not others))
    if hide != "shape" and all(other.shape != item.shape for other in others) and not _blurred(scene, item.shape):
        found += [f"the {item.shape}"] * 4
    if not hide and others and not any(_holds(other, item.color, item.shape) for other in others):
        found += [f"the {item.color} {item.shape}"] * 2
    if others:
        for word, value in (("largest", item.radius), ("smallest", -item.radius)):
            side = 1 if word == "largest" else -1
            if all(value - side * other.radius > 2.5 for other in others):
                found.append(f"the {word} {('shape', 'object')[word == 'smallest']}")
        for word, value in (("left", -item.x), ("right", item.x), ("top", -item.y), ("bottom", item.y)):
            axis, sign = ("x" if word in ("left", "right") else "y"), (-1 if word in ("left", "top") else 1)
            if all(value - sign * getattr(other, axis) > 9 for other in others):
                found.append(f"the object {'at' if axis == 'y' else 'on'} the {word}")
    return found


def ask_exists(scene: Scene, rng: random.Random, negated: bool) -> tuple[str, str] | None:
    """Yes or no: is something of this colour, shape or both there, or, negated, is it not?"""
    there = rng.random() < 0.43  # the others are refused more often below: half and half in the end
    by = rng.choices(("color", "shape", "both"), (4, 4, 3))[0]
    item = rng.choice(scene.items)
    color, shape = item.color, item.shape
    if not there:
        if by == "both" and rng.random() < 0.7:
            other = rng.choice(scene.items)
            near = ((color, rng.choice(SHAPES)), (rng.choice(COLOR_NAMES), shape), (color, other.shape))
            color, shape = rng.choice(near)
        else:
            color, shape = rng.choice(COLOR_NAMES), rng.choice(SHAPES)
    color, shape = color * (by != "shape"), shape * (by != "color")
    if any(_holds(other, color, shape) for other in scene.items) != there or (not there and _blurred(scene, shape)):
        return None
    question = _fill(rng, rng.choice(NEGATIVE if negated else POSITIVE), _words(rng, color, shape))
    return question, "yes" if there != negated else "no"


def ask_attribute(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    """Yes or no: has this item that colour, shape, size or place, or has it not?"""
    item = rng.choice(scene.items)
    kind = rng.choice(("color", "color", "shape", "shape", "size", "place"))
    value = getattr(item, kind)
    choices = {"color": COLOR_NAMES, "shape": SHAPES, "size": ("small", "large"), "place": PLACES}[kind]
    names = references(scene, item, kind if kind in ("color", "shape") else "")
    if not names or value not in choices or (kind == "shape" and value == "square"):
        return None
    said = value if rng.random() < 0.5 else rng.choice(choices)
    what = {"shape": a(said), "place": f"{'at' if said in ('top', 'bottom') else 'on'} the {said}"}.get(kind, said)
    negated = rng.random() < 0.4
    return f"is {rng.choice(names)} {'not ' * negated}{what}?", "yes" if (said == value) != negated else "no"


def ask_number_check(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """Yes or no: are there so many items?"""
    count = len(scene.items)
    said = count if rng.random() < 0.5 else rng.randint(1, 4)
    negated = rng.random() < 0.4
    things = rng.choice(THINGS) if said == 1 else plural(rng.choice(THINGS))
    verb = "is there" if said == 1 else "are there"
    word = rng.choice(("", "exactly ", "just "))
    question = f"{verb} {'not ' * negated}{word}{NUMBERS[said]} {things}?"
    return question, "yes" if (said == count) != negated else "no"


def ask_compare(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    """Yes or no: is one item larger, or further left, than the other?"""
    if len(scene.items) < 2:
        return None
    one, other = rng.sample(scene.items, 2)
    names = [[n for n in references(scene, item) if "object" not in n] for item in (one, other)]
    if not all(names):
        return None
    gap, words = rng.choice(
        (
            (one.radius - other.radius, ("bigger than", "larger than")),
            (other.radius - one.radius, ("smaller than",)),
            ((other.x - one.x) / 3, ("to the left of", "left of")),
            ((one.x - other.x) / 3, ("to the right of", "right of")),
            ((other.y - one.y) / 3, ("above", "higher than")),
            ((one.y - other.y) / 3, ("below", "lower than")),
        )
    )
    if abs(gap) < 2.5:
        return None
    return f"is {rng.choice(names[0])} {rng.choice(words)} {rng.choice(names[1])}?", "yes" if gap > 0 else "no"


def _ask_open(kind: str, templates: tuple[str, ...]) -> Callable[[Scene, random.Random], tuple[str, str] | None]:
    def ask(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
        item = rng.choice(scene.items)
        names = references(scene, item, kind if kind in ("color", "shape") else "")
        answer = getattr(item, kind)
        if not names or not answer:
            return None
        if kind == "shape" and len(scene.items) == 1 and rng.random() < 0.3:
            return _fill(rng, rng.choice(ONLY_SHAPE_ASKED), "x"), answer
        return _fill(rng, rng.choice(templates), "x", the=rng.choice(names)), answer

    return ask


def ask_count(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    """How many items, or how many of a colour or a shape?"""
    item = rng.choice(scene.items)
    by = rng.choice(("all", "all", "color", "shape"))
    color, shape = item.color * (by == "color"), item.shape * (by == "shape")
    if by != "all" and rng.random() < 0.25:
        color, shape = rng.choice(COLOR_NAMES) * (by == "color"), rng.choice(SHAPES) * (by == "shape")
    if _blurred(scene, shape):
        return None
    count = sum(_holds(other, color, shape) for other in scene.items)
    if count == 1 and rng.random() < 0.5:
        return None
    return _fill(rng, rng.choice(COUNT_ASKED), _words(rng, color, shape)), str(count)


def ask_ground(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    """Is the background light or dark?"""
    if scene.ground == "mid" or (scene.ground == "light" and rng.random() < 0.7):
        return None
    return rng.choice(("is the background light or dark?", "how bright is the background?")), scene.ground


ASKERS: dict[str, tuple[Callable[[Scene, random.Random], tuple[str, str] | None], int]] = {
    "exists": (lambda scene, rng: ask_exists(scene, rng, False), 19),
    "exists not": (lambda scene, rng: ask_exists(scene, rng, True), 22),
    "attribute": (ask_attribute, 9),
    "number check": (ask_number_check, 3),
    "compare": (ask_compare, 6),
    "color": (_ask_open("color", COLOR_ASKED), 14),
    "shape": (_ask_open("shape", SHAPE_ASKED), 14),
    "where": (_ask_open("place", WHERE_ASKED), 6),
    "size": (_ask_open("size", SIZE_ASKED), 4),
    "count": (ask_count, 10),
    "ground": (ask_ground, 1),
}
"""Question kinds: the function that asks, and how often relative to the others."""
KINDS = tuple(ASKERS)
WEIGHTS = tuple(weight for _, weight in ASKERS.values())


def ask(scene: Scene, rng: random.Random, kind: str = "") -> tuple[str, str, str]:
    """One question about the scene: kind, question, one-word answer. A kind is tried until it gives a question."""
    while True:
        chosen = kind or rng.choices(KINDS, WEIGHTS)[0]
        found = ASKERS[chosen][0](scene, rng)
        if found:
            return chosen, *found


def caption(scene: Scene, rng: random.Random, style: str = "short") -> str:
    """One caption, no full stop at the end of the short one. Styles: `short`, `detailed`, `creative`."""
    items = sorted(scene.items, key=lambda item: (item.x, item.y))
    names = [f"{item.color} {item.shape}" for item in items]
    if style == "short":
        parts = [a(name) for name in names]
        if len(parts) > 2 and rng.random() < 0.2:
            return f"{NUMBERS[len(parts)]} shapes: " + ", ".join(names)
    elif style == "detailed":
        spots = {"": "", "middle": " in the middle", "left": " on the left", "right": " on the right",
                 "top": " at the top", "bottom": " at the bottom"}  # fmt: skip
        parts = [a(f"{item.size} {name}".strip()) + spots[item.place] for item, name in zip(items, names, strict=True)]
    else:
        verbs = rng.sample(("dances", "sleeps", "dreams", "waits", "sings", "smiles", "rests", "floats"), len(names))
        parts = [f"{a(name)} {verb}" for name, verb in zip(names, verbs, strict=True)]
    joined = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
    if style == "detailed":
        return f"{joined}, on a {scene.ground} background."
    if style == "creative":
        return rng.choice(("once upon a time {}.", "look, {}!", "in a quiet world {}.", "tonight {}.")).format(joined)
    return joined


if __name__ == "__main__":
    source = random.Random(0)
    for number in range(6):
        drawn = draw_scene(source)
        print(f"scene {number}: {[(i.color, i.shape, i.size, i.place) for i in drawn.items]}")
        for name in CAPTION_PROMPTS:
            print("   ", name, "|", caption(drawn, source, name))
        for _ in range(12):
            print("   ", *ask(drawn, source), sep=" | ")
