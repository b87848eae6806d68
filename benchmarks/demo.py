"""The demo with several users at once: how long one waits, and how long eight wait who ask at the same time.

    python benchmarks/demo.py --output docs/measurements/demo.json      # the photo base, two adapters

The demo runs as a process of its own. Its users are threads of this one, which ask by plain requests, each about a picture of
his own that was uploaded before, as in the page. One asks by himself, then all at once, the base and an adapter each, with the
answers without the picture and on a grey one. Two runs of each to warm up, then `--repeats`, in turn; the medians are reported.
The adapters have random weights, written to a temporary folder. Single answers are compared with those of the common batches.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from blip2vqa.adapters.lora import wrap
from blip2vqa.config.common import LoraArguments
from blip2vqa.models.loading import load_base
from measuring import circumstances

ROOT = Path(__file__).resolve().parent.parent
QUESTIONS = ("What is it?", "What color is it?", "What is it made of?", "Is it a boot?")


def write_adapter(base: Path, folder: Path, seed: int) -> None:
    """Write an adapter of rank 16 with random weights."""
    loaded = load_base(str(base), dtype="float32", quantization="none", for_training=True)
    wrap(loaded, LoraArguments(), seed)
    torch.manual_seed(seed)
    for name, parameter in loaded.model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0.0, 0.05)
    loaded.model.save_pretrained(folder)


def start(base: Path, adapters: dict[str, Path]) -> tuple[subprocess.Popen, str]:
    """Start the demo on a free port; returns the process and its address when it is up."""
    named = [f"{name}={folder}" for name, folder in adapters.items()]
    command = [sys.executable, "demo.py", "--base_model_id", base, "--port", "0", "--lora_model_path", *named]
    process = subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("Demo: "):
            return process, line.split()[1]
    raise SystemExit("the demo did not start")


def upload(url: str, picture: Path) -> dict:
    """Upload a picture as the page does; returns how requests name it from then on."""
    with picture.open("rb") as file:
        (path,) = requests.post(f"{url}/gradio_api/upload", files={"files": file}, timeout=60).json()
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def ask(url: str, picture: dict, question: str, models: list[str], session: str) -> dict:
    """Ask by two plain requests, as docs/serving.md shows for curl: the question, then the stream that brings the answer.

    `session`: of the user, who has one for all of his questions, as a page has.
    """
    call = f"{url}/gradio_api/call/answer"
    asked = {"data": [picture, question, models], "session_hash": session}
    event = requests.post(call, json=asked, timeout=60).json()["event_id"]
    with requests.get(f"{call}/{event}", stream=True, timeout=60) as stream:
        lines = [line.decode() for line in stream.iter_lines()]
    (found,) = json.loads(lines[lines.index("event: complete") + 1].removeprefix("data: "))
    return found


def measure(url: str, pictures: list[Path], models: list[list[str]], repeats: int) -> dict:
    """Time one user by himself and all at once, in turn."""
    uploaded = [upload(url, picture) for picture in pictures]

    def ask_as(user: int) -> dict:
        return ask(url, uploaded[user], QUESTIONS[user % len(QUESTIONS)], models[user], f"user{user}")

    def timed(users: range) -> tuple[float, list[dict]]:
        began = time.perf_counter()
        said = list(pool.map(ask_as, users))
        return time.perf_counter() - began, said

    alone, together = [], []
    everybody = range(len(pictures))
    with ThreadPoolExecutor(len(pictures)) as pool:
        singles = [ask_as(user) for user in everybody]
        for repeat in range(repeats + 2):
            user = repeat % len(pictures)
            one, _ = timed(range(user, user + 1))
            all_of_them, said = timed(everybody)
            if repeat >= 2:
                alone.append(one)
                together.append(all_of_them)
    texts = [[[row["answer"] for row in found["answers"]] for found in several] for several in (singles, said)]
    one, several = statistics.median(alone), statistics.median(together)
    return {
        "users": len(pictures), "one_seconds": one, "together_seconds": several, "ratio": several / one,
        "one_runs": alone, "together_runs": together, "same_answers": texts[0] == texts[1],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, default=ROOT / "assets" / "photo-blip2-opt")
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    pictures = sorted((ROOT / "assets" / "photos" / "images").glob("*.jpg"))[: args.users]
    with tempfile.TemporaryDirectory() as folder:
        adapters = {name: Path(folder) / name for name in ("a", "b")}
        for seed, place in enumerate(adapters.values()):
            write_adapter(args.base, place, seed)
        choices = (["base", "a"], ["base", "b"])
        process, url = start(args.base, adapters)
        try:
            found = measure(url, pictures, [choices[user % 2] for user in range(args.users)], args.repeats)
        finally:
            process.terminate()
            process.wait(60)
    found |= circumstances(torch.device("cpu")) | {
        "base": args.base.name, "exit_code": process.returncode, "command": f"python {' '.join(sys.argv)}",
    }  # fmt: skip

    args.output.write_text(json.dumps(found, indent=2) + "\n")
    print(
        f"one user: {found['one_seconds']:.2f} s; {args.users} at once: {found['together_seconds']:.2f} s, "
        f"{found['ratio']:.1f} times as long; same answers: {found['same_answers']}"
    )


if __name__ == "__main__":
    main()
