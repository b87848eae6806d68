"""What finetune.py takes: its own arguments and Trainer's; the import of these takes seconds."""

import os
from dataclasses import dataclass

from transformers import TrainingArguments
from transformers.integrations import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from blip2vqa.config.fields import Range
from blip2vqa.config.sharding import CONFIG, ZERO3, sharding_of_deepspeed, sharding_of_launch
from blip2vqa.config.training import FINETUNE_OPTIONS, TrainingOptions


@dataclass
class FinetuneArguments(TrainingOptions, TrainingArguments):
    """Everything of `transformers.TrainingArguments`, with this task's defaults."""

    def __post_init__(self):
        if self.save_strategy is None:
            self.save_strategy = "epoch" if self.eval_strategy == "no" else self.eval_strategy
            if self.save_strategy == "steps" and self.eval_steps:
                self.save_steps = self.eval_steps
        if "no" in (self.eval_strategy, self.save_strategy):
            self.load_best_model_at_end = False
        if self.disable_tqdm is None:
            self.disable_tqdm = False  # upstream hides the bars where its log is as quiet as the scripts make it
        if self.dataloader_num_workers:
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else tokenizers warns of every worker's fork
        given, self.sharding = self.output_dir, sharding_of_launch()
        super().__post_init__()
        if self.deepspeed_plugin is not None:  # of --deepspeed, or of accelerate's configuration
            self.sharding = sharding_of_deepspeed(self.deepspeed_plugin.hf_ds_config)
            unset_hf_deepspeed_config()  # else transformers would divide everything that is loaded
        self.output_dir = given  # upstream has a default, which nobody would look for

    def check(self) -> list[str]:
        problems = super().check()
        problems += Range(at_least=1).problem("gradient_accumulation_steps", self.gradient_accumulation_steps)
        if self.max_steps <= 0:
            problems += Range(above=0, below=1e6).problem("num_train_epochs", self.num_train_epochs)
        for flag in ("weight_decay", "max_grad_norm", "dataloader_num_workers"):
            problems += Range(at_least=0).problem(flag, getattr(self, flag))
        for flag in ("fp16_full_eval", "bf16_full_eval"):
            if getattr(self, flag):
                problems.append(
                    f"--{flag}: casts the adapter for good; leave it out, --dtype chooses the base's precision"
                )
        problems += Range(at_least=0, below=1).problem("label_smoothing_factor", self.label_smoothing_factor)
        for flag in ("eval_accumulation_steps", "dataloader_prefetch_factor"):
            if getattr(self, flag) is not None:
                problems += Range(at_least=1).problem(flag, getattr(self, flag))
        problems += self.sharding.problems
        if self.fsdp:
            problems.append(f"--fsdp: the launcher says it; use accelerate launch --config_file {CONFIG}")
        if kind := self.sharding.kind:
            problems += [
                f"--{name}: not with {kind}, whose processes compute in step; leave it out"
                for name in ("tokens_per_batch", "torch_compile", "auto_find_batch_size")
                if getattr(self, name)
            ]
        if kind == ZERO3:
            problems += [f"{flag}: not with ZeRO-3; {remedy}" for flag, remedy in self.float16_by()]
        plugin = self.deepspeed_plugin
        if plugin is not None and plugin.hf_ds_config.get_value("bf16.enabled") is True and not self.bf16:
            problems.append(
                "--bf16: DeepSpeed's configuration, or the launcher's mixed precision, asks for it; set it to true"
            )
        if plugin is not None and self.tokens_per_batch and not kind:
            problems.append(
                "--tokens_per_batch: not with DeepSpeed, which takes a step at every part; use --gradient_accumulation_steps"
            )
        # By now "all" and "none" stand for what is installed, and for nothing.
        for name in self.report_to:
            if name not in INTEGRATION_TO_CALLBACK:
                problems.append(f"--report_to {name}: no such logger; choose from {', '.join(INTEGRATION_TO_CALLBACK)}")
            elif name not in get_available_reporting_integrations():
                problems.append(f"--report_to {name}: not installed; install it (pip install {name}), or name another")
        if self.early_stopping_patience is not None and not self.load_best_model_at_end:
            problems.append("--early_stopping_patience: needs --load_best_model_at_end true")
        if self.remove_unused_columns or not self.prediction_loss_only or self.label_names != ["labels"]:
            problems.append(
                "--remove_unused_columns, --prediction_loss_only and --label_names must keep their defaults"
            )
        return problems

    def float16_by(self) -> list[tuple[str, str]]:
        """List the settings that make training compute in float16, each with what to do instead."""
        zero = getattr(self, "hf_deepspeed_config", None)
        if zero is not None and zero.get_value("fp16.enabled") is True:
            return [("--deepspeed, fp16.enabled", "enable bf16 in that file")]
        if self.fp16:
            return [("--fp16", "use --bf16, or leave it out")]
        if self.mixed_precision == "fp16":  # of the launcher's flag, its configuration file or the environment
            return [("--mixed_precision fp16", "give bf16 or no to accelerate's launcher, or in its configuration")]
        return []


FINETUNE_ARGUMENTS = [*FINETUNE_OPTIONS[:-1], FinetuneArguments]
"""What finetune.py takes, in the order of `Run`'s fields."""
