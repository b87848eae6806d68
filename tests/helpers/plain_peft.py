"""Adapters made, merged and measured by plain PEFT, beside which our own are held."""

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import Blip2ForConditionalGeneration

LAYERS = "language_model.model.decoder.layers"


NAMES = [f"{LAYERS}.{layer}.{name}" for layer in (0, 1) for name in ("self_attn.q_proj", "self_attn.out_proj", "fc1")]


def base_model(base):
    return Blip2ForConditionalGeneration.from_pretrained(base, dtype=torch.float32)


def peft_adapter(base, folder, seed=0, **config):
    """An adapter by PEFT alone, of random weights → (folder, its model)."""
    torch.manual_seed(seed)
    given = {"r": 4, "lora_alpha": 8, "target_modules": NAMES} | config
    model = get_peft_model(base_model(base), LoraConfig(**given))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0.0, 0.3)
    model.save_pretrained(folder)
    return folder, model


def dense_by_peft(model) -> dict[str, torch.Tensor]:
    """Module → what PEFT says that its adapter adds."""
    return {
        name.removeprefix("base_model.model."): module.get_delta_weight("default").detach()
        for name, module in model.named_modules()
        if hasattr(module, "get_delta_weight")
    }


def changes(base, folder) -> dict[str, torch.Tensor]:
    """Weight → what plain PEFT changes of it when it merges the adapter into the base: nothing of ours takes part."""
    before = {name: weight.detach().clone() for name, weight in base_model(base).named_parameters()}
    model = PeftModel.from_pretrained(base_model(base), folder).merge_and_unload()
    moved = {name: weight.detach() - before[name] for name, weight in model.named_parameters()}
    return {name.removesuffix(".weight"): change for name, change in moved.items() if change.any()}


def assert_close(found: torch.Tensor, wanted: torch.Tensor, tolerance: float = 1e-5) -> None:
    assert (found - wanted).norm() <= tolerance * wanted.norm()
