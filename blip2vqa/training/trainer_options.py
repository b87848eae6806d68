"""Trainer's options that would fail late: what they stand for is made once, for one small layer, before anything is loaded."""

from collections.abc import Callable
from importlib.util import find_spec

import torch
from accelerate.utils import DynamoBackend
from torch.utils.data import DataLoader
from transformers import Trainer, get_scheduler

from blip2vqa.config.finetune import FinetuneArguments
from blip2vqa.utils.errors import InputError, collect_errors, raise_all

STEPS = 10
"""Of the schedule that is tried."""


def check_trainer(args: FinetuneArguments) -> None:
    """Raise `InputError`, with every problem found, for options that Trainer or torch would refuse during the run."""
    problems = []
    layer = torch.nn.Linear(2, 2, device="meta")
    layer.weight = torch.nn.Parameter(torch.zeros(2, 2))  # drawn at random, it would change what is drawn later
    layer.bias = None
    if args.use_liger_kernel and not find_spec("liger_kernel"):
        problems.append("--use_liger_kernel: liger-kernel is not installed; install it, or leave the flag out")
    checks = [("--dataloader_num_workers, --dataloader_prefetch_factor, --dataloader_persistent_workers", _load)]
    if not getattr(args, "hf_deepspeed_config", None):  # which brings an optimizer and a schedule of its own
        checks.append(("--optim, --optim_args, --adam_…", _make_optimizer))
        checks.append(("--lr_scheduler_type, --lr_scheduler_kwargs", _make_schedule))
    if args.torch_compile:
        checks.append(("--torch_compile_backend, --torch_compile_mode", _compile))
    for flags, step in checks:
        collect_errors(problems, _tried, flags, step, args, layer)
    raise_all(problems)


def _tried(flags: str, step: Callable, args: FinetuneArguments, layer: torch.nn.Module) -> None:
    try:
        step(args, layer)
    except Exception as error:  # whatever a library says, later it would end the run
        said = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{flags}: {said}") from error


def _load(args: FinetuneArguments, layer: torch.nn.Module) -> None:
    several = {"prefetch_factor": args.dataloader_prefetch_factor} if args.dataloader_num_workers else {}
    DataLoader(
        [0],
        num_workers=args.dataloader_num_workers,
        persistent_workers=args.dataloader_persistent_workers,
        **several,
    )


def _make_optimizer(args: FinetuneArguments, layer: torch.nn.Module) -> None:
    optimizer_class, options = Trainer.get_optimizer_cls_and_kwargs(args, layer)
    # Some are made of the names of layers, which this one does not have.
    if isinstance(optimizer_class, type) and not options.keys() & {"params", "model", "optimizer_dict"}:
        optimizer_class([layer.weight], **options)


def _make_schedule(args: FinetuneArguments, layer: torch.nn.Module) -> None:
    optimizer = torch.optim.SGD([layer.weight], lr=args.learning_rate)
    warmup = args.get_warmup_steps(STEPS)
    steps = {"num_warmup_steps": warmup, "num_training_steps": warmup + STEPS}
    schedule = get_scheduler(
        args.lr_scheduler_type, optimizer, scheduler_specific_kwargs=args.lr_scheduler_kwargs, **steps
    )
    for rate in getattr(schedule, "lr_lambdas", ()):
        for step in (0, warmup, warmup + STEPS):  # behind the warm-up it may fail, too
            rate(step)


def _compile(args: FinetuneArguments, layer: torch.nn.Module) -> None:
    if args.torch_compile_backend:
        DynamoBackend(args.torch_compile_backend.upper())
    torch.compile(layer, mode=args.torch_compile_mode)
