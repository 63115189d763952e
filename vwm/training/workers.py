"""The processes that train a run together: one when started alone, several under torchrun."""

import ctypes
import os
import sys
from typing import NoReturn

import torch
import torch.distributed as dist
from torch import Tensor


class WorkerLostError(Exception):
    """Another process of this run died or cannot be reached; the checkpoint is as good as before."""


def use_own_device() -> torch.device:
    """The GPU that torchrun gave this process, or the first one; one core of the CPU where there is none."""
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
        return device
    if "OMP_NUM_THREADS" not in os.environ:
        # One core per network is the fastest use of a machine, and results do not depend on how many it has.
        torch.set_num_threads(1)
    _keep_freed_memory()
    return torch.device("cpu")


def _keep_freed_memory() -> None:
    """Let each iteration take the memory that the last one has freed.

    Left to itself, the malloc of Linux gives blocks of a megabyte back to the system, and every iteration then waits
    for fresh pages.
    """
    change = getattr(ctypes.CDLL(None), "mallopt", None)
    if change is not None:  # Other systems have another malloc.
        trim_threshold, mmap_threshold = -1, -3  # the names in malloc.h
        change(trim_threshold, 2**30)
        change(mmap_threshold, 2**25)  # the largest it takes


class Workers:
    """This process among those that train the same runs; every rank makes the same calls in the same order.

    `num_trials` is per process. Whatever decides how training goes on is summed over the processes first, so all ranks
    take the same decision at the same step.
    """

    def __init__(self) -> None:
        """Join the group that torchrun describes in the environment, or be alone.

        Raises:
            WorkerLostError: the group did not come together.
        """
        self.rank = int(os.environ.get("RANK", 0))
        self.size = int(os.environ.get("WORLD_SIZE", 1))
        self.device = use_own_device()
        # On a GPU many small networks together cost little more than one.
        self.batch_packs = self.device.type == "cuda"
        if self.size > 1:
            try:
                dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
            except (RuntimeError, dist.DistError) as error:
                raise WorkerLostError(str(error)) from error

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and shows the progress."""
        return self.rank == 0

    def add_up(self, *tensors: Tensor) -> None:
        """Replace each tensor by its sum over all processes, in place; all of them are under way together.

        Raises:
            WorkerLostError: another process is gone.
        """
        if self.size == 1:
            return
        try:
            under_way = [dist.all_reduce(tensor, async_op=True) for tensor in tensors]
            for work in under_way:
                work.wait()
        except (RuntimeError, dist.DistError) as error:
            raise WorkerLostError(str(error)) from error

    def wait_for_all(self) -> None:
        """Return once every process has come here."""
        self.add_up(torch.zeros(1, device=self.device))

    def leave(self) -> None:
        """Take leave of the group where that is of use.

        On CPUs it is not: the sockets close with the process, see ``end_process``.
        """
        if self.size > 1 and dist.is_initialized() and self.device.type == "cuda":
            dist.destroy_process_group()


def end_process(exit_code: int) -> NoReturn:
    """End a process of torchrun's at once, with all that it has written.

    Where one process takes the group apart while it hears that another is gone already, now and then it aborts, and
    torchrun calls a run failed that is finished or properly stopped.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)
