"""What README and docs claim, line by line, and the measurements that each claim comes from.

A claim is a line (or a part of one) as it stands on a page, with the figures left out: they are filled in from a file of
docs/measurements. Whoever measures again changes file and page together.
"""

import json
from functools import cache
from typing import ClassVar

from helpers.paths import ROOT

DOCS = ROOT / "docs"
MEASUREMENTS = DOCS / "measurements"


class Figure(float):
    """A measured number; beside Python's formats it knows those that end in a unit of `UNITS`, as `.1Gi` does."""

    UNITS: ClassVar = {"Gi": 2.0**30, "Mi": 2.0**20, "G": 1e9, "M": 1e6, "k": 1e3, "u": 1e-6}

    def __format__(self, spec: str) -> str:
        for unit, size in self.UNITS.items():
            if spec.endswith(unit):
                return format(float(self) / size, spec.removesuffix(unit) + "f")
        return format(float(self), spec)


@cache
def measured(name: str) -> dict:
    """A file of docs/measurements with its numbers as `Figure`."""
    data = json.loads((MEASUREMENTS / f"{name}.json").read_text(), parse_float=Figure, parse_int=Figure)
    if "separate_seconds" in data:
        data["separate_total"] = Figure(min(map(sum, data["separate_seconds"])))
    return data


def training_row(label: str, questions: int) -> str:
    return (
        f"| {label} | {questions} | {{reference_seconds_per_question:.2f}} | {{seconds_per_question:.2f}} "
        "| {gemm_floor_seconds_per_question:.2f} | **{speedup:.1f} ×** | {floor_ratio:.2f} "
        "| {peak_memory_bytes[reference]:.1Gi} → {peak_memory_bytes[ours]:.1Gi} ({memory_ratio:.2f}) |"
    )


def scaling_row(label: str, step: str) -> str:
    largest = f"{{sizes[3][steps][{step}][seconds_per_row]:.1u}}"
    bytes_a_row = f"{{sizes[3][steps][{step}][peak_bytes_per_row]:.0f}}"
    return f"| {label} | {largest} | {{verdicts[{step}][seconds_ratio]:.2f}} | {bytes_a_row} |"


def move_row(label: str, move: str) -> str:
    columns = ["moved, images swapped", "zero adapter", "random adapter", "trained directly"]
    cells = [f"{{moves[{move}][accuracy][{column}]:.1%}}" for column in columns]
    first = f"| {label} | {{moves[{move}][accuracy][target base]:.1%}} | **{{moves[{move}][accuracy][moved adapter]:.1%}}** |"
    return f"{first} {' | '.join(cells)} | {{moves[{move}][gain][recovered]:.0%}} |"


def photo_row(label: str, system: str, part: str = "abo") -> str:
    of = f"{part}[systems][{system}]"
    kinds = " | ".join(
        f"{{{of}[by_question_type][{kind}]:.1%}}" for kind in ("color", "shape", "material", "count", "what")
    )
    return f"| {label} | {{{of}[accuracy]:.1%}} | {{{of}[interval][0]:.1%}} to {{{of}[interval][1]:.1%}} | {kinds} |"


def quickstart_row(system: str, name: str) -> str:
    of = f"quickstart[systems][{name}]"
    scored = f"{{{of}[bertscore_f1]:.3f}}" if name in ("base", "adapter") else ""
    return f"| {system} | {{{of}[accuracy]:.1%}} | {scored}".rstrip() + " |"


def calibration_row(label: str, part: str) -> str:
    off = " | ".join(f"{{{part}[calibration][error_{when}]:.3f}}" for when in ("before", "after"))
    return f"| {label} | {{{part}[questions]:,.0f}} | {{{part}[systems][adapter][accuracy]:.1%}} | {off} |"


def specialist_row(kind: str) -> str:
    systems = " | ".join(f"{{{kind}[systems][{name}][accuracy]:.1%}}" for name in ("general", "specialist"))
    return f"| {kind} | {{{kind}[questions]:.0f}} | {systems} |"


def moved_row(label: str, move: str) -> str:
    columns = ["moved, images swapped", "zero adapter", "random adapter", "trained directly"]
    of = f"moved[{move}][systems]"
    cells = " | ".join(f"{{{of}[{column}][accuracy]:.1%}}" for column in columns)
    first = f"| {label} | {{{of}[target base][accuracy]:.1%}} | **{{{of}[moved adapter][accuracy]:.1%}}** |"
    return f"{first} {cells} | {{moved[{move}][gain][recovered]:.0%}} |"


