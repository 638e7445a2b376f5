"""Several processes that train one network: who this process is, and sums over all of them."""

import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Parallel:
    """This process among those that `torchrun` started; by default the only one.

    The processes hold equal networks and equal optimizers: each takes its part of a batch, the gradients are
    summed over all, and every one takes the same step. Sums go through one buffer, so that a step costs one
    message however many parameters there are.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    # whether this object began the process group and has to end it
    owner: bool = False

    @property
    def first(self) -> bool:
        """Whether this process writes the files and speaks to the person."""
        return self.rank == 0

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes."""
        if self.world == 1 or not tensors:
            return
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        sizes = [tensor.numel() for tensor in tensors]
        for tensor, part in zip(tensors, flat.split(sizes), strict=True):
            tensor.detach().copy_(part.view(tensor.shape))

    def any(self, value: bool) -> bool:
        """Whether it is true in any process."""
        if self.world == 1:
            return value
        flag = torch.tensor(float(value), device=self.device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag.item())

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.world > 1:
            dist.barrier()

    def close(self) -> None:
        if self.owner:
            dist.destroy_process_group()


def join(device: str | torch.device | None = None) -> Parallel:
    """Join the processes of `torchrun`, over nccl on GPUs and gloo on CPUs; alone without it.

    Args:
        device: None is the GPU of this process's local rank where there is one, and the CPU otherwise.

    Raises:
        ValueError: a device that is not there.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device is None:
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        found = torch.device("cuda", local % count) if count else torch.device("cpu")
    else:
        try:
            found = torch.device(device)
        except RuntimeError as error:
            raise ValueError(f"unknown device {device!r}: {error}") from error
        if found.type == "cuda" and found.index is None:
            found = torch.device("cuda", local)
    if found.type not in ("cpu", "cuda"):
        raise ValueError(f"training runs on cpu or cuda, got device {str(device)!r}")
    if found.type == "cuda" and (
        not torch.cuda.is_available() or (found.index or 0) >= torch.cuda.device_count()
    ):
        raise ValueError(f"there is no device {found}: {torch.cuda.device_count()} CUDA devices are here")
    if world == 1 and not (dist.is_available() and dist.is_initialized()):
        return Parallel(device=found)
    if found.type == "cuda":
        torch.cuda.set_device(found)
    owner = not dist.is_initialized()
    if owner:
        # what an optimizer imports keeps the group that there is by then: its threads would outlive
        # `close`, and now and then abort the process at its end
        importlib.import_module("torch._dynamo")
        dist.init_process_group("nccl" if found.type == "cuda" else "gloo")
    return Parallel(dist.get_rank(), dist.get_world_size(), found, owner)
