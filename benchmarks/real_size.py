"""The real size: one training step and one answered batch of BLIP-2 at its real dimensions, with random weights.

    python benchmarks/real_size.py                                  # opt-2.7b, bfloat16, on the device found
    python benchmarks/real_size.py --shape blip2-flan-t5-xl --batch_size 4 --steps 3

No download: the model is built from its configuration. Prints seconds and peak memory, and writes them as JSON.
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import psutil
import torch
from transformers import Blip2Config, Blip2QFormerConfig, Blip2VisionConfig, OPTConfig, T5Config

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from blip2vqa.arguments import LoraArguments
from blip2vqa.families import family_of
from blip2vqa.loading import LoadedModel, find_device
from blip2vqa.lora import wrap
from blip2vqa.training import AnswerLoss

PROMPT_TOKENS, ANSWER_TOKENS = 20, 3


def configuration(shape: str) -> Blip2Config:
    """The configuration of a model on the Hub; `tiny` is for tests."""
    vision, qformer = Blip2VisionConfig(), Blip2QFormerConfig()
    if shape == "blip2-opt-2.7b":
        text = OPTConfig(
            vocab_size=50304, hidden_size=2560, ffn_dim=10240, num_hidden_layers=32, num_attention_heads=32,
            word_embed_proj_dim=2560, max_position_embeddings=2048,
        )  # fmt: skip
    elif shape == "blip2-flan-t5-xl":
        text = T5Config(
            vocab_size=32128, d_model=2048, d_kv=64, d_ff=5120, num_layers=24, num_heads=32,
            feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=0,
        )  # fmt: skip
    else:
        vision = Blip2VisionConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2)
        qformer = Blip2QFormerConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2)
        text = OPTConfig(
            vocab_size=512,
            hidden_size=64,
            ffn_dim=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            word_embed_proj_dim=64,
        )
    return Blip2Config(vision_config=vision, qformer_config=qformer, text_config=text, image_token_index=5)


def build(config: Blip2Config, dtype: torch.dtype, device: torch.device):
    """Random weights straight in `dtype`: 3.7 billion of them in float32 first would need twice the memory."""
    with torch.device("meta"):
        model = family_of(config).model_class(config).to(dtype)
    model = model.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                # One slice of random numbers repeated is as good for timing, and much faster to draw.
                flat, drawn = parameter.view(-1), min(parameter.numel(), 1 << 20)
                noise = torch.empty(drawn, dtype=dtype, device=device).normal_(0.0, 0.02, generator=generator)
                for start in range(0, flat.numel(), drawn):
                    flat[start : start + drawn] = noise[: flat.numel() - start]
            else:
                parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        for name, buffer in model.named_buffers():
            if "position_ids" in name:
                buffer.copy_(torch.arange(buffer.shape[-1]).expand_as(buffer))
    model.tie_weights()
    return model.requires_grad_(False).eval()


def peak_bytes(device: torch.device) -> int:
    """Most memory held so far: of the card, or resident of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def batch_of(config: Blip2Config, rows: int, device: torch.device, seq2seq: bool) -> dict[str, torch.Tensor]:
    """Token tensors of `rows` questions, shaped as the collator makes them."""
    images = torch.full((rows, config.num_query_tokens), config.image_token_index)
    words = torch.randint(10, 500, (rows, PROMPT_TOKENS + ANSWER_TOKENS))
    batch = {"input_ids": torch.cat([images, words], 1)}
    if seq2seq:
        batch["input_ids"] = batch["input_ids"][:, :-ANSWER_TOKENS]
        batch["labels"] = batch["decoder_input_ids"] = words[:, -ANSWER_TOKENS:]
    else:
        batch["labels"] = batch["input_ids"].clone()
        batch["labels"][:, :-ANSWER_TOKENS] = -100
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    return {name: tensor.to(device) for name, tensor in batch.items()}


def measure(shape: str, rows: int, steps: int, device: torch.device, dtype: torch.dtype) -> dict:
    """Seconds of each stage, and peak memory in bytes."""
    result = {"shape": shape, "batch_size": rows, "device": str(device), "dtype": str(dtype).removeprefix("torch.")}
    if device.type == "cuda":
        result["device_name"] = torch.cuda.get_device_name(device)

    def timed(name, function):
        best = []
        for _ in range(steps):
            if device.type == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            value = function()
            if device.type == "cuda":
                torch.cuda.synchronize()
            best.append(time.perf_counter() - start)
        result[f"{name}_seconds"] = min(best)
        print(f"{name:>14}: {min(best):8.2f} s", flush=True)
        return value

    start = time.perf_counter()
    config = configuration(shape)
    family, model = family_of(config), build(config, dtype, device)
    result["parameters"] = sum(p.numel() for p in model.parameters())
    print(f"{'build':>14}: {time.perf_counter() - start:8.2f} s, {result['parameters']:,} parameters", flush=True)

    pixels = torch.randn(rows, 3, config.vision_config.image_size, config.vision_config.image_size)
    with torch.inference_mode():
        features = timed("encode", lambda: model.encode(pixels.to(device, dtype))).clone()
    loaded = LoadedModel(model, None, family, shape, None, device, dtype, "none", [])
    result["trainable_parameters"] = wrap(loaded, LoraArguments(), seed=0).trainable
    base, model = model, loaded.model
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    loss_of, batch = AnswerLoss(family.seq2seq), batch_of(config, rows, device, family.seq2seq)
    labels = batch.pop("labels")
    if not family.seq2seq:
        batch["keep"] = (labels != -100).roll(-1, dims=1)

    def step():
        loss = loss_of(model(query_output=features, **batch), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    model.train()
    result["loss"] = timed("training_step", step)
    model.eval()

    def answer():
        ids = batch["input_ids"] if family.seq2seq else batch["input_ids"][:, :-ANSWER_TOKENS]
        return base.language_model.generate(
            inputs_embeds=base.embed(ids, features), attention_mask=torch.ones_like(ids), do_sample=False,
            min_new_tokens=ANSWER_TOKENS, max_new_tokens=ANSWER_TOKENS,
        )  # fmt: skip

    with torch.inference_mode():
        timed("answer_batch", answer)
    result["peak_memory_bytes"] = peak_bytes(device)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="blip2-opt-2.7b", choices=["blip2-opt-2.7b", "blip2-flan-t5-xl", "tiny"])
    parser.add_argument("--batch_size", type=int, default=4, help="questions in a batch")
    parser.add_argument("--steps", type=int, default=1, help="repetitions of each stage; the fastest counts")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    args = parser.parse_args()
    device = find_device()
    result = measure(args.shape, args.batch_size, args.steps, device, getattr(torch, args.dtype))
    print(
        f"   peak memory: {result['peak_memory_bytes'] / 2**30:8.2f} GiB of {psutil.virtual_memory().total / 2**30:.0f} GiB"
    )
    if args.output:
        args.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
