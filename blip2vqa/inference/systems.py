"""Compare several systems on one table: bases, adapters, precisions and prompts.

Systems of one base share its weights and the features of the images.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path

import pandas as pd

from blip2vqa.adapters.ref import BASE, AdapterRef
from blip2vqa.config.common import FeatureArguments
from blip2vqa.config.fields import QUANTIZATIONS
from blip2vqa.config.files import read_file
from blip2vqa.config.inference import InferenceArguments
from blip2vqa.config.sharding import refuse_sharding
from blip2vqa.data.bad_rows import leave_out
from blip2vqa.data.examples import Example
from blip2vqa.data.journal import Journal, Kept
from blip2vqa.data.readers import to_csv
from blip2vqa.evaluation.compare import SystemRun, compare
from blip2vqa.evaluation.verdict import BLIND
from blip2vqa.inference.answering import hash_text
from blip2vqa.inference.generation import answer_by_batch
from blip2vqa.inference.job import bad_rows_path, load_rows
from blip2vqa.inference.keeping import keep_answers, opened_journal
from blip2vqa.inference.model_spec import ModelSpec, find_model_spec
from blip2vqa.inference.request import AnswerRequest
from blip2vqa.inference.startup import find_scorer, start_pairs
from blip2vqa.models.loading import remembered
from blip2vqa.reporting.reports import report_path, report_systems
from blip2vqa.reporting.systems import output_paths, write_systems
from blip2vqa.reporting.tables import format_block
from blip2vqa.utils.distributed import start
from blip2vqa.utils.errors import InputError, collect_errors, raise_all
from blip2vqa.utils.files import partial_path, write_text_atomic
from blip2vqa.utils.memory import free_memory, peak_memory, reset_peak_memory


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

    @property
    def ref(self) -> AdapterRef:
        """The adapter that answers, or the base alone."""
        return AdapterRef.named(self.name) if self.lora_model_path else BASE


@dataclass(frozen=True)
class Group:
    """Systems of one base at one precision, with a request for each."""

    spec: ModelSpec
    quantization: str
    systems: Sequence[System]
    requests: Sequence[AnswerRequest]


def read_systems(path: str) -> list[System]:
    """Read and check the list of systems. Raises `InputError` with every problem found."""
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
    """Find and check the base and the adapter of every system, and group systems of one base at one precision.

    Raises `InputError` with every problem found, each once, under the names of the systems that have it.
    """
    problems: dict[str, list[str]] = {}
    by_base: dict[tuple, list[tuple[System, ModelSpec]]] = {}
    for system in systems:
        base = system.base_model_id and remembered(system.base_model_id)
        adapters = {system.ref: (system.lora_model_path, system.lora_revision)} if system.lora_model_path else {}
        find = partial(find_model_spec, base, system.base_model_revision, adapters, dtype=dtype)
        spec = _collect(problems, system, find)
        if spec:
            key = remembered(spec.base_model_id), spec.revision, system.quantization
            by_base.setdefault(key, []).append((system, spec))
    groups = []
    for (*_, quantization), found in by_base.items():
        members, specs = zip(*found, strict=True)
        adapters = {ref: adapter for spec in specs for ref, adapter in spec.adapters.items()}
        spec = replace(specs[0], adapters=adapters, with_base=any(spec.with_base for spec in specs))
        _collect(problems, members[0], spec.check_served, quantization)
        build = partial(spec.question_request, decoding=decoding)
        requests = [_collect(problems, one, partial(build, prompt=one.prompt), one.ref) for one in members]
        groups.append(Group(spec, quantization, members, requests))
    _raise_under_names(problems)
    return groups


def _collect(problems: dict[str, list[str]], system: System, step: Callable, *args):
    """Run one step of checking a system: its result, or None with the system's name added to each of its problems."""
    found: list[str] = []
    result = collect_errors(found, step, *args)
    for problem in found:
        problems.setdefault(problem, []).append(system.name)
    return result


def _raise_under_names(problems: dict[str, list[str]]) -> None:
    raise_all([f"system {', '.join(names)}: {problem}" for problem, names in problems.items()])


class SystemAnswer(Kept):
    """What is kept of one system's answer to one question."""

    seconds: float
    peak: int | None
    quantization: str


