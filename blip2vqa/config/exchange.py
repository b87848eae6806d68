"""What exchange.py takes, command by command."""

from dataclasses import dataclass
from pathlib import Path

from blip2vqa.config.base import BASE_ALIASES, DTYPE, IMAGE_DIR, QUANTIZATION, REVISION, TABLE_ALIAS
from blip2vqa.config.fields import WordArguments, option

METHODS = ("auto", "exact", "copy", "subspace", "distil")
MERGES = ("linear", "cat", "ties", "dare")
# Options that several commands have.
_ADAPTER_TEXT = "Adapter: folder, name in the store, or Hub id. USER/NAME or USER/NAME@REVISION."
_ADAPTER = option("", _ADAPTER_TEXT, positional=True)
_STORE_TEXT = "Folder of adapters. Default: $BLIP2VQA_STORE, else ~/.local/share/blip2vqa/adapters."
_STORE = option(None, _STORE_TEXT)
_OUTPUT = option("", "Folder to write.")


@dataclass
class _Command(WordArguments):
    json: bool = option(False, "Print the result as JSON and nothing else.")


@dataclass
class ListArguments(_Command):
    """List the adapters in a store."""

    store: str | None = option(None, _STORE_TEXT, positional=True)


@dataclass
class InspectArguments(_Command):
    """Show what an adapter is, and how much it adds where."""

    adapter: str = _ADAPTER
    plot: str | None = option(None, "PNG to draw: the norm of what it adds, by layer and role.")


@dataclass
class CheckArguments(_Command):
    """Check whether an adapter fits a base, and say why."""

    adapter: str = _ADAPTER
    base_model_id: str = option("", "Base model: Hub id or local folder.", *BASE_ALIASES, positional=True)
    base_model_revision: str | None = REVISION
    quick: bool = option(False, "Check names, shapes, values and fingerprints; run no model.")


@dataclass
class AddArguments(_Command):
    """Copy an adapter into the store."""

    adapter: str = _ADAPTER
    name: str | None = option(None, "Name in the store. Default: that of its folder.")
    store: str | None = _STORE
    convert_pickle: bool = option(False, "Read the weights, and nothing else, of a pickled adapter_model.bin.")


@dataclass
class RemoveArguments(_Command):
    """Delete an adapter from the store."""

    name: str = option("", "Name in the store.", positional=True)
    store: str | None = _STORE


@dataclass
class ExportArguments(_Command):
    """Write an adapter as one file with checksums."""

    adapter: str = _ADAPTER
    output: str | None = option(None, "ZIP file to write. Default: NAME.zip.")


@dataclass
class ImportArguments(_Command):
    """Put an adapter that `export` wrote into the store."""

    archive: str = option("", "ZIP file that `export` wrote.", positional=True)
    name: str | None = option(None, "Name in the store. Default: the one in the archive.")
    store: str | None = _STORE


@dataclass
class MergeArguments(_Command):
    """Merge adapters of one base by a weighted sum."""

    adapters: list[str] = option(
        [], "Adapters with their weights: A=0.7 B=0.3. Without =WEIGHT it is 1.", nargs="+", positional=True
    )
    output: str = _OUTPUT
    method: str = option(
        "linear",
        "linear, cat, ties or dare. ties, dare: the sum of the larger, or of random, entries; cat: factors as they are.",
        choices=MERGES,
    )
    rank: int | None = option(None, "Rank of the result. Default: the least that keeps --energy.", at_least=1)
    energy: float | None = option(
        None, "With linear: share of the sum of squares to keep. Default: all.", above=0, at_most=1
    )
    density: float = option(0.2, "With ties: share of the entries to keep, the largest.", above=0, at_most=1)
    drop: float = option(0.9, "With dare: probability that an entry is dropped.", at_least=0, below=1)
    seed: int = option(0, "With dare: random seed.")

    def check(self) -> list[str]:
        problems = super().check()
        if self.method not in MERGES:
            problems.append(f"--method {self.method}: unknown; choose from {', '.join(MERGES)}")
        if self.rank is not None and self.energy is not None:
            problems.append("--rank and --energy: give one of them")
        if self.method == "cat" and (self.rank is not None or self.energy is not None):
            problems.append("--method cat: keeps the sum of the ranks; for a smaller one use linear")
        if self.method in ("ties", "dare") and self.energy is not None:
            problems.append(f"--energy {self.energy}: goes with linear; {self.method} takes --rank")
        return problems


