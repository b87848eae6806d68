"""Train the two tiny BLIP-2 bases of this folder from nothing, on scenes drawn by `scenes.py`.

    python assets/make_tiny_bases.py                       # writes assets/tiny-blip2-opt and assets/tiny-blip2-flan-t5

Three stages, as in BLIP-2 (Li et al. 2023, https://arxiv.org/abs/2301.12597): the ViT and the Q-Former learn to see
(both bases share them), then captions bring their output into the language model, then questions are mixed in. The
two language models are trained at the same time, one thread each.
"""

import argparse
import multiprocessing
import os
import time
from pathlib import Path

import torch
from base_parts import save_base
from scenes import SIZE, Scene, draw_scenes
from tiny_language import build_model, language_scores, train_language
from tiny_picture import Eyes, paint_all, to_pixels, train_eyes
from tiny_tokenizers import FAMILIES, train_tokenizer
from transformers import AutoTokenizer, Blip2ForConditionalGeneration

HERE = Path(__file__).parent


@torch.no_grad()
def query_outputs(eyes: Eyes | Blip2ForConditionalGeneration, images: torch.Tensor) -> torch.Tensor:
    """Q-Former outputs, float32 [count, 16, 128], of pictures, uint8 [count, 64, 64, 3]."""
    eyes.eval()
    found = []
    for start in range(0, len(images), 256):
        seen = eyes.vision_model(pixel_values=to_pixels(images[start : start + 256])).last_hidden_state
        queries = eyes.query_tokens.expand(len(seen), -1, -1)
        found.append(eyes.qformer(query_embeds=queries, encoder_hidden_states=seen).last_hidden_state)
    return torch.cat(found)


def make_language(family: str, folder: Path, eyes: dict, scenes: list[Scene], features: torch.Tensor, held_out: tuple,
                  steps: int, seed: int) -> None:  # fmt: skip
    """Train one language model on the Q-Former's outputs, write its base, load it again and print its scores."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    tokenizer = train_tokenizer(family, scenes[:4000], seed)
    model = build_model(family, tokenizer)
    missing, unexpected = model.load_state_dict(eyes, strict=False)
    assert not unexpected and all(name.startswith("language_") for name in missing), (missing, unexpected)
    images, held_scenes, held_features = held_out
    train_language(model, tokenizer, features, scenes, (held_features, held_scenes), steps, seed, name=family)
    save_base(model, tokenizer, folder, SIZE)
    model = Blip2ForConditionalGeneration.from_pretrained(folder)
    again = AutoTokenizer.from_pretrained(folder)
    scores = language_scores(model, again, query_outputs(model, images), held_scenes, seed + 2, per_kind=1000)
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    count = sum(weight.numel() for weight in model.parameters())
    print(f"{family}: {count} parameters, {size:.2f} MB, written to {folder}")
    print(f"{family}, held out, as stored: {scores}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=HERE, help="folder for the two folders")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture_scenes", type=int, default=20000, help="scenes for the ViT and the Q-Former")
    parser.add_argument("--language_scenes", type=int, default=40000, help="scenes for the language models")
    parser.add_argument("--picture_steps", type=int, default=3000, help="steps of 64 scenes")
    parser.add_argument("--language_steps", type=int, default=2400, help="steps of 64 captions or questions")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--eyes", type=Path, help="trained ViT and Q-Former to start from, else written here")
    arguments = parser.parse_args()
    begun = time.time()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(1)
    held_scenes = draw_scenes(2000, arguments.seed + 3)
    held_images, held_want = paint_all(held_scenes)
    if arguments.eyes and arguments.eyes.exists():
        eyes = Eyes()
        eyes.load_state_dict(torch.load(arguments.eyes))
    else:
        crowded = draw_scenes(arguments.picture_scenes, arguments.seed + 1, counts=(1, 2, 3, 4, 4))
        eyes = train_eyes(*paint_all(crowded), (held_images, held_want), arguments.picture_steps)
        if arguments.eyes:
            torch.save(eyes.state_dict(), arguments.eyes)
    scenes = draw_scenes(arguments.language_scenes, arguments.seed + 2)
    features, held_features = query_outputs(eyes, paint_all(scenes)[0]), query_outputs(eyes, held_images)
    print(f"ViT and Q-Former done after {time.time() - begun:.0f} s", flush=True)
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(
            target=make_language,
            args=(family, arguments.output / f"tiny-blip2-{family}", eyes.state_dict(), scenes, features,
                  (held_images, held_scenes, held_features), arguments.language_steps, arguments.seed),
        )
        for family in arguments.families
    ]  # fmt: skip
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        if worker.exitcode:
            raise SystemExit("a base could not be made: see above")
    spent = sum(os.times()[:4])
    print(f"all done after {time.time() - begun:.0f} s, {spent:.0f} s of processor time")


if __name__ == "__main__":
    main()
