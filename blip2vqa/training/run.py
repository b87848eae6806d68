"""A fine-tuning run as it was asked for: its arguments, and what they resolve to."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from blip2vqa.adapters.resolve import open_adapter
from blip2vqa.adapters.storage.hub import push
from blip2vqa.config.common import DataArguments, FeatureArguments, GenerationArguments, LoraArguments, ModelArguments
from blip2vqa.config.decoding import DECODING, Decoding
from blip2vqa.config.finetune import FinetuneArguments
from blip2vqa.evaluation.tasks import CAPTION, TASKS, Task
from blip2vqa.evaluation.verdict import verdict
from blip2vqa.utils.console import called, named
from blip2vqa.utils.errors import InputError


@dataclass
class Run:
    """The arguments of one run, which stay as the user gave them, and what they resolve to."""

    model: ModelArguments
    data: DataArguments
    lora: LoraArguments
    generation: GenerationArguments
    features: FeatureArguments
    training: FinetuneArguments
    resolved: dict
    """The options that differ from the defaults; as JSON, a configuration that repeats the run."""
    started: float = field(default_factory=time.monotonic, init=False)
    address: str | None = field(default=None, init=False)
    """The adapter's URL on the Hub, once it is published."""

    @property
    def folder(self) -> Path:
        """The folder that the run writes into."""
        return Path(self.training.output_dir or "")

    @property
    def task(self) -> Task:
        """What is learnt: answers or captions."""
        return TASKS[self.data.task]

    @property
    def decoding(self) -> Decoding:
        """How answers are decoded."""
        given = {name: getattr(self.generation, name) for name in DECODING}
        return Decoding(**given | {"max_new_tokens": given["max_new_tokens"] or self.task.max_new_tokens})

    @property
    def push_to(self) -> str | None:
        """The Hub id that the finished adapter is published under; None publishes nothing."""
        return (self.training.hub_model_id or self.folder.name) if self.training.push_to_hub else None

    def results(self, metrics: dict) -> list[tuple[str, str]]:
        """List what was written and where, as `(label, text)` pairs for the closing block."""
        minutes, seconds = divmod(round(time.monotonic() - self.started), 60)
        use = f"{called('infer')} --lora_model_path {self.folder} --image_dir … --csv_path …"
        if self.task is CAPTION:
            use = f"{called('caption')} --images … --styles {self.data.style or 'plain'}={self.folder}"
        return [
            ("verdict", verdict(metrics)),
            ("time", f"{minutes} min {seconds} s"),
            ("adapter", f"{self.folder}/adapter_model.safetensors, with its prompt and scores in blip2vqa.json"),
            ("scores", f"{self.folder}/metrics.json"),
            ("answers", f"{self.folder}/predictions.csv"),
            ("report", f"{self.folder}/report.html"),
            ("run again", f"{called('finetune')} {self.folder}/run.json --output_dir NEW_FOLDER"),
            ("use it", use),
            *([("published", self.address)] if self.address else []),
        ]

    def publish(self) -> None:
        """Publish the finished adapter on the Hub. Raises `InputError`, which names the command that publishes it later."""
        options = {"private": self.training.hub_private_repo is not False, "revision": self.training.hub_revision}
        adapter = open_adapter(self.folder)
        try:
            self.address = push(adapter, self.push_to, token=self.training.hub_token, **options)
        except InputError as error:
            again = f"{named('exchange')} push {self.folder} {self.push_to} publishes it"
            raise InputError(*error.problems, f"the adapter is finished, in {self.folder}; {again}") from error
