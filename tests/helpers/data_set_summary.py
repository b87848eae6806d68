"""The summary of a made data set, for tests of what is printed, drawn and written from it."""

import copy

SUMMARY = {
    "output_path": "/home/someone/out/vqa.csv",
    "catalogue": {"kind": "abo", "path": "/data/abo mini", "listings": 14_702, "left_out": {}, "unsaid": {}},
    "backend": "templates", "model": None, "check_model": None, "preview": None, "seed": 42,
    "command": "python generate_vqa.py --abo_dir '/data/abo mini' --output_path=/home/someone/out/vqa.csv --seed 42",
    "versions": {"python": "3.11.9"}, "counts": {"pictures": 1_601, "products": 1_502, "questions": 9_003},
    "splits": {
        "train": {"questions": 7_204, "pictures": 1_281, "products": 1_205},
        "val": {"questions": 1_799, "pictures": 320, "products": 297},
        "test": {"questions": 0, "pictures": 0, "products": 0},
    },
    "question_types": {
        "yes/no": {"n": 5_003, "answers": {"yes": 2_503, "no": 2_500}},
        "color": {"n": 4_000, "answers": {f"shade{number:02}": 100 for number in range(39)} | {"black": 100}},
    },
    "product_types": {"cellular_phone_case": 900, "chair": 701},
    "funnel": [
        {"step": "asked", "dropped": 0, "left": 12_986, "reasons": {}},
        {"step": "balance", "dropped": 3_983, "left": 9_003, "reasons": {f"r{place}": 2_000 >> place for place in range(8)}},
    ],
    "blind": {"before": 0.481, "after": 0.333, "limit": 0.35}, "cost": None,
}  # fmt: skip
NOTHING = {"questions": 0, "pictures": 0, "products": 0}
EMPTY = dict.fromkeys(SUMMARY["splits"], NOTHING)
UNKNOWN = {"before": None, "after": None, "limit": 0.35}


def changed(**more) -> dict:
    return copy.deepcopy(SUMMARY) | more
