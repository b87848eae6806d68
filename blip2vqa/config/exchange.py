"""What exchange.py takes, command by command."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from blip2vqa.config.fields import DTYPES, QUANTIZATIONS, check_range, option

METHODS = ("auto", "exact", "copy", "subspace", "distil")
MERGES = ("linear", "cat", "ties", "dare")
_STORE = "Folder of adapters; default: $BLIP2VQA_STORE, else ~/.local/share/blip2vqa/adapters."
_ADAPTER = "Adapter: folder, name in the store, or Hub id (USER/NAME or USER/NAME@REVISION)."


@dataclass
class _Command:
    WORDS: ClassVar[tuple[str, ...]] = ()
    """Fields that a command line gives by their place, without their names; the last may be a list."""
    NEEDED: ClassVar[tuple[str, ...]] = ()

    json: bool = option(False, "Print the result as JSON and nothing else.")

    def check(self) -> list[str]:
        """What is wrong with them, one line each."""
        return []


@dataclass
class ListArguments(_Command):
    """Adapters in a store."""

    WORDS: ClassVar = ("store",)

    store: str = option(None, _STORE)


@dataclass
class InspectArguments(_Command):
    """What an adapter is."""

    WORDS: ClassVar = ("adapter",)
    NEEDED: ClassVar = ("adapter",)

    adapter: str = option(None, _ADAPTER)
    plot: str = option(None, "PNG to draw: the norm of what it adds, by layer and role.")


@dataclass
class CheckArguments(_Command):
    """Whether an adapter fits a base: exit code 0 ok, 3 convertible, 1 incompatible."""

    WORDS: ClassVar = ("adapter", "base_model_id")
    NEEDED: ClassVar = ("adapter", "base_model_id")

    adapter: str = option(None, _ADAPTER)
    base_model_id: str = option(None, "Base model: Hub id or local folder.")
    base_model_revision: str = option(None, "Branch, tag or commit of the base on the Hub.")
    quick: bool = option(False, "Names, shapes, values and fingerprints alone: the model is not run.")


@dataclass
class AddArguments(_Command):
    """A copy of an adapter into the store."""

    WORDS: ClassVar = ("adapter",)
    NEEDED: ClassVar = ("adapter",)

    adapter: str = option(None, _ADAPTER)
    name: str = option(None, "Name in the store; default: that of its folder.")
    store: str = option(None, _STORE)
    convert_pickle: bool = option(False, "Read weights, and nothing else, of a pickled adapter_model.bin.")


@dataclass
class RemoveArguments(_Command):
    """An adapter out of the store, for good."""

    WORDS: ClassVar = ("name",)
    NEEDED: ClassVar = ("name",)

    name: str = option(None, "Name in the store.")
    store: str = option(None, _STORE)


@dataclass
class ExportArguments(_Command):
    """An adapter as one file with checksums."""

    WORDS: ClassVar = ("adapter",)
    NEEDED: ClassVar = ("adapter",)

    adapter: str = option(None, _ADAPTER)
    output: str = option(None, "ZIP file to write; default: NAME.zip.")


@dataclass
class ImportArguments(_Command):
    """Such a file into the store."""

    WORDS: ClassVar = ("archive",)
    NEEDED: ClassVar = ("archive",)

    archive: str = option(None, "ZIP file that `export` wrote.")
    name: str = option(None, "Name in the store; default: the one in the archive.")
    store: str = option(None, _STORE)


@dataclass
class MergeArguments(_Command):
    """Several adapters of one base into one: a sum of what they add, each with its weight."""

    WORDS: ClassVar = ("adapters",)
    NEEDED: ClassVar = ("adapters", "output")

    adapters: list[str] = field(
        default=None,
        metadata={"help": "Adapters with their weights: A=0.7 B=0.3; without =WEIGHT it is 1.", "nargs": "+"},
    )
    output: str = option(None, "Folder to write.")
    method: str = option(
        "linear",
        "linear: the weighted sum; ties, dare: of its larger, or of random, entries; cat: the sum, its factors as they are.",
        choices=list(MERGES),
    )
    rank: int = option(None, "Rank of the result; default: the least that keeps --energy.")
    energy: float = option(None, "Of linear: share of the sum of squares to keep, above 0 to 1; default: all.")
    density: float = option(0.2, "Of ties: share of entries kept of each, the largest.")
    drop: float = option(0.9, "Of dare: probability that an entry is dropped.")
    seed: int = option(0, "Of dare.")

    def check(self) -> list[str]:
        problems = []
        if self.method not in MERGES:
            problems.append(f"--method {self.method}: unknown; choose from {', '.join(MERGES)}")
        check_range(problems, self.rank is None or self.rank >= 1, "rank", self.rank, "at least 1")
        check_range(problems, self.energy is None or 0 < self.energy <= 1, "energy", self.energy, "above 0, at most 1")
        check_range(problems, 0 < self.density <= 1, "density", self.density, "above 0, at most 1")
        check_range(problems, 0 <= self.drop < 1, "drop", self.drop, "from 0 to below 1")
        if self.rank is not None and self.energy is not None:
            problems.append("--rank and --energy: give one of them")
        if self.method == "cat" and (self.rank is not None or self.energy is not None):
            problems.append("--method cat: keeps the sum of the ranks; for a smaller one use linear")
        if self.method in ("ties", "dare") and self.energy is not None:
            problems.append(f"--energy {self.energy}: goes with linear; {self.method} takes --rank")
        return problems


@dataclass
class ResizeArguments(_Command):
    """The best adapter of another rank."""

    WORDS: ClassVar = ("adapter",)
    NEEDED: ClassVar = ("adapter", "output")

    adapter: str = option(None, _ADAPTER)
    output: str = option(None, "Folder to write.")
    rank: int = option(None, "Rank of the result.")
    energy: float = option(None, "Instead of --rank: share of the sum of squares to keep, above 0 to 1.")

    def check(self) -> list[str]:
        problems = []
        if (self.rank is None) == (self.energy is None):
            problems.append("--rank, --energy: give one of the two")
        check_range(problems, self.rank is None or self.rank >= 1, "rank", self.rank, "at least 1")
        check_range(problems, self.energy is None or 0 < self.energy <= 1, "energy", self.energy, "above 0, at most 1")
        return problems


@dataclass
class ExtractArguments(_Command):
    """An adapter from the difference of two checkpoints."""

    WORDS: ClassVar = ("base", "tuned")
    NEEDED: ClassVar = ("base", "tuned", "output")

    base: str = option(None, "Base model: Hub id or local folder.")
    tuned: str = option(None, "The same, fine-tuned whole.")
    output: str = option(None, "Folder to write.")
    rank: int = option(16, "Rank of the adapter.")
    base_revision: str = option(None, "Branch, tag or commit of the base on the Hub.")
    tuned_revision: str = option(None, "Branch, tag or commit of the fine-tuned one.")

    def check(self) -> list[str]:
        problems = []
        check_range(problems, self.rank >= 1, "rank", self.rank, "at least 1")
        return problems


@dataclass
class FuseArguments(_Command):
    """A base with the adapter in its weights, in the Hub's layout."""

    WORDS: ClassVar = ("adapter",)
    NEEDED: ClassVar = ("adapter", "output")

    adapter: str = option(None, _ADAPTER)
    output: str = option(None, "Folder to write.")
    base_model_id: str = option(None, "Base model: Hub id or local folder; default: the adapter's own.")