def compare_systems(args: InferenceArguments, features: FeatureArguments) -> tuple[dict, list[Path]] | None:
    """Answer the table by every system, compare, and write all results; returns the comparison and the files written.

    The main process alone writes; the others return None. Raises `InputError`, with every problem found, before any weight is
    loaded.
    """
    refuse_sharding("inference.py answers")
    start()
    problems = args.check() + features.check()
    each = ("lora_model_path", "lora_revision", "base_model_id", "base_model_revision", "prompt", "answers", "score")
    for flag in (*each, *(("quantization",) if args.quantization != "auto" else ())):
        if getattr(args, flag):
            problems.append(f"--{flag}: does not go with --systems; each system there has its own")
    outputs = [*output_paths(args.output_path), answers_path(args.output_path), report_path(args.output_path)]
    taken = [path for path in outputs if path.exists()]
    if any(path.resolve() in (Path(args.systems).resolve(), Path(args.csv_path or "").resolve()) for path in outputs):
        problems.append(f"--output_path {args.output_path}: would replace {args.systems} or the table; name another")
    elif taken and not args.overwrite and not partial_path(args.output_path).exists():
        problems.append(
            f"--output_path {args.output_path}: {taken[0]} is already there; name another, or --overwrite it"
        )
    systems = collect_errors(problems, read_systems, args.systems)
    decoding = {"num_beams": args.num_beams, "max_new_tokens": args.max_new_tokens}
    groups = collect_errors(problems, find_groups, systems, decoding, args.dtype) if systems else None
    rows = collect_errors(problems, load_rows, args) if args.csv_path else None
    raise_all(problems)
    _, examples, bad = rows
    wrong: dict[str, list[str]] = {}
    reasons: dict[tuple[int, str], list[str]] = {}
    for group in groups:
        for system, request in zip(group.systems, group.requests, strict=True):
            for problem in request.text.problems_of_all(examples, 0):
                wrong.setdefault(problem, []).append(system.name)
            for reason in request.text.problems_by_row(examples, request.decoding.max_new_tokens):
                reasons.setdefault(reason, []).append(system.name)
    collect_errors(problems, _raise_under_names, wrong)
    named = [(row, f"{reason} (system {', '.join(names)})") for (row, reason), names in reasons.items()]
    listing = args.on_bad_row, bad_rows_path(args), bad
    examples, too_long, found = leave_out(args.csv_path, examples, named, *listing)
    raise_all(problems + found)
    bad = bad + too_long
    answered = any(example.answers for example in examples)
    scorer = find_scorer(args.bertscore_model if answered else "none")
    key, more = (
        _run_key(args, groups, examples),
        {"others": outputs[1:], "overwrite": args.overwrite, "kept": SystemAnswer},
    )
    with opened_journal(args.output_path, key, **more) as (journal, known):
        if known and journal:
            count = len(examples) * len(systems)
            print(
                f"{args.output_path}: going on where it was, {len(known):,} of {count:,} answers are there", flush=True
            )
        found: dict[str, SystemRun] = {}
        for group in groups:
            found |= _run(args, features, group, examples, len(bad), journal, known)
        if not journal:
            return None
        runs = [found[system.name] for system in systems]
        return journal.finish(lambda: _write(args, groups, examples, runs, scorer))


def _run_key(args: InferenceArguments, groups: list[Group], examples: list[Example]) -> dict:
    """Collect what the answers depend on: an interrupted comparison goes on only where all of it is the same."""
    return {
        "systems": {
            system.name: {
                "base_model": remembered(group.spec.base_model_id),
                "base_revision": group.spec.revision,
                "adapter": group.spec.adapters[system.ref].digest if system.ref != BASE else None,
                "prompt": request.text.prompt,
                "decoding": asdict(request.decoding),
                "quantization": group.quantization,
            }
            for group in groups
            for system, request in zip(group.systems, group.requests, strict=True)
        },
        "input_table": hash_text(json.dumps([[example.row, example.digest, example.question] for example in examples])),
        "dtype": args.dtype,
    }


