"""A family that the package does not have, in one file: it is registered, trained, asked, kept and checked like the others."""

import json

import pytest
import torch
from torch import nn
from transformers import AutoConfig, BlipProcessor, OPTConfig, OPTForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from blip2vqa import load
from blip2vqa.exchange import check
from blip2vqa.models import layer_names
from blip2vqa.models.families import FAMILIES, families, register
from blip2vqa.models.family import LANGUAGE_MODEL, PIXEL_STAGE, Family, Part, Stage, leave_out
from blip2vqa.models.loading import load_config
from blip2vqa.training.recipe import finetune
from blip2vqa.utils.errors import InputError
from helpers.finetune_runs import adapter_of, make_run
from helpers.tiny_blip2 import make_tokenizer
from helpers.tiny_families import IMAGE_SIZE, make_image_processor

WORDS = 4  # as many embeddings as a picture becomes


class StripesConfig(PreTrainedConfig):
    """Of a picture cut into `WORDS` stripes, each one linear step away from the language model's embeddings."""

    model_type = "stripes"
    sub_configs = {"text_config": OPTConfig}  # noqa: RUF012 (as upstream has it)

    def __init__(self, text_config=None, image_size: int = IMAGE_SIZE, **kwargs):
        self.text_config = OPTConfig(**text_config) if isinstance(text_config, dict) else text_config or OPTConfig()
        self.image_size = image_size
        super().__init__(**kwargs)


