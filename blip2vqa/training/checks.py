"""Check everything of a run, and report all problems at once, before any weight is loaded."""

import logging

from accelerate import PartialState

from blip2vqa.adapters.files.card import is_hub_id
from blip2vqa.adapters.lora import check_start, modules_to_adapt
from blip2vqa.adapters.storage.hub import check_push
from blip2vqa.config.common import CHANGE_THE_BASE
from blip2vqa.config.roles import parse_roles, parse_scopes
from blip2vqa.evaluation.tasks import LOSS
from blip2vqa.models.families import family_of
from blip2vqa.models.family import Family
from blip2vqa.models.loading import load_config, load_processor
from blip2vqa.models.precision import BYTES_PER_WEIGHT, check_dtype, stored_quantization
from blip2vqa.training.data import RunData, build_run_data, load_rows
from blip2vqa.training.resume import checkpoint_to_resume
from blip2vqa.training.run import Run
from blip2vqa.training.trainer_options import check_trainer
from blip2vqa.utils.console import named
from blip2vqa.utils.errors import InputError, collect_errors, raise_all

logger = logging.getLogger(__name__)


def check(run: Run) -> RunData:
    """Check the run and read its data. Raises one `InputError` with every problem found."""
    raise_all([f"--{name}: missing; name the folder to write into" for name in run.training.missing()])
    parts = (run.model, run.data, run.lora, run.generation, run.features, run.training)
    problems = [problem for part in parts for problem in part.check()]
    found = collect_errors(problems, _check_base, run)
    rows = collect_errors(problems, load_rows, run) if run.data.csv_path else None
    data = collect_errors(problems, build_run_data, run, rows, *found) if found and rows else None
    collect_errors(problems, _check_best_metric, run, data)
    collect_errors(problems, checkpoint_to_resume, run, data)
    collect_errors(problems, check_trainer, run.training)
    batch = run.training.train_batch_size * PartialState().num_processes
    if data and run.training.dataloader_drop_last and len(data.train) < batch:
        problems.append(
            f"--dataloader_drop_last: leaves no batch of {len(data.train)} rows; use a smaller --batch_size"
        )
    if run.push_to and PartialState().is_main_process:
        collect_errors(problems, _check_push, run)
    raise_all(problems)
    if run.training.n_gpu > 1:
        logger.warning("1 of %d GPUs is used; `accelerate launch` uses them all", run.training.n_gpu)
    return data


def _check_best_metric(run: Run, data: RunData | None) -> None:
    """Raise `InputError` for a `--metric_for_best_model` of another task, or one that these examples have no score for."""
    name = run.task.find_best_metric(run.training.metric_for_best_model)
    if data is None or name in (LOSS, run.task.main):
        return
    if name not in run.task.score(data.val, [example.answer for example in data.val]):
        raise InputError(f"--metric_for_best_model {name}: the validation examples do not have what it needs")


def _check_push(run: Run) -> None:
    """Raise `InputError` for a run that could not be published: now, not after hours of training."""
    if not is_hub_id(run.model.base_model_id):
        raise InputError(
            f"--push_to_hub: the base is a local folder, {run.model.base_model_id}, that others do not have; leave it out, and "
            f"publish by {named('exchange')} push with --base_model_id"
        )
    check_push(run.push_to, run.training.hub_token)


def _no_sharding(run: Run, family: Family, config) -> list[str]:
    """List what cannot be had of a base whose blocks the processes share."""
    problems, lora, kind = [], run.lora, run.training.sharding.kind
    if family.language_class is None:
        problems.append(f"{kind}: {family.name} is small, and is not sharded; launch without it")
    if run.model.quantization in BYTES_PER_WEIGHT or stored_quantization(config):
        problems.append(f"--quantization: quantized weights are not sharded; use none, or launch without {kind}")
    if lora.use_dora:
        problems.append(f"--use_dora: not with {kind}, since it needs the base's weights whole; leave it out")
    if lora.init_lora_weights in CHANGE_THE_BASE:
        problems.append(f"--init_lora_weights {lora.init_lora_weights}: not with {kind}; use default or gaussian")
    return problems


def _check_base(run: Run) -> tuple:
    """Check that the base can be loaded and adapted as asked; returns its processor and its configuration."""
    base, revision = run.model.base_model_id, run.model.base_model_revision
    config = load_config(base, revision)
    family, problems = family_of(config), []
    collect_errors(problems, check_dtype, run.model.dtype, family)
    if not family.float16:
        problems += [
            f"{flag}: {family.name} overflows in float16; {remedy}" for flag, remedy in run.training.float16_by()
        ]
    if run.training.sharding.kind:
        problems += _no_sharding(run, family, config)
    # An unknown role or scope has been reported with the arguments.
    roles = collect_errors([], parse_roles, run.lora.lora_roles)
    scopes = collect_errors([], parse_scopes, run.lora.lora_scope)
    if roles and scopes:
        found = collect_errors(problems, modules_to_adapt, family.outline(config), family, roles, scopes)
        if found and run.lora.start_from:
            collect_errors(problems, check_start, run.lora, [name for named in found.values() for name in named])
    raise_all(problems)
    return load_processor(base, config, revision), config
