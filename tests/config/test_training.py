"""Trainer's options, known without importing them."""

from dataclasses import fields

from transformers import TrainingArguments
from transformers.utils import logging

from blip2vqa.config.finetune import FINETUNE_ARGUMENTS, FinetuneArguments
from blip2vqa.config.parser import Parser
from blip2vqa.config.training import FINETUNE_OPTIONS, TrainingOptions, trainer_flags


def test_the_flags_are_those_that_the_parser_makes():
    known = trainer_flags()
    made = Parser([TrainingArguments], "", "").options
    assert {name for name in made if "-" not in name} - {"h", "help", "version"} <= {*known}
    assert {one.name for one in fields(TrainingArguments)} == {name for name in known if not name.startswith("no_")}


def test_progress_is_shown_however_quiet_the_libraries_are():
    before = logging.get_verbosity()
    try:
        logging.set_verbosity_error()
        assert FinetuneArguments(use_cpu=True).disable_tqdm is False
        assert FinetuneArguments(use_cpu=True, disable_tqdm=True).disable_tqdm is True
    finally:
        logging.set_verbosity(before)


def test_own_defaults_win_over_trainers():
    args = FinetuneArguments(use_cpu=True)
    for one in fields(TrainingOptions):
        if one.name not in ("output_dir", "save_strategy", "report_to", "label_names"):
            assert getattr(args, one.name) == getattr(TrainingOptions(), one.name), one.name
    assert issubclass(FINETUNE_ARGUMENTS[-1], FINETUNE_OPTIONS[-1])
    assert FINETUNE_ARGUMENTS[:-1] == FINETUNE_OPTIONS[:-1]
