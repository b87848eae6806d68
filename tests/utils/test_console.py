"""How a script ends."""

import torch.distributed as dist

from blip2vqa.utils.console import run_script


def test_a_script_that_is_done_has_left_its_process_group(tmp_path):
    seen = []

    def main():
        dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
        seen.append(dist.is_initialized())

    run_script(main)
    assert seen == [True]
    assert not dist.is_initialized()
