"""Options that Trainer would refuse in the middle of a run are refused before it, and nothing is drawn for that."""

import pytest
import torch

from blip2vqa.training.trainer_options import check_trainer
from blip2vqa.utils.errors import InputError
from helpers.finetune_runs import parse_run


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--optim galore_adamw", "--optim, --optim_args"),
        ("--optim_args nonsense", "--optim, --optim_args"),
        ("--adam_beta1 2", "Invalid beta"),
        ("--lr_scheduler_type cosine_with_min_lr", "min_lr"),
        ('--lr_scheduler_kwargs {"nonsense":1}', "nonsense"),
        ('--lr_scheduler_type cosine_with_restarts --lr_scheduler_kwargs {"num_cycles":"x"}', "--lr_scheduler_kwargs"),
        ("--dataloader_persistent_workers true", "--dataloader_persistent_workers"),
        ("--use_liger_kernel true", "--use_liger_kernel"),
    ],
)
def test_what_would_fail_late_is_refused(flags, said):
    with pytest.raises(InputError) as caught:
        check_trainer(parse_run("--output_dir", "x", "--use_cpu", *flags.split()).training)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("flags", ["", "--optim adafactor", "--lr_scheduler_type reduce_lr_on_plateau"])
def test_what_works_passes_without_a_draw(flags):
    before = torch.get_rng_state()
    check_trainer(parse_run("--output_dir", "x", "--use_cpu", *flags.split()).training)
    assert torch.equal(torch.get_rng_state(), before)