@dataclass
class ResizeArguments(_Command):
    """Write the best adapter of another rank."""

    adapter: str = _ADAPTER
    output: str = _OUTPUT
    rank: int | None = option(None, "Rank of the result.", at_least=1)
    energy: float | None = option(None, "Instead of --rank: share of the sum of squares to keep.", above=0, at_most=1)

    def check(self) -> list[str]:
        problems = super().check()
        if (self.rank is None) == (self.energy is None):
            problems.append("--rank, --energy: give one of the two")
        return problems


@dataclass
class ExtractArguments(_Command):
    """Make an adapter from two checkpoints of a model."""

    base: str = option("", "Base model: Hub id or local folder.", positional=True)
    tuned: str = option("", "The same model, fine-tuned as a whole.", positional=True)
    output: str = _OUTPUT
    rank: int = option(16, "Rank of the adapter.", at_least=1)
    base_revision: str | None = option(None, "Branch, tag or commit of the base on the Hub.")
    tuned_revision: str | None = option(None, "Branch, tag or commit of the fine-tuned model.")


@dataclass
class FuseArguments(_Command):
    """Write a base with the adapter in its weights."""

    adapter: str = _ADAPTER
    output: str = _OUTPUT
    base_model_id: str | None = option(
        None, "Base model: Hub id or local folder. Default: the adapter's own.", *BASE_ALIASES
    )


@dataclass
class MovingArguments(_Command):
    """How an adapter moves to another base, and the table that says what it is worth there."""

    output: str = _OUTPUT
    method: str = option(
        "auto",
        "auto, exact, copy, subspace or distil. exact: for the same weights; copy, subspace: for the same shapes; distil: "
        "learns from the source's answers to --csv_path; auto: the first of exact, distil and copy that applies.",
        choices=METHODS,
    )
    csv_path: str | None = option(
        None,
        "Table of images and questions, to learn from by distil and to measure on.",
        TABLE_ALIAS,
    )
    image_dir: str | None = IMAGE_DIR
    eval_csv_path: str | None = option(
        None, "Table with answers to measure on. Default: --val_split of --csv_path's images."
    )
    val_split: float = option(0.2, "Share of the images of --csv_path to measure on.", above=0, below=1)
    min_confidence: float = option(
        0.5, "With distil: least confidence of an answer to learn from.", at_least=0, at_most=1
    )
    subspace: float = option(
        0.99,
        "With subspace: share of squared singular values that it holds.",
        above=0,
        at_most=1,
    )
    finetune: str | None = option(None, "With distil: JSON or YAML of finetune.py's options.")
    batch_size: int = option(16, "Questions answered at once.", at_least=1)
    seed: int = option(42, "Seed of the split and of the random adapter beside it.")
    quantization: str = QUANTIZATION
    dtype: str = DTYPE

    def check(self) -> list[str]:
        problems = super().check()
        if self.method == "distil" and not self.csv_path:
            problems.append("--method distil: needs --csv_path, images and questions that the source answers")
        for flag, path in (("csv_path", self.csv_path), ("eval_csv_path", self.eval_csv_path)):
            if path and not self.image_dir:
                problems.append(f"--{flag}: needs --image_dir, the folder of its images")
            if path and not Path(path).exists():
                problems.append(f"--{flag} {path}: no such file")
        return problems


@dataclass
class TransferArguments(MovingArguments):
    """Move an adapter to another base."""

    adapter: str = _ADAPTER
    target: str = option("", "The other base: Hub id or local folder.", positional=True)
    target_revision: str | None = option(None, "Branch, tag or commit of the other base on the Hub.")
    direct: str | None = option(None, "Adapter trained directly for the target, to compare with.")

    def check(self) -> list[str]:
        problems = super().check()
        if self.direct and not (self.csv_path or self.eval_csv_path):
            problems.append("--direct: is compared on a table; give --eval_csv_path or --csv_path")
        return problems


@dataclass
class SwapArguments(MovingArguments):
    """Try each of two adapters on the other's base."""

    first: str = option("", _ADAPTER_TEXT, positional=True)
    second: str = option("", _ADAPTER_TEXT, positional=True)


@dataclass
class PushArguments(_Command):
    """Publish an adapter on the Hub."""

    adapter: str = _ADAPTER
    hub_model_id: str = option("", "Repository: USER/NAME.", positional=True)
    private: bool = option(True, "Whether only you can see a new repository.")
    base_model_id: str | None = option(
        None, "The base's Hub id, where the adapter was made on a local folder.", *BASE_ALIASES
    )
    license: str | None = option(None, "Licence for the model card, as the Hub names it: apache-2.0, mit, …")


@dataclass
class PullArguments(_Command):
    """Fetch an adapter from the Hub into the store."""

    adapter: str = option("", "USER/NAME or USER/NAME@REVISION.", positional=True)
    name: str | None = option(None, "Name in the store. Default: the repository's.")
    store: str | None = _STORE
