"""A fine-tuning run as asked for: its arguments, its tables, and all that can be wrong with them, found in one go."""

import json
import logging
import time
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from accelerate import PartialState

from blip2vqa.answer_lists import AnswerTree, read_answers
from blip2vqa.arguments import (
    DataArguments,
    FeatureArguments,
    GenerationArguments,
    LoraArguments,
    ModelArguments,
)
from blip2vqa.blind import BlindScore, blind_score
from blip2vqa.classification import AnswerList, text_encoder
from blip2vqa.collate import TextEncoder
from blip2vqa.data.answers import normalize_answer, parse_question_types
from blip2vqa.data.captions import group_by_image, load_captions
from blip2vqa.data.examples import BadRow, Example, load_examples, of_types
from blip2vqa.data.splits import check_disjoint, describe_split, split_by_image
from blip2vqa.errors import InputError, gather, raise_all
from blip2vqa.exchange.adapter import open_adapter
from blip2vqa.exchange.hub import check_push, push
from blip2vqa.exchange.manifest import data_hash
from blip2vqa.families import Family, family_of, parse_roles, parse_scopes
from blip2vqa.finetune_arguments import FinetuneArguments
from blip2vqa.loading import choose_dtype, find_device, load_config, load_processor
from blip2vqa.lora import check_start, modules_to_adapt
from blip2vqa.reporting.card import is_hub_id
from blip2vqa.reporting.tables import verdict
from blip2vqa.tasks import CAPTION, TASKS, Task
from blip2vqa.voices import Decoding, Voice

logger = logging.getLogger(__name__)

BAD_IMAGES = "bad_images.csv"
TAUGHT = "taught.json"  # beside split.json: what the rows say
TABLE = "table"  # in place of a file of answers
# What may differ when a run goes on: how long it lasts, what it says, where it stands and how fast it goes.
MAY_CHANGE = {
    "output_dir", "num_train_epochs", "max_steps", "early_stopping_patience", "save_total_limit", "report_to", "run_name",
    "logging_steps", "logging_strategy", "disable_tqdm", "bertscore_model", "per_device_eval_batch_size",
    "dataloader_num_workers", "feature_cache", "feature_cache_limit", "tokens_per_batch", "hub_model_id", "hub_private_repo",
    "hub_revision",
}  # fmt: skip


@dataclass
class Run:
    """The arguments of one run, checked, and what they resolve to."""

    model: ModelArguments
    data: DataArguments
    lora: LoraArguments
    generation: GenerationArguments
    features: FeatureArguments
    training: FinetuneArguments
    resolved: dict
    """What differs from the defaults; as JSON, a configuration that repeats the run."""

    def __post_init__(self):
        # Trainer's own output_dir becomes the folder of its checkpoints, inside this one.
        self.folder = Path(self.training.output_dir)
        self.started = time.monotonic()
        self.address: str | None = None  # on the Hub, once it is there
        if self.training.n_gpu > 1:
            # Trainer would copy the model to all of them in one process, which is slow, and counts the loss once for each.
            logger.warning("1 of %d GPUs is used; `accelerate launch` uses them all", self.training.n_gpu)
            self.training._n_gpu = 1
        # Published once, when it is finished; Trainer would publish its checkpoints, and keep the token in them.
        args = self.training
        self.push_to = (args.hub_model_id or self.folder.name) if args.push_to_hub else None
        self.hub_token, args.push_to_hub, args.hub_token = args.hub_token, False, None
        if self.training.metric_for_best_model == "accuracy":
            self.training.metric_for_best_model = self.task.main

    @property
    def task(self) -> Task:
        """What is learnt."""
        return TASKS[self.data.task]

    @property
    def decoding(self) -> Decoding:
        """How answers are decoded."""
        given = {name: getattr(self.generation, name) for name in Decoding.__dataclass_fields__}
        return Decoding(**given | {"max_new_tokens": given["max_new_tokens"] or self.task.max_new_tokens})

    def results(self, metrics: dict) -> list[tuple[str, str]]:
        """What was written and where, for the closing block."""
        minutes, seconds = divmod(round(time.monotonic() - self.started), 60)
        return [
            ("verdict", verdict(metrics)),
            ("time", f"{minutes} min {seconds} s"),
            ("adapter", f"{self.folder}/adapter_model.safetensors, with its prompt and scores in blip2vqa.json"),
            ("scores", f"{self.folder}/metrics.json"),
            ("answers", f"{self.folder}/predictions.csv"),
            ("run again", f"accelerate launch finetune.py {self.folder}/run.json --output_dir NEW_FOLDER"),
            ("use it", self._use()),
            *([("published", self.address)] if self.address else []),
        ]

    def publish(self) -> None:
        """Put the finished adapter on the Hub. What fails then is said, and the adapter is here."""
        args = self.training
        adapter = open_adapter(self.folder)
        try:
            self.address = push(
                adapter,
                self.push_to,
                private=args.hub_private_repo is not False,
                token=self.hub_token,
                revision=args.hub_revision,
            )
        except InputError as error:
            again = f"exchange.py push {self.folder} {self.push_to} publishes it"
            raise InputError(*error.problems, f"the adapter is finished, in {self.folder}; {again}") from error

    def _use(self) -> str:
        if self.task is CAPTION:
            return f"python caption.py --images … --styles {self.data.style or 'plain'}={self.folder}"
        return f"python inference.py --lora_model_path {self.folder} --image_dir … --csv_path …"


