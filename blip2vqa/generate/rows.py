"""What passes between the steps: a product as the catalogue has it, its picture as it is asked about, a question."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Product:
    """A listing of the catalogue, in one language, nothing cleaned yet."""

    item_id: str
    product_type: str
    """In lower case, words joined by underscores as in the archive: cellular_phone_case; "" where there is none."""
    name: str
    images: tuple[str, ...]
    """Names of its pictures inside the image folder (`00/000f953e.jpg`), the main one first; at least one."""
    texts: dict[str, tuple[str, ...]]
    """What the catalogue says, by field: color, material, fabric_type, item_shape, pattern, style,
    item_keywords, node; each value as it stands there. Fields without a value are left out."""


@dataclass(frozen=True, slots=True)
class Item:
    """A picture to ask about, and what the catalogue says that it shows."""

    image_name: str
    path: Path
    digest: str
    """SHA-256 of the picture's bytes, hexadecimal."""
    item_id: str
    product_type: str
    name: str
    facts: dict[str, str]
    """Closed vocabulary, one word each, by kind: object, category, color, material, shape, pattern, style, proportion."""
    not_wrong: frozenset[str] = frozenset()
    """Values that the picture may show as well, so that none of them is a wrong answer."""
    named: frozenset[str] = frozenset()
    """Values that the catalogue's words name, whatever they say of it: none is safely a wrong answer, and none a right one."""
    group: int = 0
    """Of the items that show one product or look alike: all of a group go to one side of a split."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its answer, and where they come from."""

    item: Item
    question: str
    answer: str
    question_type: str
    """object, category, color, material, shape, pattern, style, yes/no, comparison; a model or an API may add count, other."""
    source: str
    """templates, model:NAME or api:NAME."""
    about: str = ""
    """Kind of fact that it asks for, and of a yes or no the value, too: color, color=black; "" where a back end worded it."""
    raw_answer: str = ""
    """What the back end said, before any cleaning."""
    prompt_hash: str = ""
    """SHA-256 of all that was sent to the back end, hexadecimal; "" for templates."""
    verdicts: dict[str, str] = field(default_factory=dict)
    """Filter → what it said: "kept", or why not."""

    @property
    def kind(self) -> str:
        """Kind of fact that it asks for: color, of "color", "color=black" and "color of 4"; "" where a back end worded it."""
        return self.about.partition("=")[0].partition(" ")[0]
