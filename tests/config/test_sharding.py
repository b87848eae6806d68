"""What of FSDP and ZeRO-3 is refused, before anything is loaded."""

import os

import pytest
from accelerate.utils.deepspeed import HfDeepSpeedConfig

from blip2vqa.config.sharding import FSDP, ZERO3, Sharding, refuse_sharding, sharding_of_deepspeed, sharding_of_launch
from blip2vqa.training.checks import check
from blip2vqa.utils.errors import InputError
from helpers.finetune_runs import make_run
from helpers.tiny_families import make_vilt

ASKED = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "LOCAL_WORLD_SIZE": "2"}


@pytest.fixture
def launched(monkeypatch):
    """Say in the environment what a launch asks for."""

    def launched(**environment: str) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        sharding_of_launch.cache_clear()

    yield launched
    sharding_of_launch.cache_clear()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"FSDP_VERSION": "1"}, "version 1 is not supported; set fsdp_version: 2"),
        ({"FSDP_OFFLOAD_PARAMS": "true"}, "set fsdp_offload_params: false"),
        ({"FSDP_ACTIVATION_CHECKPOINTING": "true"}, "--activation_checkpointing true instead"),
        ({"FSDP_RESHARD_AFTER_FORWARD": "false"}, "without resharding"),
        ({"LOCAL_WORLD_SIZE": "1"}, "give --num_processes 2 or more"),
        ({"WORLD_SIZE": "6", "GROUP_WORLD_SIZE": "2"}, "2 of 6 processes on this one of 2 machines"),
    ],
)
def test_a_launch_that_cannot_be_had_is_one_line(changed, said, launched):
    launched(**ASKED | changed)
    [problem] = sharding_of_launch().problems
    assert said in problem


def test_upstream_does_not_see_it_and_it_is_remembered(launched):
    launched(**ASKED)
    assert sharding_of_launch().kind == FSDP and "ACCELERATE_USE_FSDP" not in os.environ
    assert sharding_of_launch().kind == FSDP
    with pytest.raises(InputError, match="answers by a whole base in each process"):
        refuse_sharding("inference.py answers")
    launched()
    assert sharding_of_launch().kind is None
    refuse_sharding("inference.py answers")
    launched(ACCELERATE_USE_DEEPSPEED="true", ACCELERATE_DEEPSPEED_ZERO_STAGE="3")
    with pytest.raises(InputError, match=r"ZeRO-3: .* answers by a whole base in each process"):
        refuse_sharding("inference.py answers")


def test_deepspeeds_configuration_asks_for_it(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    stage = {"zero_optimization": {"stage": 3}}
    assert sharding_of_deepspeed(HfDeepSpeedConfig({"zero_optimization": {"stage": 2}})) == Sharding(None)
    assert sharding_of_deepspeed(HfDeepSpeedConfig(stage)) == Sharding(ZERO3)
    monkeypatch.setenv("WORLD_SIZE", "1")
    stage["zero_optimization"]["offload_param"] = {"device": "cpu"}
    offloaded, alone = sharding_of_deepspeed(HfDeepSpeedConfig(stage)).problems
    assert "set offload_param and offload_optimizer to none" in offloaded and "--num_processes 2" in alone


@pytest.mark.parametrize("kind", [FSDP, ZERO3])
def test_what_a_shared_base_cannot_do_is_said_at_once(kind, tiny_opt, drawn, tmp_path):
    flags = ["--tokens_per_batch", "64", "--torch_compile", "true", "--quantization", "4bit", "--use_dora", "true"]
    run = make_run(tiny_opt, drawn, tmp_path, *flags, "--init_lora_weights", "pissa")
    run.training.sharding, run.training.fp16 = Sharding(kind), True
    with pytest.raises(InputError) as raised:
        check(run)
    begun = ["--tokens_per_batch", "--torch_compile", "--quantization", "--use_dora", "--init_lora_weights pissa"]
    for flag in begun:
        assert any(problem.startswith(f"{flag}: ") and kind in problem for problem in raised.value.problems), flag
    assert any(problem.startswith("--fp16: not with") for problem in raised.value.problems) == (kind == ZERO3)


def test_a_family_without_a_language_model_of_its_own_is_not_shared(launched, drawn, tmp_path):
    launched(**ASKED)
    with pytest.raises(InputError, match="FSDP: ViLT is small, and is not sharded"):
        check(make_run(make_vilt(tmp_path / "vilt"), drawn, tmp_path / "out"))
