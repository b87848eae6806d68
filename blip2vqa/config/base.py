"""Which base answers, captions or asks. Imports no model, so that a command that needs none starts at once."""

from dataclasses import dataclass

from blip2vqa.config.fields import DTYPES, QUANTIZATIONS, option

DEFAULT_BASE = "Salesforce/blip2-opt-2.7b"


@dataclass
class ServedBaseArguments:
    """The base that answers or captions, found by its adapters unless named."""

    base_model_id: str = option(
        None,
        "Base model: Hub id or local folder; default: the adapter's own, else " + DEFAULT_BASE + ".",
        "--model_id",
    )
    base_model_revision: str = option(None, "Branch, tag or commit of the base on the Hub.")
    quantization: str = option("auto", "As in finetune.py.", choices=list(QUANTIZATIONS))
    dtype: str = option("auto", "As in finetune.py.", choices=list(DTYPES))
