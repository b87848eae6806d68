"""What this machine's accelerator is, and which numbers it computes with."""

import platform
import shutil
import subprocess

import torch

from blip2vqa.models.loading import find_device


def describe() -> dict:
    """Name, driver, versions and memory of the card; of a CPU its name, and no memory of its own."""
    device = find_device()
    found = {"device": str(device), "torch": torch.__version__, "python": platform.python_version()}
    found |= {"cuda": torch.version.cuda, "hip": torch.version.hip, "bfloat16": has_bfloat16(device)}
    found |= {"capability": None, "driver": None, "memory_bytes": None, "free_bytes": None}
    found["name"] = f"{platform.processor() or platform.machine()} (CPU in place of an accelerator)"
    if device.type == "cuda":
        found["name"] = torch.cuda.get_device_name(device)
        found["capability"] = ".".join(map(str, torch.cuda.get_device_capability(device)))
        found["driver"] = _nvidia_driver(device.index)
    elif device.type != "cpu":
        found["name"] = f"{device.type.upper()} of {platform.processor() or platform.machine()}"
    if device.type in ("cuda", "xpu"):
        found["free_bytes"], found["memory_bytes"] = torch.accelerator.get_memory_info(device)
    return found


def _nvidia_driver(index: int) -> str | None:
    """The driver's version as nvidia-smi says it; None where there is no such program."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    asked = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return next(iter(done.stdout.split()), None) if done.returncode == 0 else None


def still_computes(device: torch.device) -> bool:
    """Whether the device computes after an error: some leave it of no use to this process."""
    try:
        return torch.ones(2, device=device).sum().item() == 2
    except RuntimeError:
        return False


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 by itself, and does not only imitate it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        one = torch.ones(2, 2, dtype=torch.bfloat16, device=device)
        return bool((one @ one).sum().item() == 8)
    except (RuntimeError, TypeError):
        return False


def compute_exactly() -> None:
    """Let float32 be float32: convolutions of cuDNN are in TF32 by default, whose numbers have 10 bits."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
