"""Plain attention: what torch's own gives, forward and backward, in both language models."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from blip2vqa.data.examples import Example
from blip2vqa.models.attention import MATMUL, InPlaceGELU, matmul_attention
from blip2vqa.models.loading import load_base
from blip2vqa.training.collators import TrainingCollator
from helpers.tiny_blip2 import GivenFeatures


def test_it_is_torchs_own():
    query, key, value = (torch.randn(2, 3, 7, 8, dtype=torch.float64, requires_grad=True) for _ in range(3))
    seen = torch.ones(7, 7, dtype=torch.bool).tril()
    added = torch.zeros(2, 1, 7, 7, dtype=torch.float64).masked_fill(~seen, torch.finfo(torch.float64).min)
    expected = scaled_dot_product_attention(query, key, value, attn_mask=added, scale=0.3)
    ours, _ = matmul_attention(None, query, key, value, added, scaling=0.3)
    torch.testing.assert_close(ours.transpose(1, 2), expected)
    weight = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * weight).sum(), (query, key, value))
    got = torch.autograd.grad((ours.transpose(1, 2) * weight).sum(), (query, key, value))
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("tokens_per_row", [None, 512])
def test_a_model_loaded_for_training_computes_the_same(tiny_base, tokens_per_row):
    examples = [
        Example(row, None, "ab"[row % 2], "ab"[row % 2], "Is it red?"[: 3 + 2 * row], ("yes",), "other", {})
        for row in range(4)
    ]
    logits = []
    for for_training in (False, True):
        loaded = load_base(
            str(tiny_base), dtype="float32", quantization="none", device=torch.device("cpu"), for_training=for_training
        )
        assert (loaded.base.language_model.config._attn_implementation == MATMUL) == for_training
        text = loaded.family.text_encoder(loaded.processor, loaded.base.config, "Question: {question} Answer:")
        features = GivenFeatures("ab", torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(0)))
        rows = None if text.seq2seq else tokens_per_row
        batch = TrainingCollator(text, features, rows)([(example, "yes") for example in examples])
        batch.pop("labels")
        with torch.no_grad():
            logits.append(loaded.model(**batch).logits)
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_picture_is_encoded_as_upstream_does(tiny_base, dtype):
    loaded = load_base(str(tiny_base), dtype=dtype, quantization="none", device=torch.device("cpu"))
    vit = loaded.base.vision_model
    assert (vit.config._attn_implementation == MATMUL) == (dtype == "bfloat16"), "the default where that is no slower"
    size = vit.config.image_size
    pixels = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0)).to(loaded.dtype)
    with torch.inference_mode():
        ours = vit(pixel_values=pixels).last_hidden_state
        plain = type(vit)(vit.config).to(loaded.dtype).eval()
        plain.load_state_dict(vit.state_dict())
        plain.set_attn_implementation("sdpa")
        upstream = plain(pixel_values=pixels).last_hidden_state
    torch.testing.assert_close(ours, upstream, rtol=0.02, atol=0.02 if dtype == "bfloat16" else 0)


def test_gelu_overwrites_only_what_no_gradient_needs():
    x = torch.linspace(-3, 3, 20, requires_grad=True)
    expected = torch.nn.functional.gelu(x)
    said = InPlaceGELU()(x)
    said.sum().backward()
    (grad,) = torch.autograd.grad(expected.sum(), x)
    assert torch.equal(x.grad, grad) and torch.equal(said, expected)
    given = x.detach().clone()
    assert InPlaceGELU()(given) is given and torch.equal(given, expected)


def test_cudnns_kernel_is_off_for_training_alone(tiny_base):
    torch.backends.cuda.enable_cudnn_sdp(True)
    options = {"dtype": "float32", "quantization": "none", "device": torch.device("cpu")}
    load_base(str(tiny_base), **options)
    assert torch.backends.cuda.cudnn_sdp_enabled()
    load_base(str(tiny_base), **options, for_training=True)
    assert not torch.backends.cuda.cudnn_sdp_enabled()
