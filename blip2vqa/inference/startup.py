"""Begin a run: find the scorer, and describe the base that is loaded."""

import os

import psutil
import torch
from accelerate import PartialState

from blip2vqa.evaluation.bertscore import BERTScore, bertscore_scorer
from blip2vqa.models.loading import LoadedModel
from blip2vqa.utils.distributed import processes_here


def find_scorer(bertscore_model: str) -> BERTScore | None:
    """Find BERTScore's encoder and try it out now, so that it does not fail after hours of work.

    Returns None for the model "none", and in all processes but the main one, which alone scores. Raises `InputError`.
    """
    scorer = bertscore_scorer(bertscore_model) if PartialState().is_main_process else None
    if scorer is not None:  # an evaluate.Metric is falsy
        scorer.check()
    return scorer


def start_pairs(loaded: LoadedModel, feature_lines: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Describe the base, its device and its features in the first lines of a start block."""
    processes = PartialState().num_processes
    return [
        ("base model", f"{loaded.base_model_id} ({loaded.family.name})"),
        *(tuple(note.split(": ", 1)) for note in loaded.notes),
        ("device", f"{loaded.device}, {processes} process{'es' * (processes > 1)}"),
        *(idle_cores(torch.get_num_threads(), processes_here()) if loaded.device.type == "cpu" else ()),
        *feature_lines,
    ]


def idle_cores(threads: int, processes: int) -> list[tuple[str, str]]:
    """Tell how to use all cores where so many threads of each process do not: `accelerate launch` gives a process one."""
    cores = psutil.cpu_count(logical=False) or 1
    if hasattr(os, "sched_getaffinity"):
        cores = min(cores, len(os.sched_getaffinity(0)))
    best = cores // processes
    if threads >= best:
        return []
    used = f"{threads * processes} of {cores} cores in use"
    return [("processor", f"{used}; OMP_NUM_THREADS={best} before the command uses {best * processes}")]
