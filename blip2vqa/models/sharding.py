"""A frozen language model whose blocks the processes of a machine share, by FSDP2: whole only while they compute.

The adapter is put on afterwards. Its small weights stay whole in every process, and train as they do without sharding.
"""

import warnings

import torch
from accelerate import PartialState
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from blip2vqa.utils.distributed import processes_here


def shard(model: nn.Module, language_model: nn.Module, device: torch.device) -> int:
    """Move a loaded base to its device, each block of its language model divided among this machine's processes (in place).

    Embeddings, norms and the output head stay whole: of opt-2.7b they are 5%. Returns how many blocks there are.
    """
    # torch says it of every model whose blocks end in `view`; no language model writes into what a block returns.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
    mesh, names = _mesh(device), {*language_model._no_split_modules}
    blocks = {name: module for name, module in language_model.named_modules() if type(module).__name__ in names}
    for block in blocks.values():  # one at a time: a card never holds them all
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    # A stack of blocks knows which comes next, and gathers it while the one before computes.
    for name in dict.fromkeys(name.rpartition(".")[0].rpartition(".")[0] for name in blocks):
        stack = language_model.get_submodule(name)
        whole = {weight for weight in stack.parameters() if not isinstance(weight, DTensor)}
        fully_shard(stack, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
    for block in blocks.values():  # the first time it makes the tensors that it fills, which inference mode would spoil
        block.unshard()
        block.reshard()
    for tensor in (*model.parameters(), *model.buffers()):
        if not isinstance(tensor, DTensor):
            tensor.data = tensor.data.to(device)
    return len(blocks)


def _mesh(device: torch.device) -> DeviceMesh:
    """Return the processes of this machine: between machines, gathering a base anew in every step takes too long."""
    here = processes_here()
    shape, names = (PartialState().num_processes // here, here), ("dp_replicate", "fsdp")
    return init_device_mesh(device.type, shape, mesh_dim_names=names)["fsdp"]


def replicate(model: nn.Module, device: torch.device, **options) -> DistributedDataParallel:
    """Wrap a model with a sharded base, so that the gradients of its adapter are averaged over all processes.

    `options`: of `DistributedDataParallel`, which is to leave the base alone.
    """
    frozen = [name for name, weight in model.named_parameters() if not weight.requires_grad]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, frozen)
    devices = None if device.type == "cpu" else [device.index]
    return DistributedDataParallel(model, device_ids=devices, **options)
