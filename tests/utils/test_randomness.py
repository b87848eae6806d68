"""Random numbers on the way leave those that come later as they are, and other GPUs alone."""

import warnings

import torch

from blip2vqa import load
from blip2vqa.utils.randomness import own_random_state

CPU = torch.device("cpu")


def test_it_begins_with_its_seed_and_leaves_nothing_behind():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with own_random_state(CPU, seed=5):
        inside = torch.rand(2)
    torch.testing.assert_close(torch.rand(2), expected)
    torch.manual_seed(5)
    torch.testing.assert_close(inside, torch.rand(2))


def test_no_gpu_beside_is_touched(tiny_opt, drawn, write, monkeypatch):
    """On a machine with several GPUs torch would warn, and begin to use each; here that fails, since there are none."""
    style = write("drawn.json", '{"prompt": "a photo of", "do_sample": true}')
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = load(str(tiny_opt), dtype="float32", quantization="none")
        assert model.compare_styles(drawn[0] / "0.png", [style])
