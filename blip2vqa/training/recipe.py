"""One fine-tuning run, from top to bottom: a table and a base in, an adapter with its scores and predictions out."""

from collections.abc import Callable
from functools import partial

from accelerate import PartialState

from blip2vqa.adapters.base.fingerprints import fingerprint_base
from blip2vqa.adapters.lora import wrap
from blip2vqa.adapters.validation.safety import WEIGHTS
from blip2vqa.config.paths import for_file
from blip2vqa.config.roles import parse_scopes
from blip2vqa.data.examples import Example
from blip2vqa.data.splits import describe_split
from blip2vqa.features.encode import load_with_features
from blip2vqa.inference.generation import Answer, answer_examples
from blip2vqa.inference.startup import find_scorer
from blip2vqa.models.families import family_of
from blip2vqa.models.loading import load_base, load_config
from blip2vqa.models.zero3 import gathered, gathered_to_compute
from blip2vqa.training.checks import check
from blip2vqa.training.outputs import answer_texts, score_run, write_results
from blip2vqa.training.resume import SPLIT, TRAINING_DATA, checkpoint_to_resume, describe_training_data
from blip2vqa.training.run import Run
from blip2vqa.training.summary import print_start
from blip2vqa.training.tracking import track
from blip2vqa.training.trainer import VQATrainer
from blip2vqa.utils.distributed import check_shared, run_on_all_ranks
from blip2vqa.utils.files import write_json_atomic, writing


def finetune(run: Run, make_trainer: Callable[..., VQATrainer] = VQATrainer) -> dict:
    """Fine-tune, evaluate and write everything; returns what `metrics.json` holds.

    `make_trainer`: called with what `VQATrainer` is made of. Raises `InputError`, with every problem found, before any weight
    is loaded.
    """
    state, args, folder = PartialState(), run.training, run.folder

    # 1. Check everything, and note what the run is.
    data = run_on_all_ranks(lambda: check(run))
    scorer = find_scorer(run.generation.bertscore_model)
    checkpoint = checkpoint_to_resume(run, data)
    if state.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        write_json_atomic(folder / "run.json", for_file(run.resolved, folder))
        write_json_atomic(folder / SPLIT, describe_split(data.train, data.val))
        write_json_atomic(folder / TRAINING_DATA, describe_training_data(data))
    state.wait_for_everyone()
    check_shared(folder, "--output_dir")  # its checkpoints are read by all

    # 2. Load the base; the frozen towers encode the images first, and leave memory again.
    base = run.model.base_model_id, run.model.base_model_revision
    fingerprints = fingerprint_base(*base, progress=not args.disable_tqdm) if state.is_main_process else {}
    load = partial(
        load_base, base[0], revision=base[1], dtype=run.model.dtype, quantization=run.model.quantization, device=args.device,
        for_training=True, answers=data.answers, sharded=args.sharding.kind,
    )  # fmt: skip
    images = {example.digest: example.image for example in data.train + data.val}
    family, scopes = family_of(load_config(*base)), parse_scopes(run.lora.lora_scope)
    shown = {"batch_size": args.per_device_eval_batch_size, "progress": not args.disable_tqdm}
    loaded, features, feature_lines = load_with_features(load, images, family, scopes, run.features.kept(), **shown)

    def answer(examples: list[Example], progress: str) -> list[Answer]:
        size, shown = args.per_device_eval_batch_size, None if args.disable_tqdm else progress
        with gathered(loaded.base.parameters(recurse=False)):  # of no module that is called
            return answer_examples(loaded, features, examples, data.request, batch_size=size, progress=shown)

    with gathered_to_compute(loaded.base):
        answers = {"base": answer(data.val, "base model")}

    # 3. Put a fresh adapter on the base, and train it.
    lora = wrap(loaded, run.lora, args.seed, fused=not args.torch_compile)
    trainer = make_trainer(run, loaded, features, data, answer)
    track(trainer, data, answers["base"])
    if state.is_main_process:
        print_start(run, data, loaded, feature_lines, lora, trainer)
    trainer.train(resume_from_checkpoint=checkpoint)

    # 4. Answer the validation questions, with the right images and with others.
    answers |= trainer.final_answers()

    # 5. Write the adapter, its scores and its answers.
    model = trainer.accelerator.unwrap_model(trainer.model)
    with writing(folder / WEIGHTS), gathered(weight for weight in model.parameters() if weight.requires_grad):
        model.save_pretrained(folder, is_main_process=state.is_main_process)
    metrics = {}
    if state.is_main_process:
        texts = answer_texts(run.task, data, answers)
        metrics = score_run(run.task, data, scorer, texts)
        history = trainer.state.log_history
        write_results(run, loaded, lora, data, metrics, texts, answers["adapter"], fingerprints, history)
        if run.push_to:
            run.publish()
    state.wait_for_everyone()
    return metrics
