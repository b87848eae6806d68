"""The fused LoRA layer: PEFT's own outputs and gradients, dropout included, and PEFT's own code where it does more."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear
from torch import nn

from blip2vqa.adapters.fused_lora import fuse, keep_mask


def pair(dtype=torch.float32, **config):
    """The same small adapted model twice: as PEFT computes it, and fused."""
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        body = (
            nn.Sequential(nn.Linear(24, 40), nn.ReLU(), nn.Linear(40, 16, bias=False)).to(dtype).requires_grad_(False)
        )
        model = get_peft_model(body, LoraConfig(r=4, lora_alpha=6, target_modules=["0", "2"], **config))
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                nn.init.normal_(parameter, std=0.3)
        models.append(model)
    assert fuse(models[1]) == (0 if config.get("use_dora") else 2)
    return models


def gradients(model, x):
    x = x.clone().requires_grad_()
    output = model(x)
    (output.float() ** 2).sum().backward()
    return output, x.grad, {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("config", [{}, {"use_rslora": True}, {"use_dora": True}])
def test_outputs_and_gradients_are_pefts(config):
    plain, fused = pair(torch.float64, **config)
    x = torch.randn(3, 5, 24, dtype=torch.float64)
    for one, other in zip(gradients(plain, x)[:2], gradients(fused, x)[:2], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    ours = {name: p.grad for name, p in fused.named_parameters() if p.requires_grad}
    for name, parameter in plain.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.abs().max() > 0
            torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-9, atol=1e-9)


def test_dropout_is_pefts_with_the_same_mask(monkeypatch):
    plain, fused = pair(lora_dropout=0.25)
    masks = {}

    def given(shape, p, device=None):
        return masks.setdefault(tuple(shape), -(torch.rand(shape) >= p).to(torch.int8))

    monkeypatch.setattr("blip2vqa.adapters.fused_lora.keep_mask", given)
    monkeypatch.setattr(
        nn.Dropout, "forward",
        lambda self, x: x * -given(x.view(-1, x.shape[-1]).shape, self.p).view(x.shape) / (1 - self.p) if self.training else x,
    )  # fmt: skip
    x = torch.randn(3, 5, 24)
    (output, grad, weights), (output2, grad2, weights2) = gradients(plain, x), gradients(fused, x)
    torch.testing.assert_close(output, output2, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(grad, grad2, rtol=1e-4, atol=1e-4)
    for name, expected in weights.items():
        torch.testing.assert_close(weights2[name], expected, rtol=1e-4, atol=1e-4)
    assert masks and not all(mask.all() for mask in masks.values())
    fused.eval()
    masks.clear()
    fused(x)
    assert not masks


def test_in_bfloat16_the_adapters_gradients_stay_float32():
    plain, fused = pair(torch.bfloat16)
    x = torch.randn(64, 24, dtype=torch.bfloat16)
    (_, _, expected), (output, _, weights) = gradients(plain, x), gradients(fused, x)
    assert output.dtype == torch.bfloat16
    for name, grad in weights.items():
        assert grad.dtype == torch.float32
        assert (grad - expected[name]).norm() < 0.03 * expected[name].norm()


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9])
def test_the_mask_keeps_the_share_asked_for_and_repeats_with_the_seed(p):
    torch.manual_seed(1)
    mask = keep_mask(torch.Size([999, 1001]), p, torch.device("cpu"))
    assert set(mask.unique().tolist()) == {0, -1} and mask.shape == (999, 1001)
    assert -mask.float().mean().item() == pytest.approx(1 - p, abs=3e-3)
    # Neighbours, which share one draw, have nothing to do with each other.
    flat = -mask.flatten().float()
    both = (flat[:-1] * flat[1:]).mean().item()
    assert both == pytest.approx((1 - p) ** 2, abs=3e-3)
    torch.manual_seed(1)
    assert torch.equal(keep_mask(torch.Size([999, 1001]), p, torch.device("cpu")), mask)


def test_what_the_adapter_is_switched_off_for_is_pefts_own():
    _, fused = pair()
    x = torch.randn(2, 24)
    with fused.disable_adapter():
        base = fused(x)
    assert not torch.allclose(base, fused(x))
    assert any(type(module) is Linear for module in fused.modules())
    merged = fused.merge_and_unload()
    torch.testing.assert_close(merged(x), pair()[1](x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_over_a_quantized_base(bits, tiny_opt):
    from blip2vqa.adapters.lora import wrap
    from blip2vqa.config.common import LoraArguments
    from blip2vqa.models.loading import load_base
    from blip2vqa.training.collators import AnswerLoss

    found = []
    for fused in (False, True):
        loaded = load_base(
            str(tiny_opt), dtype="float32", quantization=bits, device=torch.device("cpu"), for_training=True
        )
        wrap(loaded, LoraArguments(lora_r=4, lora_dropout=0.0), seed=0)
        layers = [
            module for module in loaded.model.modules() if "forward" in module.__dict__ and hasattr(module, "lora_A")
        ]
        assert len(layers) == 12
        generator = torch.Generator().manual_seed(0)
        for name, parameter in loaded.model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(0.0, 0.1, generator=generator)
        if not fused:
            for layer in layers:
                del layer.forward
        text = loaded.family.text_encoder(loaded.processor, loaded.base.config, "{question}")
        batch = text.training_batch(["Is the square red?", "Red?"], ["yes", "no"])
        labels = batch.pop("labels")
        batch["keep"] = (labels != -100).roll(-1, dims=1)
        values = torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(1))
        AnswerLoss()(loaded.model(query_output=values, **batch), labels).backward()
        found.append({name: p.grad for name, p in loaded.model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys() and len(found[0]) == 24
    whole = [torch.cat([grad.flatten() for grad in gradients.values()]) for gradients in found]
    assert (whole[0] - whole[1]).norm() < 1e-3 * whole[0].norm()
