"""Options that several scripts share, and the base that answers, captions or writes questions."""

from dataclasses import dataclass

from blip2vqa.config.fields import DTYPES, QUANTIZATIONS, Arguments, option
from blip2vqa.data.columns import ColumnNames

DEFAULT_BASE = "Salesforce/blip2-opt-2.7b"

# What other projects call these options.
BASE_ALIASES = ("--model_id", "--model_name_or_path")
ADAPTER_ALIAS, TABLE_ALIAS, IMAGES_ALIAS = "--adapter_name_or_path", "--dataset_name", "--image_folder"

# Options that several dataclasses have.
REVISION = option(None, "Branch, tag or commit of the base on the Hub.")
QUANTIZATION = option(
    "auto",
    "Bits of the base's weights: auto, none, 8bit or 4bit. auto quantizes only what would not fit the device (bitsandbytes).",
    choices=QUANTIZATIONS,
)
DTYPE = option(
    "auto",
    "Precision of the base: auto, bfloat16, float16, float32. auto takes bfloat16 where the device computes in it, else "
    "float16 (OPT on a GPU) or float32.",
    choices=DTYPES,
)
IMAGE_DIR = option(
    None, "Folder of the images. It may be left out when the table holds the images itself.", IMAGES_ALIAS
)
ANNOTATIONS = option(None, "Official VQA annotations JSON that belongs to --csv_path.")
QUESTION_TYPES = option(None, "Only questions of these types, as in count,yes/no. Default: all.")
IMAGE_COLUMN = option(None, "Column of the images. Default: the one with a usual name.")
QUESTION_COLUMN = option(None, "Column of the questions. Default: the one with a usual name.")
ANSWER_COLUMN = option(
    None, "Column of the answers, or captions. Default: the one with a usual name.", "--caption_column"
)
CELL_SEPARATOR = option(
    None, "Mark between several questions, and answers, in a cell. none: cells that look so are left whole."
)
ON_BAD_ROW = option(
    "error",
    "Texts that cannot be used: stop (error) or leave out (skip). Too long ones are among them.",
    choices=["error", "skip"],
)
QUESTION_TYPE_COLUMN = option(None, "Column that names a question's type. Default: by rule.")


@dataclass
class ServedBaseArguments(Arguments):
    """The base model that answers, captions or writes; its adapters name it unless the user does."""

    base_model_id: str | None = option(
        None,
        f"Base model: Hub id or local folder. Default: the adapter's own. Without an adapter it is {DEFAULT_BASE}.",
        *BASE_ALIASES,
        group="Model",
    )
    base_model_revision: str | None = REVISION
    quantization: str = QUANTIZATION
    dtype: str = DTYPE


def column_names(args, prediction: str | None = None) -> ColumnNames:
    """Return what a command's arguments say of its table's columns."""
    return ColumnNames(args.image_column, args.question_column, args.answer_column, prediction, args.cell_separator)
