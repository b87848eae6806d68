"""What encoding a new picture costs at a ViT's real size, beside the plain way and beside its matrix products.

    python benchmarks/encoding.py --output encoding.json                      # ViT-g of BLIP-2, random weights, bfloat16
    python benchmarks/encoding.py --shape tiny --output /tmp/tiny.json        # a few seconds

Plain: upstream's ViT as it is loaded. Ours: the same module as `load_base` leaves it for encoding. Floor: the matrix products
of our way alone, replayed with the same weights; the patches' convolution is not among them. Pixels are random. The ways take
turns; times are the fastest of `--repeats`, after one run to warm up. No download.
"""

import json
import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from blip2vqa.models.attention import suit_encoding
from blip2vqa.models.loading import find_device
from measuring import MatrixProducts, circumstances, options, print_profile, seconds
from shapes import build, configuration


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--batch_size", type=int, default=8, help="images encoded at a time")
    args = parser.parse_args()
    device, dtype = find_device(), getattr(torch, args.dtype)
    plain, ours = (build(configuration(args.shape), dtype, device).vision_model for _ in range(2))
    suit_encoding(ours, device, dtype)
    size = plain.config.image_size
    pixels = torch.randn(args.batch_size, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device, dtype)

    def encode(vit: torch.nn.Module) -> torch.Tensor:
        return vit(pixel_values=pixels).last_hidden_state

    # Inference mode would hide the products in larger operations.
    with torch.no_grad(), MatrixProducts(ours) as products:
        found = encode(ours)
    with torch.inference_mode():
        apart = (found - encode(plain)).abs().max() / found.abs().max()
        ways = {"plain": lambda: encode(plain), "ours": lambda: encode(ours), "floor": products.run}
        times = {name: [] for name in ways}
        for _ in range(args.repeats + 1):
            for name, way in ways.items():
                times[name].append(seconds(way, device) / args.batch_size)
        best = {name: min(taken[1:]) for name, taken in times.items()}
        if args.profile:
            print_profile(ways["ours"], device)
    gap = 1 - (best["ours"] - best["floor"]) / (best["plain"] - best["floor"])
    result = {
        "command": f"python {' '.join(sys.argv)}", **circumstances(device), "shape": args.shape, "dtype": args.dtype,
        "batch_size": args.batch_size, **{f"{name}_seconds_per_image": taken for name, taken in best.items()},
        "gap_closed": gap, "largest_difference": apart.item(),
    }  # fmt: skip
    table = Table(title=f"{args.shape}, {args.dtype}, {args.batch_size} images at a time")
    for column in ("", "seconds an image", "above the matrix products"):
        table.add_column(column, justify="right" if column else "left")
    for name, taken in best.items():
        table.add_row(name, f"{taken:.3f}", f"{taken / best['floor'] - 1:.1%}")
    Console(highlight=False).print(table)
    print(f"{gap:.0%} of the gap closed; the features differ by {apart:.1e} of the largest")
    args.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
