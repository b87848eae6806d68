"""The commands that are interfered with, each small enough to run in a second or two, and what they start from."""

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MATERIALS = "../../materials"
"""From the folder that a command runs in."""
TOKEN = "hf_" + "W" * 34
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1", "COLUMNS": "120", "BLIP2VQA_STORE": "store", "XDG_CACHE_HOME": "cache", "TMPDIR": "scratch",
    "HF_TOKEN": TOKEN, "OPENAI_API_KEY": "sk-0", "TQDM_DISABLE": "1",
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A command, and how its results are looked at."""

    command: str
    go_on: str = ""
    """What is added when the command says that it goes on with that."""
    finished: tuple[str, ...] = ()
    """What the command says when its results are there already."""
    ignored: tuple[str, ...] = ("cache", "hub-cache", "scratch")
    """What below its folder is not compared: caches, and what only serves to go on."""
    processes: int = 1
    code: int = 0
    """Exit code of an undisturbed run."""
    hub: bool = False
    """Whether it writes to the Hub, as `user/WORKER`."""
    before: tuple[str, ...] = ()
    """Commands whose results it starts from."""


def _finetune(base: str, *more: str, epochs: int = 2, **changes) -> Job:
    command = (
        f"finetune.py --base_model_id {MATERIALS}/{base} --image_dir {MATERIALS}/drawn/images --csv_path "
        f"{MATERIALS}/drawn/table.csv --output_dir out --dtype float32 --quantization none --disable_tqdm true --use_cpu "
        f"--learning_rate 1e-2 --warmup_steps 2 --epochs {epochs} --batch_size 8 --val_split 0.34 {' '.join(more)}"
    )
    if "--bertscore_model" not in command:
        command += " --bertscore_model none"
    ignored = (*Job.ignored, "out/checkpoints")
    return Job(command, "--resume_from_checkpoint true", ("holds a finished run",), ignored, **changes)


def _infer(*more: str, **changes) -> Job:
    command = (
        f"inference.py --image_dir {MATERIALS}/drawn/images --csv_path {MATERIALS}/drawn/table.csv --output_path answers.csv "
        f"--dtype float32 --batch_size 4 {' '.join(more)}"
    )
    if "--bertscore_model" not in command:
        command += " --bertscore_model none"
    return Job(command, "", ("is already there, finished",), **changes)


def _generate(*more: str, **changes) -> Job:
    command = (
        f"generate_vqa.py --csv_path {MATERIALS}/catalogue/table.csv --image_dir {MATERIALS}/catalogue/images --output_path "
        f"made/vqa.csv --max_blind_accuracy 1 --max_product_type_share 1 --preview 2 {' '.join(more)}"
    )
    return Job(command, "", ("is already there",), **changes)


def _exchange(words: str, **changes) -> Job:
    return Job(f"exchange.py {words}", "", ("already",), **changes)


def _adapters(*names: str) -> str:
    return " ".join(f"{MATERIALS}/adapters/{name}" for name in names)


CAPTIONS = f"--task caption --csv_path {MATERIALS}/drawn/captions.csv"
SCORER = f"--bertscore_model {MATERIALS}/scorer"
JOBS = {
    "finetune-opt": _finetune("opt"),
    "finetune-t5-captions": _finetune("t5", CAPTIONS),
    "finetune-vilt": _finetune("vilt", "--min_answer_count 1"),
    "finetune-blip-captions": _finetune("blip-caption", CAPTIONS),
    "finetune-blip-vqa": _finetune("blip-vqa"),
    "finetune-instructblip": _finetune("instructblip-t5"),
    "finetune-bertscore": _finetune("opt", SCORER, epochs=1),
    "finetune-2-processes": _finetune("opt", "--ddp_backend gloo", processes=2),
    "infer-opt": _infer("--lora_model_path", _adapters("one")),
    "infer-list": _infer("--lora_model_path", _adapters("one"), f"--answers {MATERIALS}/drawn/answers.txt"),
    "infer-vilt": _infer(f"--base_model_id {MATERIALS}/vilt"),
    "infer-bertscore": _infer("--lora_model_path", _adapters("one"), SCORER),
    "infer-2-processes": _infer("--lora_model_path", _adapters("one"), processes=2),
    "systems": Job(
        _infer(f"--systems {MATERIALS}/systems.json").command, "", ("is already there",),
        (*Job.ignored, "answers.csv", "answers.png"),  # which tell seconds
    ),
    "score": Job(
        f"inference.py --score {MATERIALS}/predictions.csv --csv_path {MATERIALS}/drawn/table.csv {SCORER}"
    ),
    "caption": Job(
        f"caption.py --images {MATERIALS}/drawn/images --base_model_id {MATERIALS}/opt --dtype float32 --output_path "
        f"captions.csv --styles concise={MATERIALS}/adapters/captions --prompt Picture: --compare sheet.html --batch_size 4",
        "", ("is already there",),
    ),
    "generate": _generate(),
    # A random base agrees with nothing, so that no question is left; what it said is kept.
    "generate-check": _generate(f"--check_model {MATERIALS}/vilt", code=2),
    "generate-model": _generate(f"--backend model --base_model_id {MATERIALS}/vilt-red"),
    "generate-api": _generate("--backend api --api_model seer --api_base_url CHAT --requests_per_minute 60000"),
    "merge": _exchange(f"merge {_adapters('one')}=0.7 {_adapters('two')}=0.3 --output out"),
    "resize": _exchange(f"resize {_adapters('one')} --rank 2 --output out"),
    "extract": _exchange(f"extract {MATERIALS}/opt {MATERIALS}/fused --rank 2 --output out"),
    "fuse": _exchange(f"fuse {_adapters('one')} --output out"),
    "check": _exchange(f"check {_adapters('one')} {MATERIALS}/opt"),
    "transfer": _exchange(
        f"transfer {_adapters('one')} {MATERIALS}/opt-other --method copy --output out --dtype float32 --csv_path "
        f"{MATERIALS}/drawn/table.csv --image_dir {MATERIALS}/drawn/images"
    ),
    "transfer-distil": _exchange(
        f"transfer {_adapters('one')} {MATERIALS}/t5 --method distil --output out --dtype float32 --csv_path "
        f"{MATERIALS}/drawn/table.csv --image_dir {MATERIALS}/drawn/images --min_confidence 0",
        ignored=(*Job.ignored, "out/checkpoints"),
    ),
    "swap": _exchange(f"swap {_adapters('one', 'other')} --method copy --output out --dtype float32"),
    "export": _exchange(f"export {_adapters('one')} --output one.zip"),
    "import": _exchange(f"import {MATERIALS}/one.zip"),
    "add": _exchange(f"add {_adapters('one')}"),
    "remove": Job("exchange.py remove one", "", ("no adapter", "not"), before=(f"exchange.py add {_adapters('one')}",)),
    "push": _exchange(f"push {_adapters('one')} user/WORKER --base_model_id someone/opt", hub=True),
    "pull": _exchange("pull user/published --name one"),
}  # fmt: skip


def make_materials(folder: Path, jobs: Iterable[str]) -> None:
    """Make bases, adapters, tables and pictures, random and tiny, in `folder`: what these jobs and the readers need."""
    from helpers.family_bases import Bases, random_adapter
    from helpers.tiny_blip2 import make_base, make_table
    from helpers.tiny_families import make_vilt

    needed = "".join(f"{JOBS[name].command} " for name in jobs)
    for kind in ("opt", "t5", "vilt", "blip-caption", "blip-vqa", "instructblip-t5"):
        if kind == "opt" or f"{MATERIALS}/{kind} " in needed:
            Bases(folder)[kind]
    make_vilt(folder / "vilt-red", answers=("red",))
    make_base(folder / "opt-other", seed=1)
    adapters = folder / "adapters"
    random_adapter(folder / "opt", adapters / "one", 1, prompt="{question} A:", decoding={"max_new_tokens": 4})
    random_adapter(folder / "opt", adapters / "two", 2, prompt="{question} A:", decoding={"max_new_tokens": 4})
    random_adapter(folder / "opt-other", adapters / "other", 3, prompt="{question} A:", decoding={"max_new_tokens": 4})
    captions = {"task": "caption", "prompt": "a photo of", "decoding": {"max_new_tokens": 4}}
    random_adapter(folder / "opt", adapters / "captions", 4, **captions)
    make_table(folder / "drawn", images=6)
    _make_tables(folder)
    _make_catalogue(folder / "catalogue")
    _make_scorer(folder / "scorer")

    from blip2vqa.adapters.resolve import open_adapter
    from blip2vqa.adapters.storage.archive import export
    from blip2vqa.exchange import fuse

    export(open_adapter(str(adapters / "one")), folder / "one.zip")
    if "fused" in needed:
        fuse(str(adapters / "two"), str(folder / "fused"))
    shutil.copytree(adapters / "one", folder.parent / "hub" / "user" / "published")


def _make_tables(folder: Path) -> None:
    rows = [line.split(",") for line in (folder / "drawn" / "table.csv").read_text().splitlines()[1:]]
    captions = dict.fromkeys(row[0] for row in rows)
    lines = [f"{name},a square of number {number}" for number, name in enumerate(captions)]
    (folder / "drawn" / "captions.csv").write_text("\n".join(["image_name,caption", *lines]) + "\n")
    (folder / "drawn" / "answers.txt").write_text("red\ngreen\nblue\nyellow\nyes\nno\none\n")
    said = [",".join([*row, "yes"]) for row in rows]
    (folder / "predictions.csv").write_text("\n".join(["image_name,question,answer,generated_answer", *said]) + "\n")
    base, adapter = f"{MATERIALS}/opt", f"{MATERIALS}/adapters/one"
    systems = [{"name": "base", "base_model_id": base}, {"name": "one", "lora_model_path": adapter}]
    (folder / "systems.json").write_text(json.dumps(systems))


def _make_catalogue(folder: Path) -> None:
    from helpers.drawn_catalogue import PAINTS, save, unlike

    (folder / "images").mkdir(parents=True)
    rows = []
    for number, (color, noun) in enumerate(
        (color, noun) for color in ("red", "blue", "green") for noun in ("chair", "shoe")
    ):
        save(folder / "images", **{f"p{number}": unlike(number, color)})
        rows.append(f"p{number}.png,p{number},{color.title()} {noun},{color},{noun.upper()}")
    assert set(PAINTS) >= {"red", "blue", "green"}
    (folder / "table.csv").write_text("\n".join(["image_name,item_id,name,color,product_type", *rows]) + "\n")


def _make_scorer(folder: Path) -> None:
    import torch
    from transformers import BertConfig, BertModel

    from helpers.tiny_families import make_bert_tokenizer

    tokenizer = make_bert_tokenizer()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
