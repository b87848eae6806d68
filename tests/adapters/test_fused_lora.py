"""The fused LoRA layer: PEFT's own outputs and gradients, dropout included, and PEFT's own code where it does more."""

import bitsandbytes
import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear
from peft.tuners.lora.bnb import Linear4bit, Linear8bitLt
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


def nn4bit():
    layer = bitsandbytes.nn.Linear4bit(64, 64, compute_dtype=torch.float32, quant_type="nf4")
    layer.support_avx512bf16_for_cpu = False  # as for training
    return layer


def nn8bit():
    return bitsandbytes.nn.Linear8bitLt(64, 64, has_fp16_weights=False)


def gradients(model, x, cast=None):
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", cast, enabled=cast is not None):
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


def apart(one, other) -> float:
    """The norm of a difference, as a share of the other's."""
    return ((one.double() - other.double()).norm() / other.double().norm()).item()


@pytest.fixture
def never_pefts(monkeypatch):
    """No LoRA layer of this process may compute by PEFT's code, once it is called."""

    def forbid():
        def refuse(*args, **kwargs):
            raise AssertionError("PEFT's own layer was used")

        for kind in (Linear, Linear4bit, Linear8bitLt):
            monkeypatch.setattr(kind, "forward", refuse)

    return forbid


@pytest.mark.parametrize("cast", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_autocast_gives_what_it_gives_pefts_layers(dtype, cast, never_pefts):
    """The same types, and outputs and gradients that differ by a unit in the last place or two of the coarser type.

    They are about as far from float64's as PEFT's are.
    """
    plain, fused = pair(dtype)
    true = pair(dtype)[0].double()
    x = torch.randn(64, 24, generator=torch.Generator().manual_seed(1)).to(dtype)
    wanted, exact = gradients(plain, x, cast), gradients(true, x.double())
    never_pefts()
    found = gradients(fused, x, cast)
    tables = [{"output": output, "input": grad, **weights} for output, grad, weights in (found, wanted, exact)]
    assert tables[0].keys() == tables[1].keys() == tables[2].keys() and len(tables[0]) == 6
    for name, ours in tables[0].items():
        theirs, right = tables[1][name], tables[2][name]
        assert ours.dtype == theirs.dtype == {"output": cast, "input": dtype}.get(name, torch.float32)
        assert apart(ours, theirs) < 2 * max(torch.finfo(cast).eps, torch.finfo(dtype).eps)
        assert apart(ours, right) < 1.5 * apart(theirs, right)


def test_float16_with_a_gradient_scaler_trains_as_float32():
    """With autocast, which accelerate brings with the scaler, and without: gradients within float16's rounding."""
    _, wanted = pair(torch.float16)
    wanted, x = wanted.float(), torch.randn(64, 24, generator=torch.Generator().manual_seed(1)).half()
    _, _, expected = gradients(wanted, x.float())
    for cast in (None, torch.float16):
        _, fused = pair(torch.float16)
        trained = {name: weight for name, weight in fused.named_parameters() if weight.requires_grad}
        scaler, optimizer = torch.amp.GradScaler("cpu", init_scale=2.0**10), torch.optim.SGD(trained.values(), lr=0.1)
        with torch.autocast("cpu", cast, enabled=cast is not None):
            output = fused(x)
        before = {name: weight.detach().clone() for name, weight in trained.items()}
        scaler.scale((output.float() ** 2).mean()).backward()
        scaler.unscale_(optimizer)
        for name, weight in trained.items():
            assert weight.grad.dtype == torch.float32 and apart(weight.grad, expected[name] / output.numel()) < 3e-3
        scaler.step(optimizer)
        assert all(not torch.equal(weight, before[name]) for name, weight in trained.items())


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [nn4bit, nn8bit])
def test_autocast_over_a_quantized_layer_gives_what_it_gives_pefts(kind, dtype, never_pefts):
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        body = nn.Sequential(kind()).requires_grad_(False).to("cpu")
        model = get_peft_model(body, LoraConfig(r=4, lora_alpha=6, target_modules=["0"]))
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                nn.init.normal_(parameter, std=0.1)
        models.append(model)
    assert fuse(models[1]) == 1
    x = torch.randn(32, 64).to(dtype)
    wanted = gradients(models[0], x, torch.bfloat16)
    never_pefts()
    output, grad, weights = gradients(models[1], x, torch.bfloat16)
    assert len(weights) == 2
    for ours, theirs in (
        (output, wanted[0]),
        (grad, wanted[1]),
        *((weights[name], wanted[2][name]) for name in weights),
    ):
        assert ours.dtype == theirs.dtype and apart(ours, theirs) < torch.finfo(torch.bfloat16).eps


@pytest.mark.parametrize(
    "dora, fused, said",
    [
        (False, True, "12 fused"),
        (True, True, "12 of PEFT's own code: DoRA needs them"),
        (False, False, "12 of PEFT's own code: a compiler traces them"),
    ],
)
def test_a_run_says_whose_layers_it_uses(dora, fused, said, tiny_opt):
    from blip2vqa.adapters.lora import wrap
    from blip2vqa.config.common import LoraArguments
    from blip2vqa.models.loading import load_base

    loaded = load_base(str(tiny_opt), dtype="float32", quantization="none", device=torch.device("cpu"))
    lines = wrap(loaded, LoraArguments(lora_r=4, use_dora=dora), seed=0, fused=fused).lines()
    assert ("LoRA layers", said) in lines
