"""The records that pass between the steps: a product of the catalogue, a picture of it, a question about the picture."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from blip2vqa.data.images import ImageSource
from blip2vqa.utils.errors import InputError

KEPT = "kept"
"""What a filter says of a question that it does not drop."""
TEXT_FIELDS = ("color", "material", "fabric_type", "item_shape", "pattern", "style", "item_keywords")


@dataclass(frozen=True, slots=True)
class Product:
    """One listing of the catalogue, in one language, before any cleaning."""

    item_id: str
    product_type: str
    """In lower case, words joined by underscores as in the archive: cellular_phone_case; "" where there is none."""
    name: str
    images: tuple[str, ...]
    """Names of its pictures inside the image folder (`00/000f953e.jpg`), the main one first; at least one."""
    texts: dict[str, tuple[str, ...]]
    """Values as the catalogue has them, by field: one of `TEXT_FIELDS`, or node. Fields without a value are left out."""


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
    """One word of the closed vocabulary by kind: object, category, color, material, shape, pattern, style, proportion."""
    not_wrong: frozenset[str] = frozenset()
    """Values that the picture may show besides its facts, so that none of them is offered as a wrong answer."""
    named: frozenset[str] = frozenset()
    """Values that occur anywhere in the catalogue's words, so that none of them is safely right or safely wrong."""
    group: int = 0
    """Number shared by pictures of one product and by look-alikes; a split keeps a group on one side."""

    def read_image(self) -> ImageSource:
        """Read the picture's bytes again, under their digest as a name.

        Raises `InputError` where the file is gone or has changed since it was measured.
        """
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise InputError(
                f"image {self.path}: cannot be read any more: {error.strerror}; put it back and go on"
            ) from error
        if hashlib.sha256(data).hexdigest() != self.digest:
            raise InputError(f"image {self.path}: its file has changed since it was checked; start again")
        return ImageSource(self.digest, data=data)


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
    """Kind of fact that is asked for, with the value for yes/no: color, color=black; "" for a back end's wording."""
    raw_answer: str = ""
    """Answer of the back end before any cleaning."""
    prompt_hash: str = ""
    """SHA-256 of all that was sent to the back end, hexadecimal; "" for templates."""
    verdicts: dict[str, str] = field(default_factory=dict)
    """Filter → `KEPT`, or why the question was dropped."""

    @property
    def kind(self) -> str:
        """Kind of fact that is asked for: color, of "color", "color=black" and "color of 4"; "" for a back end's wording."""
        return self.about.partition("=")[0].partition(" ")[0]

    @property
    def value(self) -> str:
        """Value that a yes/no question of the templates asks about: black, of "color=black"; else ""."""
        return self.about.partition("=")[2]

    @property
    def kept(self) -> bool:
        """Whether every filter so far has kept the question."""
        return all(verdict == KEPT for verdict in self.verdicts.values())
