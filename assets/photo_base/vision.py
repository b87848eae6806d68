"""First stage of the photo base: a ViT learns to see photographs, from a frozen ImageNet network and from a catalogue."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from base_parts import normalize
from torch import nn
from torch.nn import functional as F
from transformers import Blip2VisionConfig, Blip2VisionModel

from photo_base.data import SIZE, Photographs
from photo_base.heads import WIDTH, Heads, Targets, encode_facts, measure_colors
from photo_base.progress import Checkpoint, Progress, sixteen_bits

PATCH = 16
SIDE = SIZE // PATCH
VISIBLE_PATCHES = 32
"""Patches that are looked at in most of the training; the last part of it shows all 64."""
VISION_CONFIG = Blip2VisionConfig(
    hidden_size=WIDTH, intermediate_size=768, num_hidden_layers=8, num_attention_heads=8, image_size=SIZE,
    patch_size=PATCH, layer_norm_eps=1e-6,
)  # fmt: skip


def to_images(pixels: np.ndarray) -> torch.Tensor:
    """uint8 [batch, height, width, 3] → float32 [batch, 3, height, width] of 0 to 1."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def encode_images(model: Blip2VisionModel, images: torch.Tensor, kept: torch.Tensor | None = None) -> torch.Tensor:
    """Images [batch, 3, SIZE, SIZE] of 0 to 1 → the ViT's output [batch, 1 + patches, WIDTH].

    With `kept`, numbers [batch, few] of the patches to look at, it is [batch, 1 + few, WIDTH].
    """
    hidden = model.embeddings(normalize(images))
    if kept is not None:
        rows = torch.cat([torch.zeros_like(kept[:, :1]), kept + 1], 1)
        hidden = hidden.gather(1, rows[..., None].expand(-1, -1, WIDTH))
    return model.post_layernorm(model.encoder(inputs_embeds=hidden).last_hidden_state)


def summarize(hidden: torch.Tensor) -> torch.Tensor:
    """The ViT's output [batch, 1 + patches, WIDTH] → what the heads read of the whole picture, [batch, 2 * WIDTH]."""
    return torch.cat([hidden[:, 0], hidden[:, 1:].mean(1)], 1)


