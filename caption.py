"""Caption pictures in several styles, each by its adapter, or by prompt and decoding alone.

    python caption.py --images PICTURES/ photo.jpg https://example.org/cat.jpg --output_path CAPTIONS.csv \\
        --styles detailed=ADAPTER concise=ADAPTER creative --compare SHEET.html

Writes one row for each picture and style; with --compare also a page with pictures and captions side by side. Each picture is
looked at once, whatever the number of styles. Pictures that cannot be used are named in their rows.
"""

from blip2vqa.utils.console import run_script


def main() -> None:
    from blip2vqa.config.caption import CaptionArguments
    from blip2vqa.config.common import FeatureArguments
    from blip2vqa.config.parser import parse

    (args, features), _ = parse([CaptionArguments, FeatureArguments], __doc__)
    from blip2vqa.inference.captioning import caption_images

    done = caption_images(args, features)
    if done is None:
        return  # the main process has said it
    for image, style, caption in done["shown"]:
        print(f"{image}  {style}: {caption}")
    if done["more"]:
        print(f"… and {done['more']:,} more images")
    print(
        f"captions: {done['captions']:,} of {done['images']:,} images, in {done['seconds']:.0f} s: {args.output_path}"
    )
    if done["bad"]:
        print(f"not usable: {len(done['bad']):,} pictures; their rows say why")
    if args.compare:
        print(f"Side by side: {args.compare}")


if __name__ == "__main__":
    run_script(main)
