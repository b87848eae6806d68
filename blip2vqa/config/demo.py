"""What demo.py takes."""

from dataclasses import dataclass

from blip2vqa.config import base
from blip2vqa.config.fields import option


@dataclass
class DemoArguments(base.ServedBaseArguments):
    """Which model is shown, and where the page is served."""

    lora_model_path: list[str] | None = option(
        None,
        "Adapters, NAME=ADAPTER each: folder, name in the store or Hub id. One may stand without a name. Where no base is "
        "given either: the embedded photo base, with the quick start's adapter if it is there.",
        base.ADAPTER_ALIAS,
        nargs="+",
        group="Adapters",
    )
    image_dir: str | None = option(
        None,
        "Folder of the example pictures. Default: photographs of products that come with the repository.",
        base.IMAGES_ALIAS,
        group="Page",
    )
    host: str = option(
        "127.0.0.1",
        "Address to serve on. On any that other machines reach, adapters can neither be loaded nor dropped from the page.",
    )
    port: int = option(7860, "Port to serve on; 0 takes any free one.", at_least=0, at_most=65535)