@dataclass
class Tables:
    """Checked examples on both sides of the split, and how they are asked."""

    train: list[Example]
    val: list[Example]
    skipped: list[BadRow]
    voice: Voice | None = None
    answers: tuple[str, ...] | None = None
    """The only ones there are; None: any."""
    note: str = ""
    """What the list of answers leaves out, in words."""

    @property
    def text(self) -> TextEncoder:
        """What turns them into tensors."""
        return self.voice.text

    @cached_property
    def sha256(self) -> str:
        """Of what is learnt, once it is known what is left out."""
        return data_hash(self.train)

    @cached_property
    def blind(self) -> BlindScore:
        """How many of the answers, of both sides, the questions' text gives away; pictures are held out whole."""
        rows = [example for example in self.train + self.val if example.answer]
        columns = zip(*((row.question, row.answer, row.digest) for row in rows), strict=True)
        return blind_score(*columns) if rows else BlindScore(None, 0)


def check(run: Run) -> Tables:
    """Read and check everything before any weight is loaded. Raises one `InputError` with every problem found."""
    parts = (run.data, run.lora, run.generation, run.features, run.training)
    problems = [problem for part in parts for problem in part.check()]
    found = gather(problems, _check_base, run)
    tables = gather(problems, _load_tables, run) if run.data.csv_path else None
    if found and tables:
        gather(problems, ask_as, run, tables, *found)
    gather(problems, checkpoint_to_resume, run, tables)
    if run.push_to and PartialState().is_main_process:
        gather(problems, _check_push, run)
    raise_all(problems)
    return tables


def _check_push(run: Run) -> None:
    """Raise `InputError` for what could not be published: now, not after hours of training."""
    if not is_hub_id(run.model.base_model_id):
        raise InputError(
            f"--push_to_hub: the base is a local folder, {run.model.base_model_id}, that others do not have; leave it out, and "
            "publish by exchange.py push with --base_model_id"
        )
    check_push(run.push_to, run.hub_token)


def ask_as(run: Run, tables: Tables, processor, config) -> None:
    """Find (in place) how the tables are asked of a base. Raises `InputError` for what it cannot be asked."""
    family, problems = family_of(config), []
    if run.task is CAPTION and family.caption_prompt is None:
        raise InputError(
            f"--task caption: {family.name} chooses or writes answers to questions; it cannot write captions"
        )
    prompt = run.data.prompt or (family.caption_prompt if run.task is CAPTION else family.prompt)
    gather(problems, _close_answers, run, tables, family)
    raise_all(problems)
    text = text_encoder(processor, config, prompt, tables.answers)
    tree = AnswerTree(tables.answers, text) if tables.answers and not text.classes else None
    if tree:
        gather(problems, tree.check)
    problems += text.refused(run.training)
    room, row = run.decoding.max_new_tokens, run.training.tokens_per_row if text.shares_image else 0
    gather(problems, text.check_lengths, tables.train + tables.val, room, row)
    raise_all(problems)
    tables.voice = Voice(text, run.decoding, tree)


