"""How fast packs of different sizes train on this machine."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from vwm.config import Configuration
from vwm.model.recurrence import POOL
from vwm.training.batches import Batches
from vwm.training.training_run import TrainingRun
from vwm.training.workers import Workers, use_own_device

_MOST = 64
_WARM_UP = 3  # iterations: the first compiles, and the second is recorded on a GPU
_TIMED = 10


@dataclass(frozen=True)
class PackSpeed:
    """What a pack does.

    Attributes:
        runs: how many runs it has.
        iterations_per_second: of all its runs together.
        gib: the most memory of the GPU that it needed; 0 on a CPU.
    """

    runs: int
    iterations_per_second: float
    gib: float


def card() -> str | None:
    """The name of the GPU that training would use here; None where there is none."""
    return torch.cuda.get_device_name() if use_own_device().type == "cuda" else None


def pack_speeds(configuration: Configuration, worth_doubling: float, most: int = _MOST) -> Iterator[PackSpeed]:
    """Train packs of 1, 2, 4, … runs like this one for a few iterations each, as long as twice as many do more in all.

    Args:
        configuration: of a run; the others have other seeds.
        worth_doubling: so many times the iterations in all are called more.
        most: runs of the largest pack.
    """
    before = 0.0
    runs = 1
    while runs <= most:
        try:
            speed = _speed(configuration, runs)
        except torch.OutOfMemoryError:
            return
        yield speed
        if speed.iterations_per_second < worth_doubling * before:
            return
        before = speed.iterations_per_second
        runs *= 2


def _speed(configuration: Configuration, count: int) -> PackSpeed:
    workers = Workers()
    is_on_gpu = workers.device.type == "cuda"
    POOL.clear()
    if is_on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    training = configuration.training_params
    runs = [
        TrainingRun(
            configuration.model_copy(update={"training_params": training.model_copy(update={"seed": seed})}),
            workers.device,
        )
        for seed in range(count)
    ]
    batches = Batches(workers)
    iterate(runs, batches, _WARM_UP)
    _wait_for(workers.device)
    start = time.perf_counter()
    done = iterate(runs, batches, _TIMED)
    _wait_for(workers.device)
    seconds = time.perf_counter() - start
    gib = torch.cuda.max_memory_allocated() / 2**30 if is_on_gpu else 0.0
    return PackSpeed(count, done / seconds, gib)


def iterate(runs: Sequence[TrainingRun], batches: Batches, count: int) -> int:
    """Train runs until the first has done so many iterations, in one process and with nothing saved.

    Returns:
        How many all have done together: where the memory does not hold the pack in one, its parts may do more or fewer.
    """
    by_first = of_all = 0

    def go_on() -> bool:
        return by_first < count

    while by_first < count:
        for run, computed in batches.iterate(runs, go_on):
            computed.count(run, 1)
            by_first += run is runs[0]
            of_all += 1
    return of_all


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