def augment(images: torch.Tensor, maps: torch.Tensor, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Mirror one picture in two, cut out a part of three in five, change the brightness a little; maps are cut alike.

    Images are [batch, 3, SIZE, SIZE] of 0 to 1, maps [batch, patches, depth].
    """
    batch = len(images)
    scale = np.where(rng.random((batch, 1)) < 0.4, 1.0, rng.uniform(0.7, 1.0, (batch, 2)))
    shift = rng.uniform(-1, 1, (batch, 2)) * (1 - scale)
    scale[:, 0] *= np.where(rng.random(batch) < 0.5, -1, 1)
    turn = np.zeros((batch, 2, 3), np.float32)
    turn[:, 0, 0], turn[:, 1, 1], turn[:, :, 2] = scale[:, 0], scale[:, 1], shift

    def cut(values: torch.Tensor) -> torch.Tensor:
        grid = F.affine_grid(torch.from_numpy(turn), list(values.shape), align_corners=False)
        return F.grid_sample(values, grid, align_corners=False, padding_mode="border")

    maps = cut(maps.transpose(1, 2).unflatten(2, (SIDE, SIDE))).flatten(2).transpose(1, 2)
    bright = torch.from_numpy(rng.uniform(0.85, 1.08, (batch, 1, 1, 1)).astype(np.float32))
    return (cut(images) * bright).clamp(0, 1), maps


def choose_patches(colors: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Choose the patches to look at, those that are not white more often: [batch, patches, 3] → [batch, VISIBLE_PATCHES]."""
    dark = (1 - colors.amin(-1)).clamp(max=0.3)
    noise = torch.from_numpy(rng.random(dark.shape).astype(np.float32))
    return (dark + noise).topk(VISIBLE_PATCHES, sorted=False).indices


@torch.no_grad()
def fact_scores(
    model: Blip2VisionModel, heads: Heads, pixels: np.ndarray, facts: torch.Tensor, kinds: Iterable[str]
) -> dict[str, float]:
    """Share of the facts [pictures, kinds] that the heads say of uint8 [pictures, SIZE, SIZE, 3], by kind."""
    said = []
    for start in range(0, len(pixels), 128):
        with sixteen_bits():
            said.append(heads.predict_facts(summarize(encode_images(model, to_images(pixels[start : start + 128])))))
    right, known = torch.cat(said) == facts, facts >= 0
    places = enumerate(kinds)
    return {
        kind: round(right[:, at][known[:, at]].float().mean().item(), 3) for at, kind in places if known[:, at].any()
    }


@torch.no_grad()
def init_local_attention(model: Blip2VisionModel, layers: int = 6, strength: float = 2.4) -> None:
    """Start the eight heads of the first layers off looking at the eight patches around, as a convolution does.

    Positions are sines and cosines of the place, so that a shift is a rotation. Compare d'Ascoli et al. 2021, ConViT,
    https://arxiv.org/abs/2103.10697.
    """
    frequencies = torch.pi / torch.logspace(4, 7.5, WIDTH // 4, 2.0)  # wavelengths from 32 to 362 pixels
    spots = torch.arange(SIDE * SIDE)
    across, down = (spots % SIDE + 0.5) * PATCH, (spots // SIDE + 0.5) * PATCH
    angles = torch.cat([across[:, None] * frequencies, down[:, None] * frequencies], 1)
    model.embeddings.position_embedding.data[0, 1:] = 0.5 * torch.cat([angles.sin(), angles.cos()], 1)
    nn.init.normal_(model.embeddings.patch_embedding.weight, std=(3 * PATCH * PATCH) ** -0.5)
    around = [(PATCH * right, PATCH * below) for right in (-1, 0, 1) for below in (-1, 0, 1) if right or below]
    for layer in model.encoder.layers[:layers]:
        query, key, _ = layer.self_attn.qkv.weight.split(WIDTH)
        for head, offset in enumerate(around):
            row = head * (WIDTH // len(around))
            for axis, shift in enumerate(offset):
                for wave in range(head, WIDTH // 4, len(around)):
                    sine, turn = axis * (WIDTH // 4) + wave, frequencies[wave] * shift
                    cosine = sine + WIDTH // 2
                    query[row, sine], query[row, cosine] = strength * turn.cos(), strength * turn.sin()
                    query[row + 1, cosine], query[row + 1, sine] = strength * turn.cos(), -strength * turn.sin()
                    key[row, sine] = key[row + 1, cosine] = strength
                    row += 2


def train_vision_model(
    photographs: Photographs, targets: Targets, values: dict[str, list[str]], work: Path, epochs: float, batch: int = 128,
    rate: float = 1e-3, decay: float = 0.25, seed: int = 0,
) -> Blip2VisionModel:  # fmt: skip
    """Train the ViT on photographs; `values` are those of the facts. It goes on from the last checkpoint in `work`.

    The rate stays as it is until the last part, `decay`, where it falls to zero and all patches are shown. The checkpoint
    before that part is kept: asked for more epochs, it goes on from there.
    """
    torch.manual_seed(seed)
    model, heads = Blip2VisionModel(VISION_CONFIG), Heads(values)
    # With 64 patches and on a CPU, plain attention takes half the time of the fused one.
    model.set_attn_implementation("eager")
    init_local_attention(model)
    weights = [*model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.05, betas=(0.9, 0.98), fused=True)
    count = len(photographs.rows)
    batch = min(batch, count)
    steps = int(epochs * count / batch)
    falling = int(steps * (1 - decay))
    parts = {"model": model, "heads": heads, "optimizer": optimizer}
    latest, steady = Checkpoint(work / "vision.pt", **parts), Checkpoint(work / "vision-steady.pt", **parts)
    first = latest.load(steps=steps) or steady.load(most=falling, batch=batch) or 0
    held_pixels, held_facts = photographs.pixels[photographs.held_rows], encode_facts(photographs.held_items, values)
    progress = Progress("ViT", first, steps)
    for step in range(first, steps):
        rng = np.random.default_rng((seed, step))
        epoch, place = divmod(step, count // batch)
        order = np.random.default_rng((seed, 1 << 20, epoch)).permutation(count)
        rows = np.sort(order[place * batch : (place + 1) * batch])
        wanted = targets.batch(rows)
        images, wanted["maps"] = augment(to_images(photographs.pixels[photographs.rows[rows]]), wanted["maps"], rng)
        wanted["colors"], wanted["shares"] = measure_colors(images, SIDE)
        kept = choose_patches(wanted["colors"], rng) if step < falling else None
        if kept is not None:
            for name in ("maps", "colors"):
                wanted[name] = wanted[name].gather(1, kept[..., None].expand(-1, -1, wanted[name].shape[-1]))
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 300, (steps - step) / (steps - falling))
        with sixteen_bits():
            hidden = encode_images(model, images, kept)
            losses = heads.losses(hidden[:, 1:], summarize(hidden), wanted)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        progress.step(step, losses, batch)
        if step % 500 == 499 or step == steps - 1:
            print("ViT, held out:", fact_scores(model, heads, held_pixels, held_facts, values), flush=True)
        if step + 1 == falling:
            steady.save(step + 1, batch=batch)
        if latest.is_due() or step == steps - 1:
            latest.save(step + 1, steps=steps)
    return model.eval()