def _close_answers(run: Run, tables: Tables, family: Family) -> None:
    """Find (in place) the only answers there are, if there is such a list, and leave out what a head cannot learn."""
    if run.data.answers and run.data.answers != TABLE:
        tables.answers = tuple(read_answers(run.data.answers))
        known = {normalize_answer(answer) for answer in tables.answers}
        outside = [e for e in tables.train + tables.val if not any(normalize_answer(a) in known for a in e.answers)]
        if outside:
            shown = "; ".join(f"row {example.row}: {example.answer!r}" for example in outside[:5])
            raise InputError(
                f"--answers {run.data.answers}: {len(outside)} rows of the tables have another answer ({shown}); add it to "
                "the list, or leave those rows out"
            )
    elif run.data.answers or family.answers == "classes":
        listed = AnswerList.of(tables.train, run.data.min_answer_count)
        known = {normalize_answer(answer) for answer in listed.answers}
        able = [e for e in tables.train if any(normalize_answer(answer) in known for answer in e.answers)]
        lost = sum(not any(normalize_answer(answer) in known for answer in e.answers) for e in tables.val)
        tables.note = (
            f"{listed.rare:,} rarer ones and {len(tables.train) - len(able):,} training questions left out; "
            f"{lost:,} of {len(tables.val):,} validation questions ask for others"
        )
        tables.train, tables.answers = able, listed.answers


def _check_base(run: Run) -> tuple:
    """Processor and configuration of the base."""
    base, revision = run.model.base_model_id, run.model.base_model_revision
    config = load_config(base, revision)
    family, problems = family_of(config), []
    gather(problems, choose_dtype, run.model.dtype, family, find_device(run.training.use_cpu))
    if run.training.fp16 and not family.float16:
        problems.append(f"--fp16: {family.name} overflows in float16; use --bf16, or leave it out")
    # An unknown role or part has been reported with the arguments.
    roles, scopes = gather([], parse_roles, run.lora.lora_roles), gather([], parse_scopes, run.lora.lora_scope)
    if roles and scopes:
        with torch.device("meta"):
            model = family.model_class(config)
        found = gather(problems, modules_to_adapt, model, family, roles, scopes)
        if found and run.lora.start_from:
            gather(problems, check_start, run.lora, [name for named in found.values() for name in named])
    raise_all(problems)
    return load_processor(base, config, revision), config


def _load_tables(run: Run) -> Tables:
    data, main, problems = run.data, PartialState().is_main_process, []

    def load(csv_path: str, annotations_path: str | None, bad_images: str) -> tuple[list[Example], list[BadRow]] | None:
        shared = {
            "on_bad_image": data.on_bad_image,
            "bad_images_path": run.folder / bad_images if main else None,
            "progress": main,
        }
        if run.task is CAPTION:
            style = Path(data.style).stem if data.style and data.captions == "style" else None
            choose = data.captions if style or data.captions != "style" else "all"  # a style missing has been reported
            load = partial(load_captions, csv_path, data.image_dir, choose=choose, style=style, **shared)
            return gather(problems, load)
        load = partial(load_examples, csv_path, data.image_dir, annotations_path, **shared)
        found = gather(problems, partial(load, question_type_column=data.question_type_column))
        types = gather([], parse_question_types, data.question_types)  # what is wrong with them has been reported
        if not found or not types:
            return found
        kept = gather(problems, of_types, found[0], types, csv_path)
        return None if kept is None else (kept, found[1])

    loaded = load(data.csv_path, data.annotations_path, BAD_IMAGES)
    loaded_val = (
        load(data.eval_csv_path, data.eval_annotations_path, "eval_" + BAD_IMAGES) if data.eval_csv_path else None
    )
    raise_all(problems)
    train, skipped = loaded
    if loaded_val is None:
        # A share out of range has been reported with the arguments.
        share = data.val_split if 0 < data.val_split < 1 else 0.5
        train, val = split_by_image(train, share, run.training.seed)
        return Tables(train, _references(run, val), skipped)
    val, skipped_val = loaded_val
    val = _references(run, val)
    shared = check_disjoint(train, val)
    if shared and main:
        logger.warning("%d images stand in both tables: the validation score will flatter the adapter", shared)
    return Tables(train, val, skipped + skipped_val)


