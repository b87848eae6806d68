"""Fit a new Q-Former and projection to the ViT and the language model of a photo base, which stay as they are.

    python assets/new_picture_side.py assets/photo-blip2-opt --photos ABO --work WORK --output BASE

What results is a base with the same ViT and language model and a Q-Former trained anew and for less time, to move adapters to.
It learns from captions of, and questions about, the photographs of which the catalogue says something. Stopped, it goes on from
the last checkpoint in WORK, which may be the folder that make_photo_base.py used.
"""

import argparse
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from photo_base.data import read_photographs
from photo_base.language import (
    PICTURE_SIDE_SCHEDULE,
    PICTURES,
    TEXTS_EACH,
    TextSampler,
    store_and_score,
    train_language,
)
from photo_base.model import build_model, load_base
from photo_base.pseudo_facts import measure_all_colors, with_colors
from photo_base.qformer import compute_vision_outputs
from photo_base.texts import ROUNDS, whole_words, write_held_texts, write_texts
from transformers import AutoTokenizer

from blip2vqa.utils.console import run_script
from blip2vqa.utils.errors import InputError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path, help="folder of a base of make_photo_base.py")
    parser.add_argument("--photos", type=Path, required=True, help="folder of the photographs and their catalogue")
    parser.add_argument("--unseen", type=Path, help="table of pictures (in images/ beside it) that may not be seen")
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for checkpoints and what is computed once; 3 GB"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the new base")
    parser.add_argument("--held_out", type=int, default=700, help="photographs with facts that are not seen")
    parser.add_argument("--steps", type=int, default=600, help="steps of 192 captions or questions")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    begun, work, seed = time.time(), arguments.work, arguments.seed
    given = load_base(arguments.base)
    if arguments.base.resolve() == arguments.output.resolve():
        raise InputError(f"--output {arguments.output}: it is the base that is read; give another folder")
    work.mkdir(parents=True, exist_ok=True)
    minutes = arguments.steps * PICTURES * TEXTS_EACH / 250 / 60
    print(
        f"photographs and catalogue: {arguments.photos}; not to be seen: {arguments.unseen}; kept in {work}\n"
        f"plan: ViT's outputs, 2 min, 0.5 GB; steps, {minutes:.0f} min, 0.1 GB, on two cores with 16-bit arithmetic, "
        "and up to twice that without",
        flush=True,
    )
    photographs = read_photographs(arguments.photos, arguments.unseen, work, arguments.held_out, seed)
    held_names = [item.image_name for item in photographs.held_items]
    colors = measure_all_colors([*photographs.names, *held_names], photographs.folder, work)
    known = [row for row, item in enumerate(photographs.items) if item]
    items = {at: with_colors(photographs.items[row], colors[row]) for at, row in enumerate(known)}
    titles = {at: photographs.titles[row] for at, row in enumerate(known) if photographs.titles[row]}
    captions, questions = write_texts(items, titles, seed, ROUNDS)
    held_texts = write_held_texts(photographs.held_items, colors[len(photographs.names) :], seed + ROUNDS)
    words = whole_words(photographs.titles)
    print(f"{len(known):,} photographs, {len(captions):,} captions, {len(questions):,} questions", flush=True)

    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(arguments.base)
    samplers = {"caption": TextSampler(captions), "question": TextSampler(questions)}
    model = build_model(tokenizer, given.vision_model, given.language_model)
    pixels, rows = photographs.pixels, photographs.rows[known]
    features = compute_vision_outputs(model.vision_model, pixels, rows, "known", work)
    held_features = compute_vision_outputs(model.vision_model, pixels, photographs.held_rows, "held", work)
    train_language(
        model, tokenizer, features, samplers, words, (held_features[0], held_texts), work / "picture-side.pt",
        arguments.steps, PICTURE_SIDE_SCHEDULE, seed=seed,
    )  # fmt: skip
    store_and_score(model, tokenizer, arguments.output, held_features[0], held_texts)
    print(f"picture side after {time.time() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    run_script(main)