def caption_row(style: str) -> str:
    base, adapter, *rest = (
        f"{{captions[{style}][{name}][cider]:.2f}}" for name in ("base", "adapter", "blind", "swapped")
    )
    return f"| {style} | {base} → {adapter} | {' | '.join(rest)} |"


def made_row(label: str, system: str) -> str:
    of = f"generated[systems][{system}]"
    return f"| {label} | {{{of}[accuracy]:.1%}} | {{{of}[interval][0]:.1%}} to {{{of}[interval][1]:.1%}} |"


def startup_rows() -> list[str]:
    """The table of start-up times, a row a command."""
    return [
        f"| `{row['command']}` | {{rows[{number}][before][seconds]:.1f}} | {{rows[{number}][now][seconds]:.1f}} |"
        for number, row in enumerate(measured("startup")["rows"])
    ]


def merge_row(label: str, merge: str) -> str:
    return f"| {label} | {{merges[{merge}][count]:.1%}} | {{merges[{merge}][color]:.1%}} |"


def operation_row(label: str, operation: str, digits: int = 2) -> str:
    timed = f"{{operations[{operation}][seconds]:.{digits}f}}"
    return f"| {label} | {timed} | {{operations[{operation}][peak_bytes]:.2G}} |"


INFERENCE = [
    "| one by one | {seed_seconds_per_question:.2f} | | |",
    "| plain | {reference_seconds_per_question:.2f} | | |",
    "| ours, picture new | {first_seconds_per_question:.2f} | **{speedup_first:.1f} ×** | {speedup_seed_first:.1f} × |",
    "| ours, kept | {seconds_per_question:.2f} | **{speedup:.1f} ×** | {speedup_seed:.1f} × |",
]
PERFORMANCE_CLAIMS = {
    "startup": startup_rows(),
    "training-opt-2.7b-04": [
        training_row("opt-2.7b, 4 questions an image", 16),
        "in float32 without dropout (`gradient_difference`)",
        "differ from the plain way's by {gradient_difference:.0e} of the largest",
        "Features are computed once: {encode_seconds_per_image:.1f} s an image",
        "| training, 4 questions an image | at least 4.0 × | {speedup:.2f} × | yes |",
        "| the same, against the products' floor | at most 1.2 × | {floor_ratio:.2f} × | **no** |",
        "| peak memory of training, of the plain way's | at most 0.75 | {memory_ratio:.2f} | yes |",
        "is one: {peak_memory_bytes[ours]:.2Gi} GiB for the last row",
    ],
    "training-opt-2.7b-10": [
        training_row("opt-2.7b, 10", 20),
        "| training, 10 questions an image | at least 4.7 × | {speedup:.2f} × | yes |",
        "({floor_ratio:.2f} at ten, ",
    ],
    "training-opt-2.7b-01": [
        training_row("opt-2.7b, 1", 8),
        "| training, 1 question an image | at least 1.8 × | {speedup:.2f} × | yes |",
        " {floor_ratio:.2f} at one, ",
    ],
    "training-t5-xl-04": [
        training_row("flan-t5-xl, 4", 16),
        "| training flan-t5-xl, 4 questions an image | at least 1.8 × | {speedup:.2f} × | yes |",
        " {floor_ratio:.2f} with flan-t5-xl)",
    ],
    "training-instructblip-t5-xl-04": [training_row("instructblip-flan-t5-xl, 4", 16)],
    "inference-opt-2.7b-04": [
        *INFERENCE,
        "{answers_same:.0f} of {answers_compared:.0f} in float32 on a small model",
        "| inference, picture new, against plain | at least 2.2 × | {speedup_first:.2f} × | yes |",
        "| … against one by one | at least 5 × | {speedup_seed_first:.2f} × | yes |",
        "| inference, features kept, against plain | at least 3.5 × | {speedup:.2f} × | yes |",
        "| … against one by one | at least 8 × | {speedup_seed:.2f} × | yes |",
    ],
    "inference-instructblip-t5-xl-04": INFERENCE,
    "vilt": [
        "| training step | {training[reference_seconds_per_question]:.3f} | {training[seconds_per_question]:.3f} "
        "| **{training[speedup]:.1f} ×** "
        "| {training[peak_memory_bytes][reference]:.1Gi} → {training[peak_memory_bytes][ours]:.1Gi} |",
        "| answering | {answering[reference_seconds_per_question]:.3f} | {answering[seconds_per_question]:.3f} "
        "| **{answering[speedup]:.1f} ×** | |",
    ],
    "side-by-side": [
        "| embedded OPT | {questions:.0f} | {separate_total:.0f} s | {together_seconds[0]:.0f} s | **{ratio:.2f}** |",
        "In bfloat16 {share_of_equal_answers:.1%} and ",
        "embedded base, of three runs | at most 0.5 | {ratio:.2f} | yes |",
    ],
    "side-by-side-opt-2.7b": [
        "| opt-2.7b, random weights | {questions:.0f} | {separate_total:.0f} s | {together_seconds[0]:.0f} s "
        "| **{ratio:.2f}** |",
        " and {share_of_equal_answers:.1%} of the answers",
        "| … at opt-2.7b's size, {questions:.0f} questions | at most 0.5 | {ratio:.2f} | **no** |",
        "*Three adapters at the real size* ({ratio:.2f}; 0.5 was the target)",
    ],
    "whole-job-easy-vqa": [
        "| plain | {plain_seconds:.0f} s | {plain_accuracy:.1%} |",
        "| ours | {ours_seconds:.0f} s | {ours_accuracy:.1%} |",
        "{speedup:.1f} times faster.",
        "same accuracy | {speedup:.2f} ×, {ours_accuracy:.1%} and {plain_accuracy:.1%} | **no** |",
    ],
    "scaling": [
        scaling_row("reading", "read"),
        scaling_row("checking, pictures included", "check"),
        scaling_row("splitting", "split"),
        scaling_row("lengths", "lengths"),
        scaling_row("storing features", "store"),
        scaling_row("looking them up", "look_up"),
        scaling_row("order of an epoch", "order"),
        scaling_row("collating ({sizes[3][steps][collate][rows]:,.0f} rows)", "collate").replace(":.1u", ":.0u"),
        "The features took {sizes[3][feature_bytes]:.0M} MB on disk",
    ],
}  # fmt: skip
EXCHANGE_CLAIMS = {
    "exchange-scores": [
        "the drawings' adapter ({moves[exact, to other eyes][accuracy][source adapter]:.1%} on its own base",
        "score {moves[exact, to other eyes][accuracy][blind (no image)]:.1%}",
        move_row("exact, to other Q-Former", "exact, to other eyes"),
        move_row("copy, to other language model", "copy, to another language model"),
        move_row("subspace, to other language model", "subspace, to another language model"),
        move_row("distil, to other language model", "distil, to another language model"),
        move_row("distil, to FLAN-T5", "distil, to FLAN-T5"),
        merge_row("*count* alone (200 steps on counting questions)", "count"),
        merge_row("*color* alone (200 steps on questions of colour)", "color"),
        merge_row("0.5 · count + 0.5 · color", "merged-half"),
        merge_row("count + color", "merged-sum"),
        merge_row("TIES, density 0.2", "merged-ties"),
        merge_row("DARE, drop 0.9", "merged-dare"),
        "| accuracy | {resizes[source][accuracy]:.1%} | {resizes[rank-8][accuracy]:.1%} | {resizes[rank-4][accuracy]:.1%} "
        "| {resizes[rank-2][accuracy]:.1%} | {resizes[rank-1][accuracy]:.1%} |",
    ],
    "exchange": [
        "({modules:.0f} layers of rank {rank:.0f}, {bytes:.0M} MB, random)",
        operation_row("open, all safety checks", "open"),
        operation_row("list two", "list of two"),
        operation_row("fingerprints of the base, the first time", "fingerprints of the base, anew", 1),
        operation_row("check `--quick`, the fingerprints known", "check, the base's fingerprints known", 1),
        operation_row("add to the store", "add to a store"),
        "| export; import | {operations[export][seconds]:.2f}; {operations[import][seconds]:.2f} "
        "| {operations[export][peak_bytes]:.2G}; {operations[import][peak_bytes]:.2G} |",
        operation_row("inspect", "inspect"),
        operation_row("merge two, exactly", "merge", 1),
        operation_row("merge two, to rank 16", "merge to rank 16", 1),
        operation_row("merge two, `cat`", "merge by concatenation", 1),
        operation_row("resize to rank 8", "resize to rank 8", 1),
    ],
}
SERVING_CLAIMS = {
    "many-adapters": [
        "({adapter_bytes:.0M} MB each in bfloat16, random weights), {memory_gb:.0f} GB of memory for them, in which "
        "{adapters_that_fit:.0f} fit",
        "| the base alone | {questions_per_second[base]:.2f} | {share_of_one[base]:.2f} |",
        "| one adapter | {questions_per_second[one]:.2f} | {share_of_one[one]:.2f} |",
        "in every batch, all in memory | {questions_per_second[held]:.2f} | {share_of_one[held]:.2f} |",
        "read from disk each time | {questions_per_second[all]:.2f} | {share_of_one[all]:.2f} |",
        "Opening and checking one takes {open_seconds_each:.2f} s, reading it {load_seconds_each:.2f} s",
        "Peak memory is {peak_memory_bytes[base]:.1Gi} GiB without adapters "
        "and {peak_memory_bytes[adapters]:.1Gi} GiB with them",
    ],
    "demo": [
        "{together_seconds:.2f} s from the first question to the last answer, {ratio:.1f} times the {one_seconds:.2f} s of one "
        "by himself",
    ],
}
DATA_CLAIMS = {
    "abo_catalogue": [
        "{listings:,.0f} synthetic listings of {bytes_per_listing:.1k} KB",
        "{images:,.0f} pictures in its table",
        "read in {seconds:.1f} s",
        "with {peak_memory_bytes:.0Mi} MiB at the most (the slowest of five passes took {all_seconds[0]:.1f} s",
    ],
    "photographs": [
        made_row("base", "base"),
        made_row("base + adapter", "adapter"),
        made_row("adapter, other pictures", "other pictures"),
        *(made_row(name, name) for name in ("question's words", "most common answer")),
    ],
}


