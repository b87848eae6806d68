"""Serve a page to ask base and adapters about pictures, side by side.

    blip2vqa demo                                                 # the embedded base
    blip2vqa demo --lora_model_path counting=A color=B default=C  # adapters of one base
    blip2vqa demo --base_model_id Salesforce/blip2-flan-t5-xl     # a base alone

With the embedded base comes the quick start's adapter, if it is there.
Needs Gradio: pip install "blip2vqa[demo]". Ctrl-C stops it, when the answers under way are given.
"""

from importlib.util import find_spec

from blip2vqa.cli.arguments import parse_arguments
from blip2vqa.config.demo import DemoArguments
from blip2vqa.utils.errors import InputError, raise_all

GO_ON = "run the same command again"
NEEDS = "--lora_model_path counting=A color=B"


def main(argv: list[str] | None = None) -> None:
    """Load the model, and serve the page until Ctrl-C. Raises `InputError` where Gradio is not installed."""
    (args,), _ = parse_arguments("demo", [DemoArguments], __doc__, argv, needs=NEEDS)
    raise_all(args.check())
    if find_spec("gradio") is None:
        raise InputError('gradio: is not installed, and the demo needs it; pip install "blip2vqa[demo]"')
    from blip2vqa.demo.server import serve

    serve(args)
