"""All that can be wrong with a run, found in one go before any weight is loaded."""

from accelerate import PartialState

from blip2vqa.adapters.files.card import is_hub_id
from blip2vqa.adapters.lora import check_start, modules_to_adapt
from blip2vqa.adapters.storage.hub import check_push
from blip2vqa.config.roles import parse_roles, parse_scopes
from blip2vqa.models.families import family_of
from blip2vqa.models.loading import choose_dtype, find_device, load_config, load_processor
from blip2vqa.training.data import Tables, ask_as, load_tables
from blip2vqa.training.resume import checkpoint_to_resume
from blip2vqa.training.run import Run
from blip2vqa.utils.errors import InputError, collect_errors, raise_all


def check(run: Run) -> Tables:
    """Read and check everything before any weight is loaded. Raises one `InputError` with every problem found."""
    parts = (run.data, run.lora, run.generation, run.features, run.training)
    problems = [problem for part in parts for problem in part.check()]
    found = collect_errors(problems, _check_base, run)
    tables = collect_errors(problems, load_tables, run) if run.data.csv_path else None
    if found and tables:
        collect_errors(problems, ask_as, run, tables, *found)
    collect_errors(problems, checkpoint_to_resume, run, tables)
    if run.push_to and PartialState().is_main_process:
        collect_errors(problems, _check_push, run)
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


def _check_base(run: Run) -> tuple:
    """Processor and configuration of the base."""
    base, revision = run.model.base_model_id, run.model.base_model_revision
    config = load_config(base, revision)
    family, problems = family_of(config), []
    collect_errors(problems, choose_dtype, run.model.dtype, family, find_device(run.training.use_cpu))
    if run.training.fp16 and not family.float16:
        problems.append(f"--fp16: {family.name} overflows in float16; use --bf16, or leave it out")
    # An unknown role or part has been reported with the arguments.
    roles, scopes = (
        collect_errors([], parse_roles, run.lora.lora_roles),
        collect_errors([], parse_scopes, run.lora.lora_scope),
    )
    if roles and scopes:
        found = collect_errors(problems, modules_to_adapt, family.outline(config), family, roles, scopes)
        if found and run.lora.start_from:
            collect_errors(problems, check_start, run.lora, [name for named in found.values() for name in named])
    raise_all(problems)
    return load_processor(base, config, revision), config
