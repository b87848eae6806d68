"""Caption pictures in several styles, each by its adapter, or by prompt and decoding.

    blip2vqa caption --images PICTURES/ photo.jpg https://example.org/cat.jpg \\
        --output_path CAPTIONS.csv --styles detailed=ADAPTER concise=ADAPTER creative \\
        --compare SHEET.html

Writes one row for each picture and style; with --compare also a page with pictures and captions
side by side. Each picture is encoded once, whatever the number of styles. Pictures that cannot be
used are named in their rows.
"""

from blip2vqa.cli.arguments import parse_arguments
from blip2vqa.config.caption import CaptionArguments
from blip2vqa.config.common import FeatureArguments
from blip2vqa.utils.terminal import one_line

GO_ON = "run the same command again"
NEEDS = "--images PICTURES/ --output_path CAPTIONS.csv --styles concise=ADAPTER"


def check(argv: list[str] | None) -> tuple[CaptionArguments, FeatureArguments]:
    """Return the arguments. Raises `InputError` for what is wrong, as far as that can be told without torch."""
    parts, _ = parse_arguments("caption", [CaptionArguments, FeatureArguments], __doc__, argv, needs=NEEDS)
    return parts


def main(argv: list[str] | None = None) -> None:
    """Caption the pictures, and print the first captions."""
    args, features = check(argv)
    from blip2vqa.inference.captioning import caption_images

    done = caption_images(args, features)
    if done is None:
        return  # the main process has said it
    for image, style, caption in done["shown"]:
        print(one_line(f"{image}  {style}: {caption}"))
    if done["more"]:
        print(f"… and {done['more']:,} more images")
    print(
        f"captions: {done['captions']:,} of {done['images']:,} images, in {done['seconds']:.0f} s: {args.output_path}"
    )
    if done["bad"]:
        print(f"not usable: {len(done['bad']):,} pictures; their rows say why")
    if args.compare:
        print(f"Side by side: {args.compare}")