def _write(
    args: InferenceArguments, groups: list[Group], examples: list[Example], runs: list[SystemRun], scorer
) -> tuple[dict, list[Path]]:
    """Compare the runs and write all files; returns the comparison and the files."""
    result = compare(examples, runs, bertscore=scorer)
    report = report_path(args.output_path)
    report_systems(report, args.output_path, examples, runs, result)
    result["notes"].append(
        "Seconds a question are those of answering alone: the features of the pictures were computed before. A base that has "
        "no such features reads the pictures while it answers, and its seconds include that."
    )
    if any(len(group.systems) > 1 for group in groups):
        result["notes"].append(
            "Systems of one base answer in common batches: their seconds a question and their peak memory are those of "
            "all of them together, the seconds divided evenly."
        )
    columns = ("row", "image_name", "question", "answer")
    table = {name: [getattr(example, name) for example in examples] for name in columns}
    frame = pd.DataFrame(table | {f"{run.name} (said)" if run.name in table else run.name: run.answers for run in runs})
    write_text_atomic(answers_path(args.output_path), to_csv(frame.astype(str)))
    return result, [*write_systems(result, args.output_path), answers_path(args.output_path), report]


def answers_path(output_path: str) -> Path:
    """Name the file of all answers: `OUT.answers.csv` for `OUT.csv`."""
    disagreements = output_paths(output_path)[-1]
    return disagreements.with_name(disagreements.name.replace(".disagreements.", ".answers."))


def _run(
    args: InferenceArguments,
    features: FeatureArguments,
    group: Group,
    examples: list[Example],
    skipped: int,
    journal: Journal | None,
    known: set[str],
) -> dict[str, SystemRun]:
    """Answer the whole table by every system of a group, in common batches; those in `known` are in the journal already.

    Returns nothing where there is no journal.
    """
    spec = group.spec
    asked = [example for example in examples for _ in group.systems]
    keys = [f"{example.row} {system.name}" for example in examples for system in group.systems]
    done = {index for index, key in enumerate(keys) if key in known}
    if len(done) < len(keys):
        reset_peak_memory()
        options = {"quantization": group.quantization, "batch_size": args.batch_size}
        loaded, kept, lines = spec.load(examples, features.kept(), **options)
        pairs = start_pairs(loaded, lines)
        for system, request in zip(group.systems, group.requests, strict=True):
            pairs.append((system.name, f"{system.lora_model_path or 'the base alone'}; {request.text.prompt!r}"))
        if skipped:
            pairs.append(("skipped", f"{skipped} rows that cannot be used"))
        if journal:
            print(format_block("Answering", pairs), flush=True)
        requests = [request for _ in examples for request in group.requests]
        batches = answer_by_batch(loaded, kept, asked, requests, batch_size=args.batch_size, done=done)
        quantization = loaded.quantization
        keep_answers(
            batches, journal, keys, done, "answering", "question",
            more=lambda: {"peak": peak_memory(), "quantization": quantization},
        )  # fmt: skip
        del loaded, kept, batches
        free_memory()
    if not journal:
        return {}
    answers = [journal.results[key] for key in keys]
    said = [answer["answer"] for answer in answers]
    seconds = sum(answer["seconds"] for answer in answers) / max(1, len(asked))
    peak = max((answer["peak"] for answer in answers if answer["peak"] is not None), default=None)
    quantization = answers[0]["quantization"]
    model = spec.family.outline(spec.config)
    whole = sum(weight.numel() for weight in model.parameters())
    heads = [getattr(model, name) for name in spec.family.trained_whole if hasattr(model, name)]
    replaced = sum(weight.numel() for head in heads for weight in head.parameters())
    runs = {}
    for place, (system, request) in enumerate(zip(group.systems, group.requests, strict=True)):
        adapter = spec.adapters.get(system.ref)
        own = adapter.parameters if adapter else 0
        # A head for answers that an adapter brings counts with the adapter, in place of the base's.
        parameters = whole + own - (replaced if adapter else 0)
        runs[system.name] = SystemRun(
            system.name, said[place :: len(group.systems)], spec.base_model_id, system.lora_model_path, quantization,
            request.text.prompt, seconds, peak, parameters, own or None,
            [answer["confidence"] for answer in answers[place :: len(group.systems)]],
        )  # fmt: skip
    return runs
