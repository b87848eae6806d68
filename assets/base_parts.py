"""What the embedded bases have in common: how pictures are normalised, how attention starts, how a folder is written."""

import json
from pathlib import Path

import torch
from torch import nn
from transformers import Blip2ForConditionalGeneration, Blip2Processor, BlipImageProcessorPil, PreTrainedTokenizerFast

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Mean and standard deviation of the picture values, of 1: BLIP-2's own, the processor's default."""


def normalize(images: torch.Tensor) -> torch.Tensor:
    """Normalise pictures [batch, 3, height, width] of 0 to 1 as the image processor does."""
    return (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


@torch.no_grad()
def match_alike(language_model: nn.Module) -> None:
    """Let the first half of the heads of each self-attention start with equal query and key weights.

    Such heads look for tokens like their own: "red" finds what is red. Compare Trockman and Kolter 2023, mimetic
    initialization, https://arxiv.org/abs/2305.09828.
    """
    for module in language_model.modules():
        if hasattr(module, "q_proj"):
            query, key, scale = module.q_proj.weight, module.k_proj.weight, 1.0
        elif hasattr(module, "relative_attention_bias") and not module.is_decoder:
            query, key, scale = module.q.weight, module.k.weight, module.key_value_proj_dim**-0.25
        else:
            continue
        half = len(query) // 2
        nn.init.normal_(query[:half], std=query.shape[1] ** -0.5 * scale)
        key[:half] = query[:half]


def save_base(
    model: Blip2ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path, size: int
) -> None:
    """Write a folder in the Hub's layout, for pictures of `size` pixels. Weights are stored in 16 bits and load as float32."""
    image_processor = BlipImageProcessorPil(
        size={"height": size, "width": size}, image_mean=list(MEAN), image_std=list(STD), do_convert_rgb=True
    )
    processor = Blip2Processor(image_processor, tokenizer, num_query_tokens=model.config.num_query_tokens)
    for name in ("is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(name, None)  # how it was loaded is not part of it
    model.half().save_pretrained(folder)
    processor.save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        part.pop("dtype", None)
    path.write_text(json.dumps({**config, "dtype": "float32"}, indent=2, sort_keys=True) + "\n")
