"""Several systems over one table: bases, adapters, precisions and prompts; those of one base share its weights and features."""

import gc
import time
from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd
import torch
from accelerate import PartialState

from blip2vqa.adapters.attach import find_adapter
from blip2vqa.config.common import FeatureArguments
from blip2vqa.config.fields import QUANTIZATIONS
from blip2vqa.config.files import read_file
from blip2vqa.config.inference import InferenceArguments
from blip2vqa.data.examples import Example
from blip2vqa.data.prediction_table import to_csv
from blip2vqa.evaluation.compare import BLIND, SystemRun, compare
from blip2vqa.evaluation.metrics import bertscore_scorer
from blip2vqa.inference.answering import load_rows, start_pairs
from blip2vqa.inference.generation import answer_examples
from blip2vqa.inference.model_spec import ModelSpec, check_asks, find_model_spec
from blip2vqa.inference.request import BASE, AnswerRequest
from blip2vqa.reporting.systems import output_paths, write_systems
from blip2vqa.reporting.tables import format_block
from blip2vqa.utils.distributed import start
from blip2vqa.utils.errors import InputError, collect_errors, raise_all
from blip2vqa.utils.files import write_text_atomic
from blip2vqa.utils.memory import peak_memory, reset_peak_memory


@dataclass(frozen=True)
class System:
    """One entry of SYSTEMS.json."""

    name: str
    base_model_id: str | None = None
    base_model_revision: str | None = None
    lora_model_path: str | None = None
    lora_revision: str | None = None
    quantization: str = "auto"
    prompt: str | None = None


@dataclass
class Group:
    """Systems of one base at one precision, with a request for each."""

    spec: ModelSpec
    quantization: str
    systems: list[System]
    requests: list[AnswerRequest]


def read_systems(path: str) -> list[System]:
    """Raises `InputError` with every problem found: unreadable, no list of objects, unknown keys, names missing or twice."""
    entries = read_file(path, "--systems")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(
            f'--systems {path}: must hold a list of objects, like [{{"name": "base", "base_model_id": …}}]'
        )
    known, problems, systems = [field.name for field in fields(System)], [], []
    for number, entry in enumerate(entries, start=1):
        where = f"--systems {path}: system {entry.get('name') or number}"
        unknown = [key for key in entry if key not in known]
        if unknown:
            problems.append(f"{where}: {', '.join(unknown)} is no key of a system; known are {', '.join(known)}")
        wrong = [key for key in known if not isinstance(entry.get(key) or "", str)]
        problems += [f"{where}: {key} is {entry[key]!r}; it must be text" for key in wrong]
        if unknown or wrong:
            continue
        if not entry.get("name") or entry["name"] == BLIND:
            problems.append(f"{where}: needs a name of its own")
        elif entry["name"] in [system.name for system in systems]:
            problems.append(f"{where}: the name is given twice; every system needs its own")
        if (entry.get("quantization") or "auto") not in QUANTIZATIONS:
            problems.append(
                f"{where}: quantization is {entry['quantization']!r}; choose from {', '.join(QUANTIZATIONS)}"
            )
        if entry.get("prompt") and "{question}" not in entry["prompt"]:
            problems.append(f"{where}: its prompt does not contain {{question}}; write it where the question goes")
        given = {key: value for key, value in entry.items() if value is not None}
        systems.append(System(**{"name": str(number)} | given))
    raise_all(problems)
    return systems


def find_groups(systems: list[System], decoding: dict, dtype: str) -> list[Group]:
    """Find and check every base and adapter. Raises `InputError` with every problem found, each under its system's name."""
    problems: list[str] = []
    by_base: dict[tuple, list[System]] = {}
    for system in systems:
        key = _under(problems, system, _base_of, system)
        if key:
            by_base.setdefault((*key, system.quantization), []).append(system)
    groups = []
    for (base, revision, quantization), members in by_base.items():
        spec = collect_errors([], _find_together, base, revision, members, dtype)
        if spec is None:
            problems += _each_alone(base, revision, members, dtype)
            continue
        requests = [_under(problems, system, _request_of, spec, system, decoding) for system in members]
        groups.append(Group(spec, quantization, members, requests))
    raise_all(problems)
    return groups


