"""What can be said of photographs of which the catalogue says nothing: colors from their pixels, things from a classifier.

The classifier learns from the photographs with facts to say them by the features of the ImageNet network. Only what it is sure
of counts; how sure it must be is found by cross-validation. Compare Xie et al. 2020, https://arxiv.org/abs/1911.04252.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np

from blip2vqa.generate.catalogue.pictures import measure_picture
from blip2vqa.generate.catalogue.vocabulary import vocabulary
from blip2vqa.generate.rows import Item
from blip2vqa.utils.files import write_json_atomic
from photo_base.data import product_groups

KINDS = ("object", "material", "pattern")
"""Kinds of facts that the classifier says."""
RARE = 6
"""Fewest photographs with a value from which the classifier learns it."""
RIGHT = 0.92
"""Share that must be right among all guesses as sure as the least sure one that counts."""
MOST = 0.6
"""Share of the product's pixels that a color must have to be the product's, or that must be dark or light."""
SECOND = 0.25
"""Share from which a second color is named."""
LIGHT = ("white", "beige", "pink", "yellow")
SHADES = ({"black", "gray"}, {"white", "gray"}, {"beige", "brown"})
"""Pairs of colors of which one may be the other's shadow."""


def measure_all_colors(names: Sequence[str], folder: Path, work: Path) -> list[dict[str, float]]:
    """Measure the share of each basic color in each photograph's product, once; {} where it does not stand on white."""
    path = work / "colors.json"
    if not path.exists():
        with ThreadPool() as pool:
            found = pool.imap(partial(_colors, folder), names, chunksize=64)
            write_json_atomic(path, dict(zip(names, found, strict=True)))
    known = json.loads(path.read_text())
    return [known[name] for name in names]


def _colors(folder: Path, name: str) -> dict[str, float]:
    measured = measure_picture(folder / name)
    return {} if measured.height_to_width is None else measured.colors


def color_facts(colors: dict[str, float], own: str | None = None) -> dict[str, str]:
    """Say what the colors of a product show: whether it is dark or light, and which second color it clearly has.

    `own`: the product's color by the catalogue, where that says one.
    """
    facts = {}
    if colors.get("black", 0) > MOST:
        facts["brightness"] = "dark"
    elif sum(colors.get(name, 0) for name in LIGHT) > MOST:
        facts["brightness"] = "light"
    first, *others = sorted(colors, key=colors.get, reverse=True) or [""]
    could = vocabulary().could_both_be
    if others and colors[others[0]] > SECOND and {first, others[0]} not in SHADES:
        if own is None or (first == own and not could("color", own, others[0])):
            facts["second"] = others[0]
    return facts


def with_colors(item: Item, shares: dict[str, float]) -> Item:
    """Add to an item what the colors of its photograph show."""
    return replace(item, facts=item.facts | color_facts(shares, item.facts.get("color")))


def add_pseudo_facts(
    items: Sequence[Item | None], names: Sequence[str], features: np.ndarray, colors: Sequence[dict[str, float]]
) -> list[Item | None]:
    """Complete the facts of photographs, and describe those of which the catalogue says nothing.

    `features`: [pictures, any], of the network. Prints how many facts were guessed, and how many guesses are right.
    """
    guesses = {kind: _guess(kind, items, np.asarray(features, np.float32)) for kind in KINDS}
    found = []
    for place, (item, name, shares) in enumerate(zip(items, names, colors, strict=True)):
        if item:
            found.append(with_colors(item, shares))
        else:
            guessed = {kind: values[place] for kind, values in guesses.items() if place in values}
            found.append(_describe(name, guessed, shares))
    return found


def _guess(kind: str, items: Sequence[Item | None], features: np.ndarray) -> dict[int, str]:
    """Guess a kind of fact of the pictures without an item: value by place, where it is sure enough."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

    counts = Counter(item.facts[kind] for item in items if item and kind in item.facts)
    known = np.array([at for at, item in enumerate(items) if item and counts[item.facts.get(kind)] >= RARE])
    unknown = np.array([at for at, item in enumerate(items) if not item])
    truth = np.array([items[at].facts[kind] for at in known])
    if len(set(truth)) < 2 or not len(unknown):
        return {}
    model = LogisticRegression(C=0.003, max_iter=400, tol=1e-3)
    folds = StratifiedGroupKFold(3, shuffle=True, random_state=0)  # the sizes of one product stay together
    odds = cross_val_predict(
        model,
        features[known],
        truth,
        cv=folds,
        groups=product_groups([items[at] for at in known]),
        method="predict_proba",
    )
    right, sure = np.unique(truth)[odds.argmax(1)] == truth, odds.max(1)
    order = np.argsort(-sure)
    enough = np.flatnonzero(np.cumsum(right[order]) / np.arange(1, len(order) + 1) >= RIGHT)
    least = sure[order][enough[-1]] if len(enough) else np.inf
    odds = model.fit(features[known], truth).predict_proba(features[unknown])
    taken = odds.max(1) >= least
    print(
        f"pseudo-facts, {kind}: {right.mean():.1%} of all guesses right about {len(truth):,} photographs; "
        f"{taken.sum():,} of {len(unknown):,} others are sure enough",
        flush=True,
    )
    return dict(zip(unknown[taken].tolist(), model.classes_[odds.argmax(1)][taken].tolist(), strict=True))


def _describe(name: str, facts: dict[str, str], colors: dict[str, float]) -> Item | None:
    """Describe a photograph by what was guessed and by its colors; None where nothing is known."""
    category = vocabulary().category_of.get(facts.get("object", ""), "")
    if category in vocabulary().clear_categories:
        facts = facts | {"category": category}
    first = max(colors, key=colors.get, default="")
    # What looks gray, yellow or beige may be silver, gold or copper; of jewelry, any color may be a stone's.
    plain = (
        facts.get("pattern", "solid") == "solid" and category != "jewelry" and first not in ("gray", "yellow", "beige")
    )
    if plain and "object" in facts and colors.get(first, 0) >= MOST:
        facts = facts | {"color": first}
    facts = facts | color_facts(colors)
    visible = frozenset(color for color, share in colors.items() if share > 0.15)
    visible |= vocabulary().around if not colors else frozenset()
    return Item(name, Path(name), "", name, "", "", facts, not_wrong=visible) if facts else None