def fault_row(end: str, part: str) -> str:
    """Of the table of the campaign's parts, the row whose description ends so."""
    counts = " | ".join(f"{{parts[{part}][{name}]:,.0f}}" for name in ("tried", "held", "failed"))
    return f"{end} | {counts} |"


RELIABILITY_CLAIMS = {
    "faults": [
        fault_row("then the same command again", "kills"),
        fault_row("half surrogate pairs", "inputs"),
        fault_row("a read-only one", "disks"),
        fault_row("or a little later", "pairs"),
        "Seed {seed:.0f}, {minutes:.0f} minutes on {machine[cores]:.0f} cores",
        "{parts[inputs][refused]:,.0f} of the damaged files were refused, {parts[inputs][right]:,.0f} gave what is right, and "
        "{parts[inputs][other]:,.0f} were read as they now stood",
    ]
}
PERFORMANCE_CLAIMS["encoding"] = [
    *(f"| {way} | {{{way}_seconds_per_image:.2f}} |" for way in ("plain", "ours", "floor")),
    "{gap_closed:.0%} of the gap between plain and floor is closed",
    "The features differ by at most {largest_difference:.1%} of the largest value",
]
PERFORMANCE_CLAIMS["checksums"] = [
    "{median[training]:.3%} of the time of training, {median[answering]:.3%} of answering the validation questions, and "
    "{median[whole run]:.2%} of the whole run",
    "{median[microseconds each]:.0f} µs for an image",
]
RESULTS_CLAIMS = {
    "photographs": [
        quickstart_row("base", "base"),
        quickstart_row("base + adapter", "adapter"),
        quickstart_row("blind", "blind"),
        quickstart_row("swapped", "swapped"),
        photo_row("photo base", "base"),
        photo_row("photo base + adapter", "adapter"),
        *(photo_row(name, name) for name in ("other pictures", "question's words", "most common answer")),
        photo_row("base + adapter", "adapter", "more"),
        photo_row("adapter, other pictures", "other pictures", "more"),
        photo_row("words of the question", "question's words", "more"),
        photo_row("the most common answer", "most common answer", "more"),
        *(specialist_row(kind) for kind in ("count", "color")),
        *(caption_row(style) for style in ("concise", "detailed", "creative")),
        moved_row("exact", "exact"),
        moved_row("distilled", "distil"),
        "On its own base the adapter has {moved[exact][systems][source adapter][accuracy]:.1%}",
    ]
}  # fmt: skip
REPORT_CLAIMS = {
    "photographs": [
        calibration_row("the quick start", "quickstart"),
        calibration_row("ABO products (`configs/abo.json`)", "abo"),
    ]
}
CLAIMS = {
    "results.md": RESULTS_CLAIMS, "report.md": REPORT_CLAIMS,
    "performance.md": PERFORMANCE_CLAIMS, "exchange.md": EXCHANGE_CLAIMS, "serving.md": SERVING_CLAIMS,
    "data-generation.md": DATA_CLAIMS, "reliability.md": RELIABILITY_CLAIMS,
}  # fmt: skip


def rendered(page: str) -> list[tuple[str, str]]:
    """(measurement, text with its figures) of every claim about a page of docs/."""
    return [(name, text.format_map(measured(name))) for name, texts in CLAIMS[page].items() for text in texts]