def _find_together(base: str | None, revision: str | None, systems: list[System], dtype: str) -> ModelSpec:
    adapters = {s.name: (s.lora_model_path, s.lora_revision) for s in systems if s.lora_model_path}
    return find_model_spec(base, revision, adapters, with_base=len(adapters) < len(systems), dtype=dtype)


def _each_alone(base: str | None, revision: str | None, systems: list[System], dtype: str) -> list[str]:
    """What is wrong with systems of one base, each problem once, under the names of those that have it."""
    names: dict[str, list[str]] = {}
    for system in systems:
        found: list[str] = []
        collect_errors(found, _find_together, base, revision, [system], dtype)
        for problem in found:
            names.setdefault(problem, []).append(system.name)
    return [f"system {', '.join(having)}: {problem}" for problem, having in names.items()]


def _base_of(system: System) -> tuple[str | None, str | None]:
    if system.base_model_id or not system.lora_model_path:
        base = system.base_model_id
        return str(Path(base).resolve()) if base and Path(base).is_dir() else base, system.base_model_revision
    adapter = find_adapter(system.lora_model_path, system.lora_revision, None, system.base_model_revision)
    return adapter.base_model_id, adapter.base_model_revision


def _request_of(spec: ModelSpec, system: System, decoding: dict) -> AnswerRequest:
    name = system.name if system.lora_model_path else None
    return check_asks(spec.request(name, prompt=system.prompt, decoding=decoding), system.lora_model_path)


def _under(problems: list[str], system: System, step, *args):
    found: list[str] = []
    result = collect_errors(found, step, *args)
    problems += [f"system {system.name}: {problem}" for problem in found]
    return result


def compare_systems(args: InferenceArguments, features: FeatureArguments) -> tuple[dict, list[Path]] | None:
    """Answer the table by every system, compare, and write it all; returns the comparison and what was written, None but in
    the main process. Raises `InputError`, with every problem found, before any weight is loaded."""
    state = start()
    problems = args.check() + features.check()
    each = ("lora_model_path", "lora_revision", "base_model_id", "base_model_revision", "prompt", "answers", "score")
    for flag in (*each, *(("quantization",) if args.quantization != "auto" else ())):
        if getattr(args, flag):
            problems.append(f"--{flag}: does not go with --systems; each system there has its own")
    outputs = [*output_paths(args.output_path), answers_path(args.output_path)]
    taken = [path for path in outputs if path.exists()]
    if any(path.resolve() in (Path(args.systems).resolve(), Path(args.csv_path or "").resolve()) for path in outputs):
        problems.append(f"--output_path {args.output_path}: would replace {args.systems} or the table; name another")
    elif taken and not args.overwrite:
        problems.append(
            f"--output_path {args.output_path}: {taken[0]} is already there; name another, or --overwrite it"
        )
    systems = collect_errors(problems, read_systems, args.systems)
    decoding = {"num_beams": args.num_beams, "max_new_tokens": args.max_new_tokens}
    groups = collect_errors(problems, find_groups, systems, decoding, args.dtype) if systems else None
    rows = collect_errors(problems, load_rows, args) if args.csv_path else None
    for group in groups or () if rows else ():
        for system, request in zip(group.systems, group.requests, strict=True):
            _under(problems, system, request.text.check_lengths, rows[1], request.decoding.max_new_tokens)
    raise_all(problems)
    _, examples, bad = rows
    answered = any(example.answers for example in examples)
    scorer = bertscore_scorer(args.bertscore_model) if answered and state.is_main_process else None
    if scorer is not None:  # an evaluate.Metric is falsy
        scorer.check()
    runs: dict[str, SystemRun] = {}
    for group in groups:
        runs |= _run(args, features, group, examples, len(bad))
    if not state.is_main_process:
        return None
    runs = [runs[system.name] for system in systems]
    result = compare(examples, runs, bertscore=scorer)
    result["notes"].append(
        "Seconds a question are those of answering. What is kept of pictures was there by then; a ViLT keeps nothing, and its "
        "seconds hold the pictures, too."
    )
    if any(len(group.systems) > 1 for group in groups):
        result["notes"].append(
            "Systems of one base answer in common batches: their seconds a question and their peak memory are those of "
            "all of them together, the seconds divided evenly."
        )
    table = {"row": [e.row for e in examples], "image_name": [e.image_name for e in examples]}
    table |= {"question": [e.question for e in examples], "answer": [e.answer for e in examples]}
    frame = pd.DataFrame(table | {f"{run.name} (said)" if run.name in table else run.name: run.answers for run in runs})
    write_text_atomic(answers_path(args.output_path), to_csv(frame.astype(str)))
    return result, [*write_systems(result, args.output_path), answers_path(args.output_path)]


