"""A fine-tuning run as asked for: its arguments, and what they resolve to."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from blip2vqa.adapters.resolve import open_adapter
from blip2vqa.adapters.storage.hub import push
from blip2vqa.config.common import DataArguments, FeatureArguments, GenerationArguments, LoraArguments, ModelArguments
from blip2vqa.config.finetune import FinetuneArguments
from blip2vqa.evaluation.tasks import CAPTION, TASKS, Task
from blip2vqa.inference.request import Decoding
from blip2vqa.reporting.tables import verdict
from blip2vqa.utils.errors import InputError

logger = logging.getLogger(__name__)


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
