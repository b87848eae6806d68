"""First stage of the tiny bases: teach the ViT and the Q-Former to see, with heads that are thrown away afterwards.

Each patch of the ViT says which shape and colour covers it; query token r * 4 + c of the Q-Former says which shape has
its centre in row r and column c of a 4 by 4 grid, its colour, radius and exact place. No text is involved.
"""

import time

import numpy as np
import torch
from base_parts import normalize
from scenes import CELL, COLOR_NAMES, GRID, SHAPES, SIZE, Scene, coverage, render
from torch import nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel, Blip2VisionConfig, Blip2VisionModel

PATCH = 8
WIDTH = 128
QUERIES = GRID * GRID

VISION_CONFIG = Blip2VisionConfig(
    hidden_size=WIDTH, intermediate_size=384, num_hidden_layers=3, num_attention_heads=4, image_size=SIZE,
    patch_size=PATCH, initializer_range=0.05, layer_norm_eps=1e-6,
)  # fmt: skip
QFORMER_CONFIG = Blip2QFormerConfig(
    vocab_size=1, hidden_size=WIDTH, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
    cross_attention_frequency=1, encoder_hidden_size=WIDTH, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    max_position_embeddings=64, initializer_range=0.05,
)  # fmt: skip


WAVES = torch.pi / torch.logspace(3, 6.5, WIDTH // 4, 2.0)
"""Radians a pixel: wavelengths from 16 to 181 pixels."""


def waves(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Sines and cosines of places [count] in pixels -> [count, 128]: positions that start out knowing what is near."""
    angles = torch.cat([x[:, None] * WAVES, y[:, None] * WAVES], 1)
    return torch.cat([angles.sin(), angles.cos()], 1)


@torch.no_grad()
def look_at(query: torch.Tensor, key: torch.Tensor, offsets: list[tuple[int, int]], strength: float = 2.4) -> None:
    """Start each attention head off looking at the place (x, y) pixels away, as a convolution does.

    `query` and `key` are weights [128, 128], changed in place. Positions are `waves`, so that a shift is a rotation.
    Compare d'Ascoli et al. 2021, ConViT, https://arxiv.org/abs/2103.10697.
    """
    half, count = WIDTH // 2, len(offsets)
    for head, offset in enumerate(offsets):
        row = head * (WIDTH // count)
        for axis, shift in enumerate(offset):
            for wave in range(head, WIDTH // 4, count):
                sine, cosine = axis * (WIDTH // 4) + wave, half + axis * (WIDTH // 4) + wave
                turn = WAVES[wave] * shift
                query[row, sine], query[row, cosine] = strength * turn.cos(), strength * turn.sin()
                query[row + 1, cosine], query[row + 1, sine] = strength * turn.cos(), -strength * turn.sin()
                key[row, sine] = key[row + 1, cosine] = strength
                row += 2


class Eyes(nn.Module):
    """ViT, Q-Former and query tokens under the names they have in `Blip2ForConditionalGeneration`."""

    def __init__(self):
        super().__init__()
        self.vision_model = Blip2VisionModel(VISION_CONFIG)
        self.qformer = Blip2QFormerModel(QFORMER_CONFIG)
        side = SIZE // PATCH
        spots, cells = torch.arange(side * side), torch.arange(QUERIES)
        places = waves((spots % side + 0.5) * PATCH, (spots // side + 0.5) * PATCH)
        self.vision_model.embeddings.position_embedding.data[0, 1:] = places
        self.query_tokens = nn.Parameter(waves((cells % GRID + 0.5) * CELL, (cells // GRID + 0.5) * CELL)[None])
        beside = [(PATCH, 0), (-PATCH, 0), (0, PATCH), (0, -PATCH)]
        aslant = [(x, y) for x in (-PATCH, PATCH) for y in (-PATCH, PATCH)]
        for number, layer in enumerate(self.vision_model.encoder.layers):
            query, key, _ = layer.self_attn.qkv.weight.split(WIDTH)
            look_at(query, key, aslant if number % 2 else beside)
        for layer in self.qformer.encoder.layer:
            attention = layer.crossattention.attention
            look_at(attention.query.weight, attention.key.weight, [(x, y) for x in (-4, 4) for y in (-4, 4)])

    def forward(self, pixels: torch.Tensor, kept: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixel values [batch, 3, 64, 64] -> patches after the last layer, queries [batch, 16, 128].

        Patches are [batch, 64, 128], without the class token; with `kept`, numbers [batch, few] of the patches to look
        at, they are [batch, few, 128].
        """
        seen = self.vision_model.embeddings(pixels)
        if kept is not None:
            rows = torch.cat([torch.zeros_like(kept[:, :1]), kept + 1], 1)
            seen = seen.gather(1, rows[..., None].expand(-1, -1, WIDTH))
        seen = self.vision_model.encoder(inputs_embeds=seen).last_hidden_state
        seen = self.vision_model.post_layernorm(seen)
        queries = self.query_tokens.expand(len(pixels), -1, -1)
        queries = self.qformer(query_embeds=queries, encoder_hidden_states=seen).last_hidden_state
        return seen[:, 1:], queries


class Heads(nn.Module):
    """The classifiers of the first stage."""

    def __init__(self):
        super().__init__()
        kinds = 1 + len(SHAPES), 1 + len(COLOR_NAMES)
        self.patch = nn.Linear(WIDTH, sum(kinds) + 3)
        self.query = nn.Linear(WIDTH, sum(kinds) + 3)
        self.ground = nn.Linear(WIDTH, 3)
        self.split = list(kinds)


def to_pixels(images: torch.Tensor) -> torch.Tensor:
    """uint8 [batch, 64, 64, 3] -> float [batch, 3, 64, 64], normalised as the image processor does."""
    return normalize(images.permute(0, 3, 1, 2).float() / 255)


def targets(scene: Scene) -> dict[str, np.ndarray]:
    """What the heads should say. Class 0 means nothing is there; lengths are shares of a cell, 16 pixels.

    patch_shape, patch_color [64]; query_shape, query_color [16]; ground []. Centre x, y and radius of the shape:
    patch_place [64, 3] from the middle of the patch, query_place [16, 3] from the corner of the cell.
    """
    kinds = np.array([(0, 0)] + [(1 + SHAPES.index(i.shape), 1 + COLOR_NAMES.index(i.color)) for i in scene.items])
    side = SIZE // PATCH
    tiles = coverage(scene).reshape(side, PATCH, side, PATCH).swapaxes(1, 2).reshape(side * side, PATCH * PATCH)
    counts = np.stack([(tiles == k).sum(1) for k in range(len(kinds))], 1)
    counts[:, 0] = np.where(counts[:, 1:].max(1) >= 5, -1, 64) if len(kinds) > 1 else 64
    winner = counts.argmax(1)
    patch = kinds[winner]
    centres = np.array([(0, 0, 0)] + [(item.x, item.y, item.radius) for item in scene.items])[winner] / CELL
    spots = np.arange(side * side)
    centres[:, 0] -= (spots % side + 0.5) * PATCH / CELL
    centres[:, 1] -= (spots // side + 0.5) * PATCH / CELL
    query = np.zeros((QUERIES, 2), np.int64)
    place = np.zeros((QUERIES, 3), np.float32)
    for item, kind in zip(scene.items, kinds[1:], strict=True):
        row, column = item.cell
        query[row * GRID + column] = kind
        place[row * GRID + column] = item.x / CELL - column, item.y / CELL - row, item.radius / CELL
    return {
        "patch_shape": patch[:, 0], "patch_color": patch[:, 1], "query_shape": query[:, 0],
        "query_color": query[:, 1], "patch_place": centres.astype(np.float32), "query_place": place,
        "ground": np.array(("light", "mid", "dark").index(scene.ground)),
    }  # fmt: skip


def paint_all(scenes: list[Scene]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """All pictures, uint8 [count, 64, 64, 3], and their stacked targets."""
    images = torch.from_numpy(np.stack([render(scene) for scene in scenes]))
    rows = [targets(scene) for scene in scenes]
    return images, {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}


def worth_a_look(patch_shape: torch.Tensor, count: int) -> torch.Tensor:
    """Numbers [batch, count] of the covered patches, the patches beside them, and others by chance."""
    side = SIZE // PATCH
    covered = (patch_shape > 0).float().view(-1, 1, side, side)
    near = nn.functional.max_pool2d(covered, 3, 1, 1)
    return ((covered + near).flatten(1) + torch.rand(patch_shape.shape)).topk(count, sorted=False).indices


def picture_loss(
    eyes: Eyes, heads: Heads, pixels: torch.Tensor, want: dict[str, torch.Tensor], few: int = 0
) -> torch.Tensor:  # fmt: skip
    """Cross-entropies of all heads plus squared errors of places and radii; `few` patches are looked at, or all."""
    kept = worth_a_look(want["patch_shape"], few) if few else None
    patches, queries = eyes(pixels, kept)
    if few:
        names = ("patch_shape", "patch_color", "patch_place")
        rows = torch.arange(len(pixels))[:, None]
        want = {**want, **{name: want[name][rows, kept] for name in names}}
    patch_shape, patch_color, offset = heads.patch(patches).split([*heads.split, 3], -1)
    query_shape, query_color, place = heads.query(queries).split([*heads.split, 3], -1)
    loss = nn.functional.cross_entropy(heads.ground(queries.mean(1)), want["ground"]) * 0.1
    for logits, name in (
        (patch_shape, "patch_shape"), (patch_color, "patch_color"),
        (query_shape, "query_shape"), (query_color, "query_color"),
    ):  # fmt: skip
        weight = torch.ones(logits.shape[-1])
        weight[0] = 0.3
        loss = loss + nn.functional.cross_entropy(logits.flatten(0, 1), want[name].flatten(), weight)
    there = want["query_shape"] > 0
    covered = want["patch_shape"] > 0
    loss = loss + 5 * nn.functional.mse_loss(offset[covered], want["patch_place"][covered])
    return loss + 10 * nn.functional.mse_loss(place[there], want["query_place"][there])


@torch.no_grad()
def picture_scores(eyes: Eyes, heads: Heads, images: torch.Tensor, want: dict[str, torch.Tensor]) -> dict[str, float]:
    """Shares right: covered patches (shape, colour), shapes found in their cell with name and colour, whole scenes."""
    eyes.eval()
    found = {"patch_shape": [], "patch_color": [], "item": [], "scene": []}
    for start in range(0, len(images), 256):
        part = {name: value[start : start + 256] for name, value in want.items()}
        patches, queries = eyes(to_pixels(images[start : start + 256]))
        patch_shape, patch_color, _ = heads.patch(patches).split([*heads.split, 3], -1)
        query_shape, query_color, _ = heads.query(queries).split([*heads.split, 3], -1)
        covered = part["patch_shape"] > 0
        found["patch_shape"].append((patch_shape.argmax(-1) == part["patch_shape"])[covered])
        found["patch_color"].append((patch_color.argmax(-1) == part["patch_color"])[covered])
        right = (query_shape.argmax(-1) == part["query_shape"]) & (query_color.argmax(-1) == part["query_color"])
        found["item"].append(right[part["query_shape"] > 0])
        found["scene"].append(right.all(1))
    eyes.train()
    return {name: round(torch.cat(rows).float().mean().item(), 4) for name, rows in found.items()}


def train_eyes(
    images: torch.Tensor, want: dict[str, torch.Tensor], held_out: tuple, steps: int, batch: int = 64,
    rate: float = 2e-3, few_until: float = 0.7,
) -> Eyes:  # fmt: skip
    """Train ViT and Q-Former on painted scenes (see `paint_all`); prints progress and held-out scores."""
    eyes, heads = Eyes(), Heads()
    weights = [*eyes.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.05, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.08)
    begun, order = time.time(), torch.randperm(len(images))
    for step in range(steps):
        if (step + 1) * batch % len(images) < batch:
            order = torch.randperm(len(images))
        rows = order[torch.arange(step * batch, (step + 1) * batch) % len(images)]
        part = {name: value[rows] for name, value in want.items()}
        loss = picture_loss(eyes, heads, to_pixels(images[rows]), part, 30 * (step < few_until * steps))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            spent = time.time() - begun
            left = spent / (step + 1) * (steps - step - 1)
            pace = (step + 1) * batch / spent
            print(f"pictures {step + 1}/{steps} loss {loss:.3f}, {pace:.0f}/s, {left:.0f} s left", flush=True)
        if step % 500 == 499 or step == steps - 1:
            print("pictures, held out:", picture_scores(eyes, heads, *held_out), flush=True)
    return eyes