def answers_path(output_path: str) -> Path:
    """`OUT.csv` → `OUT.answers.csv`."""
    disagreements = output_paths(output_path)[-1]
    return disagreements.with_name(disagreements.name.replace(".disagreements.", ".answers."))


def _run(
    args: InferenceArguments, features: FeatureArguments, group: Group, examples: list[Example], skipped: int
) -> dict[str, SystemRun]:
    """Every system of a group over the whole table, in common batches."""
    state, spec = PartialState(), group.spec
    reset_peak_memory()
    loaded, found, kept = spec.load(
        {example.digest: example.image for example in examples},
        features.kept(),
        dtype=args.dtype,
        quantization=group.quantization,
        batch_size=args.batch_size,
    )
    count = len(group.systems)
    pairs = [("base model", f"{loaded.base_model_id} ({loaded.family.name})"), *start_pairs(loaded, kept)]
    for system, request in zip(group.systems, group.requests, strict=True):
        pairs.append((system.name, f"{system.lora_model_path or 'the base alone'}; {request.text.prompt!r}"))
    if skipped:
        pairs.append(("skipped", f"{skipped} rows with a bad image"))
    if state.is_main_process:
        print(format_block("Answering", pairs), flush=True)
    asked = [example for example in examples for _ in group.systems]
    requests, began = [request for _ in examples for request in group.requests], time.perf_counter()
    answers = answer_examples(loaded, found, asked, requests, batch_size=args.batch_size, progress="answering")
    said = [answer.text for answer in answers]
    seconds = (time.perf_counter() - began) / max(1, len(asked))
    peak = peak_memory()
    parameters = _parameters(spec, group.requests)
    quantization = loaded.quantization
    del loaded, found
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    runs = {}
    for place, (system, request) in enumerate(zip(group.systems, group.requests, strict=True)):
        adapter = spec.adapters.get(system.name)
        own = adapter.parameters if adapter else 0
        runs[system.name] = SystemRun(
            system.name, said[place::count], spec.base_model_id, system.lora_model_path, quantization, request.text.prompt,
            seconds, peak, parameters[place] + own, own or None,
        )  # fmt: skip
    return runs


def _parameters(spec: ModelSpec, requests: list[AnswerRequest]) -> list[int]:
    """Of the base under each request; a head for answers that an adapter brings along counts with the adapter."""
    with torch.device("meta"):
        model = spec.family.model_class(spec.config)
    total = sum(weight.numel() for weight in model.parameters())
    heads = [name for name in spec.family.trained_whole if hasattr(model, name)]
    replaced = sum(weight.numel() for name in heads for weight in getattr(model, name).parameters())
    return [total - replaced if spec.adapters and request.adapter != BASE else total for request in requests]
