"""The processes that train a run together: one when started alone, several under torchrun."""

import os

import torch
import torch.distributed as dist
from torch import Tensor


class WorkerLostError(Exception):
    """Another process of this run died or cannot be reached; the checkpoint is as good as before."""


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
        local_rank = int(os.environ.get("LOCAL_RANK", 0))
        self.device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
        if self.device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
            # One core per network is the fastest use of a machine, and results do not depend on how many it has.
            torch.set_num_threads(1)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
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
        """Replace each tensor by its sum over all processes, in place.

        Raises:
            WorkerLostError: another process is gone.
        """
        if self.size == 1:
            return
        try:
            for tensor in tensors:
                dist.all_reduce(tensor)
        except (RuntimeError, dist.DistError) as error:
            raise WorkerLostError(str(error)) from error

    def wait_for_all(self) -> None:
        """Return once every process has come here."""
        self.add_up(torch.zeros(1, device=self.device))

    def leave(self) -> None:
        """Take leave of the group, so that no process prints a complaint about another's absence."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()