def _references(run: Run, val: list[Example]) -> list[Example]:
    """Validation examples as they are scored: a picture is captioned once, against all of its captions."""
    return group_by_image(val) if run.task is CAPTION else val


def checkpoint_to_resume(run: Run, tables: Tables | None) -> str | None:
    """The checkpoint to go on from, if asked. Nothing finished is touched, and a run goes on as it began or not at all."""
    asked = str(run.training.resume_from_checkpoint or "false")
    checkpoints = [
        path for path in (run.folder / "checkpoints").glob("checkpoint-*")
        if (path / "trainer_state.json").is_file()  # written last: without it the run was stopped in the middle of one
    ]  # fmt: skip
    if (run.folder / "metrics.json").exists():  # written last
        raise InputError(f"--output_dir {run.folder}: holds a finished run; name a new folder")
    if asked.lower() == "false":
        if checkpoints or (run.folder / "adapter_config.json").exists():
            raise InputError(
                f"--output_dir {run.folder}: holds another run, stopped on its way; go on with it by "
                "--resume_from_checkpoint, or name a new folder"
            )
        return None
    if asked.lower() != "true" and not (Path(asked) / "trainer_state.json").is_file():
        raise InputError(f"--resume_from_checkpoint {asked}: not a checkpoint (no trainer_state.json in it)")
    if not checkpoints and asked.lower() == "true":
        raise InputError(f"--resume_from_checkpoint: no checkpoint in {run.folder / 'checkpoints'}; leave the flag out")
    checkpoint = Path(asked) if asked.lower() != "true" else max(checkpoints, key=lambda path: int(path.name[11:]))
    raise_all(_differences(run, tables, checkpoint.parent.parent))
    return str(checkpoint)


def _differences(run: Run, tables: Tables | None, before: Path) -> list[str]:
    """What a run to go on with was begun with otherwise: it would end in an adapter that nothing describes."""
    problems = []
    if (before / "run.json").is_file():
        then = json.loads((before / "run.json").read_text(encoding="utf-8"))
        problems = [
            f"--{name}: the run in {before} was begun with {then.get(name)!r}, not {run.resolved.get(name)!r}"
            for name in sorted(then | run.resolved)
            if name not in MAY_CHANGE and then.get(name) != run.resolved.get(name)
        ]
    if tables and (before / "split.json").is_file():
        split = json.loads((before / "split.json").read_text(encoding="utf-8"))
        if split != describe_split(tables.train, tables.val):
            problems.append(f"{run.data.csv_path}: the images are not those that the run in {before} was begun with")
    if tables and (before / TAUGHT).is_file():
        taught = json.loads((before / TAUGHT).read_text(encoding="utf-8"))
        if taught != describe_taught(tables):
            problems.append(
                f"{run.data.csv_path}: questions, answers, or the list of answers, are not those that the run in {before} was "
                "begun with"
            )
    return problems


def describe_taught(tables: Tables) -> dict:
    """What an adapter learns from: a resumed run must go on with the same, and a head with its answers in their order."""
    return {"sha256": tables.sha256, "answers": list(tables.answers) if tables.answers else None}


def count_images(examples: list[Example]) -> int:
    """Distinct images, by content."""
    return len({example.digest for example in examples})