class StripesModel(PreTrainedModel):
    """`pixel_values` → one linear layer → `image_embeds`, in front of the words → OPT → logits of the words."""

    config_class = StripesConfig
    main_input_name = "pixel_values"
    _supports_sdpa = True

    def __init__(self, config, absent: tuple[str, ...] = ()):
        super().__init__(config)
        self.eye = nn.Linear(3 * config.image_size**2 // WORDS, config.text_config.hidden_size)
        self.language_model = OPTForCausalLM(config.text_config)
        self.post_init()
        leave_out(self, absent)

    def get_input_embeddings(self):
        return self.language_model.get_input_embeddings()

    def get_output_embeddings(self):
        return self.language_model.get_output_embeddings()

    def encode(self, pixel_values=None, image_embeds=None):
        """`image_embeds` [images, WORDS, hidden] from either of the two."""
        return self.eye(pixel_values.reshape(len(pixel_values), WORDS, -1)) if image_embeds is None else image_embeds

    def generation_inputs(self, image_embeds, input_ids, attention_mask):
        words = self.get_input_embeddings()(input_ids)
        seen = attention_mask.new_ones(image_embeds.shape[:2])
        return {
            "inputs_embeds": torch.cat([image_embeds.to(words.dtype), words], dim=1),
            "attention_mask": torch.cat([seen, attention_mask], dim=1),
        }

    def forward(
        self, input_ids, attention_mask, keep=None, labels=None, pixel_values=None, image_embeds=None, **kwargs
    ):
        inputs = self.generation_inputs(self.encode(pixel_values, image_embeds), input_ids, attention_mask)
        decoder = self.language_model.get_decoder()
        hidden = decoder(**inputs, use_cache=False, **kwargs).last_hidden_state[:, WORDS:]
        return CausalLMOutput(logits=self.get_output_embeddings()(hidden if keep is None else hidden[keep]))


class StripesFamily(Family):
    """All that the package has to know of it."""

    name = "Stripes with OPT"
    model_type = "stripes"
    kind = "opt"
    model_class = StripesModel
    processor_class = BlipProcessor
    parts = (
        Part("eye", ("eye",), "vision", when_adapted="the eye is adapted"),
        Part(LANGUAGE_MODEL, ("language_model",), "language_model", layer_names.OPT),
    )
    stages = (
        Stage(
            "image_embeds", ("eye",), "the eye is frozen, so what it sees stays",
            lambda config: (WORDS, config.text_config.hidden_size),
        ),
        PIXEL_STAGE,
    )  # fmt: skip
    kept_whole = ("eye", "lm_head")
    language_prefix = "language_model."
    tower_configs = ()


def test_it_is_unknown_before_it_is_registered(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "stripes"}')
    with pytest.raises(InputError):
        load_config(str(tmp_path))
    assert "Stripes with OPT" not in families()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A random base on disk, known to transformers and to the package while this module runs."""
    families()
    AutoConfig.register("stripes", StripesConfig)
    register(StripesFamily)
    folder, tokenizer = tmp_path_factory.mktemp("stripes") / "base", make_tokenizer(seq2seq=False)
    text = OPTConfig(
        vocab_size=len(tokenizer), hidden_size=64, ffn_dim=128, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, word_embed_proj_dim=64, dropout=0.0, bos_token_id=2, pad_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = StripesModel(StripesConfig(text))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.1)
    model.save_pretrained(folder)
    BlipProcessor(make_image_processor(), tokenizer).save_pretrained(folder)
    yield folder
    del FAMILIES["Stripes with OPT"]
    CONFIG_MAPPING._extra_content.pop("stripes")


@pytest.fixture(scope="module")
def run(base, drawn, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    store = ("--feature_cache", str(folder / "features"))
    metrics = finetune(
        make_run(base, drawn, folder / "run", *store, "--epochs", "3", "--eval_strategy", "no", "--save_strategy", "no")
    )
    return folder, metrics


def test_it_learns_and_its_manifest_says_what_it_is(run, base):
    folder, metrics = run
    assert metrics["adapter"]["accuracy"] > metrics["base"]["accuracy"]
    assert all(".language_model." in name for name in adapter_of(folder / "run"))
    manifest = json.loads((folder / "run" / "blip2vqa.json").read_text())
    assert manifest["family"] == "Stripes with OPT" and manifest["base_model_id"] == str(base)
    assert manifest["end_token"] == "</s>" and manifest["roles"] == ["q", "k", "v", "o", "up", "down"]
    assert manifest["base"]["parts"].keys() == {"eye", "language_model", "token_embeddings"}


def test_its_adapter_answers_as_it_did_when_it_was_trained(run, drawn):
    rows = [line.split(",") for line in (run[0] / "run" / "predictions.csv").read_text().splitlines()[1:]]
    model = load(run[0] / "run", dtype="float32")
    said = model.answer_batch([drawn[0] / row[0] for row in rows], [row[1] for row in rows])
    assert [answer.text for answer in said] == [row[5] for row in rows]


def test_its_features_are_kept_and_found_again(run, base, drawn, tmp_path, capsys):
    (space,) = (run[0] / "features").glob("*/space.json")
    assert json.loads(space.read_text())["stage"] == "image_embeds"
    assert json.loads(space.read_text())["shape"] == [WORDS, 64]
    once = ("--max_steps", "1", "--eval_strategy", "no", "--feature_cache", str(run[0] / "features"))
    finetune(make_run(base, drawn, tmp_path / "again", *once))
    assert "image_embeds of 12 images, 0 of them new: the eye is frozen" in capsys.readouterr().out
    eye = ("--lora_scope", "vision", "--max_steps", "1", "--eval_strategy", "no", "--save_strategy", "no")
    finetune(make_run(base, drawn, tmp_path / "eye", *eye))
    assert "the eye is adapted" in capsys.readouterr().out
    assert {name.split(".lora_")[0] for name in adapter_of(tmp_path / "eye")} == {"base_model.model.eye"}


def test_an_adapter_of_it_is_checked(run, base, tiny_opt):
    found = check(str(run[0] / "run"), str(base))
    assert (found["verdict"], found["move"], set(found["parts"].values())) == ("ok", "exact", {"same"})
    assert any(reason.startswith("run: it moves the logits") for reason in found["reasons"])
    other = check(str(run[0] / "run"), str(tiny_opt), quick=True)
    assert (other["verdict"], other["move"]) == ("convertible", "copy")