@dataclass
class MovingArguments(_Command):
    """How an adapter moves to another base, and the table that says what it is worth there."""

    output: str = option(None, "Folder to write.")
    method: str = option(
        "auto",
        "exact: the same weights under it, by fingerprint; copy, subspace: the same shapes; distil: learns from the source's "
        "answers to --csv_path; auto: the first of exact, distil (with --csv_path), copy that applies.",
        choices=list(METHODS),
    )
    csv_path: str = option(
        None, "Table of images and questions: those to learn from by distil, and, held out, to measure on."
    )
    image_dir: str = option(None, "Folder of the images.")
    eval_csv_path: str = option(None, "Table with answers to measure on; default: --val_split of --csv_path's images.")
    val_split: float = option(0.2, "Share of the images of --csv_path held out to measure on.")
    min_confidence: float = option(0.5, "Of distil: least confidence of an answer to learn from, 0 to 1.")
    subspace: float = option(
        0.99, "Of subspace: share of the target's squared singular values that its subspaces hold."
    )
    finetune: str = option(None, "Of distil: JSON of finetune.py's options for the training.")
    batch_size: int = option(16, "Questions answered at once.")
    seed: int = option(42, "Of the split and of the random adapter beside it.")
    quantization: str = option("auto", "As in finetune.py.", choices=list(QUANTIZATIONS))
    dtype: str = option("auto", "As in finetune.py.", choices=list(DTYPES))

    def check(self) -> list[str]:
        problems = []
        if self.method == "distil" and not self.csv_path:
            problems.append("--method distil: needs --csv_path, images and questions that the source answers")
        if self.csv_path and not self.image_dir:
            problems.append("--csv_path: needs --image_dir, the folder of its images")
        if self.eval_csv_path and not self.image_dir:
            problems.append("--eval_csv_path: needs --image_dir, the folder of its images")
        for flag, path in (("csv_path", self.csv_path), ("eval_csv_path", self.eval_csv_path)):
            if path and not Path(path).exists():
                problems.append(f"--{flag} {path}: no such file")
        check_range(problems, 0 < self.val_split < 1, "val_split", self.val_split, "between 0 and 1, both excluded")
        check_range(problems, 0 <= self.min_confidence <= 1, "min_confidence", self.min_confidence, "from 0 to 1")
        check_range(problems, 0 < self.subspace <= 1, "subspace", self.subspace, "above 0, at most 1")
        check_range(problems, self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        return problems


@dataclass
class TransferArguments(MovingArguments):
    """An adapter to another base."""

    WORDS: ClassVar = ("adapter", "target")
    NEEDED: ClassVar = ("adapter", "target", "output")

    adapter: str = option(None, _ADAPTER)
    target: str = option(None, "The other base: Hub id or local folder.")
    target_revision: str = option(None, "Branch, tag or commit of it on the Hub.")
    direct: str = option(None, "Adapter trained directly for the target, to compare with.")

    def check(self) -> list[str]:
        problems = super().check()
        if self.direct and not (self.csv_path or self.eval_csv_path):
            problems.append("--direct: is compared on a table; give --eval_csv_path or --csv_path")
        return problems


@dataclass
class SwapArguments(MovingArguments):
    """Two adapters, each to the other's base."""

    WORDS: ClassVar = ("first", "second")
    NEEDED: ClassVar = ("first", "second", "output")

    first: str = option(None, _ADAPTER)
    second: str = option(None, _ADAPTER)


@dataclass
class PushArguments(_Command):
    """An adapter to the Hub."""

    WORDS: ClassVar = ("adapter", "hub_model_id")
    NEEDED: ClassVar = ("adapter", "hub_model_id")

    adapter: str = option(None, _ADAPTER)
    hub_model_id: str = option(None, "Repository: USER/NAME.")
    private: bool = option(True, "Of a new repository: only you can see it.")
    base_model_id: str = option(None, "The base's Hub id, where the adapter was made on a local folder.")
    license: str = option(None, "For the model card, as the Hub names it: apache-2.0, mit, …")


@dataclass
class PullArguments(_Command):
    """An adapter from the Hub into the store."""

    WORDS: ClassVar = ("adapter",)
    NEEDED: ClassVar = ("adapter",)

    adapter: str = option(None, "USER/NAME or USER/NAME@REVISION.")
    name: str = option(None, "Name in the store; default: the repository's.")
    store: str = option(None, _STORE)
