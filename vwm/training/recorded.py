"""Iterations of some runs on a GPU, recorded once as a CUDA graph and replayed without waiting for their results.

What one iteration decides for the next (whether its step is taken, the step size, early stopping) is decided on the
GPU, so that the CPU launches iterations ahead and learns of their results later. The CPU then decides the same once
more, from the same numbers: what it counts is what the GPU has done.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from vwm.model.network import draws_by_torch, prepare
from vwm.model.task import trials_from
from vwm.training.iteration import Computed, draw, encoding_noise, go_back, set_sizes
from vwm.training.optimizer import ENOUGH, SMALLEST
from vwm.training.training_run import TrainingRun, are_finite, use_matmul_precision

_AHEAD = 4  # iterations that are launched before the result of the first of them is waited for
_MOST = 100  # iterations that are launched in one go: so long a run that has ended may stay in the graph


def can_be_recorded(runs: Sequence[TrainingRun]) -> bool:
    """Whether an iteration of these runs is the same computation every time: not with torch's gamma sampler."""
    return not draws_by_torch(runs[0].network, runs[0].configuration.worth_compiling)


class Course:
    """Step size and early stopping of some runs, decided by tensors: what `TrainingRun.count` decides by numbers.

    Attributes:
        step_size: [members], float64.
        goes_on: whether a run has not ended, be it early or by a number that is not finite, [members].
    """

    def __init__(self, runs: Sequence[TrainingRun]) -> None:
        """The runs as they are now."""
        device = runs[0].device
        settings = [run.configuration.training_params for run in runs]
        self._patience = torch.tensor(
            [[each.adaptive_lr_patience, each.early_stop_patience] for each in settings],
            dtype=torch.float64,
            device=device,
        ).T
        state = torch.zeros(5, len(runs), dtype=torch.float64, device=device)
        self._state = state
        self.step_size, self._best_of_schedule, self._bad, self._best, self._since_best = state.unbind(0)
        self.goes_on = torch.ones(len(runs), dtype=torch.bool, device=device)
        self.begin(runs)

    def begin(self, runs: Sequence[TrainingRun]) -> None:
        """Go on from where the runs are now, in the same tensors."""
        state = [
            (run.learning_rate, run.scheduler.best, run.scheduler.bad, run.best_loss, run.patience) for run in runs
        ]
        self._state.copy_(torch.tensor(state, dtype=torch.float64).T)
        self.goes_on.fill_(True)

    def advance(self, loss: Tensor, was_finite: Tensor) -> None:
        """Count an iteration, in place.

        Args:
            loss: of each run, [members], float64.
            was_finite: whether its loss and gradients were finite, [members].
        """
        is_better = loss < self._best_of_schedule * ENOUGH
        self._best_of_schedule.copy_(torch.where(is_better, loss, self._best_of_schedule))
        bad = torch.where(is_better, 0, self._bad + 1)
        is_over = bad > self._patience[0]
        self._bad.copy_(torch.where(is_over, 0, bad))
        half = self.step_size / 2
        self.step_size.copy_(torch.where(is_over & (half > SMALLEST), half, self.step_size))
        is_lowest = loss < self._best
        self._best.copy_(torch.where(is_lowest, loss, self._best))
        self._since_best.copy_(torch.where(is_lowest, 0, self._since_best + 1))
        self.goes_on.logical_and_(was_finite).logical_and_(self._since_best < self._patience[1])


class _Slot:
    """Memory of the CPU, from which and to which a GPU copies while both go on, for one of the iterations under way."""

    def __init__(self, *shapes: Tensor) -> None:
        self.numbers, self.keys, self.output = (
            torch.empty(like.shape, dtype=like.dtype, pin_memory=True) for like in shapes
        )
        self.is_done = torch.cuda.Event()  # type: ignore[no-untyped-call]


class Recorded:
    """An iteration of some runs on one GPU, with the step of the optimiser, as a CUDA graph.

    Python takes longer to launch the hundreds of small kernels of an iteration than the GPU takes to run them; the
    graph launches them at once. A run whose loss or gradient is not finite is left as it was, and so is one that has
    ended, for as long as it is in the graph.
    """

    def __init__(self, runs: Sequence[TrainingRun], stream: torch.cuda.Stream) -> None:
        """Record an iteration without computing it.

        Args:
            runs: at least one iteration of them was computed by `backward` and `update` before, which makes the
                gradients and loads what cannot be loaded while recording.
            stream: on which `backward` was called: gradients go to the stream that they were first computed on.

        Raises:
            RuntimeError: it cannot be recorded, for lack of memory or since the driver refuses.
        """
        use_matmul_precision(runs[0].configuration)
        self._runs = list(runs)
        device = runs[0].device
        prepared = prepare([run.network for run in runs], runs[0].configuration.worth_compiling)
        self._draws = prepared.draws
        _, numbers, keys = draw(runs, [run.iteration for run in runs], 0, self._draws)
        self._numbers, self._keys = numbers.to(device), keys.to(device)
        self._course = Course(runs)
        sizes, noise = set_sizes(runs), encoding_noise(runs)
        # The graph reads these where they are, and does not keep them.
        self._constants = prepared, sizes, noise
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=stream):
            trials = trials_from(sizes, self._numbers, noise)
            measured = go_back(runs, trials, prepared.with_keys(self._keys))
            was_finite = are_finite(runs, measured)
            skip = (~(was_finite & self._course.goes_on)).float()
            for run, step_size, skipped in zip(runs, self._course.step_size.float(), skip, strict=True):
                run.take_step(step_size, skipped)
            self._course.advance(measured[:, 0], was_finite)
            self._output = torch.cat([measured, was_finite[:, None].double()], dim=1)
        self._slots = [_Slot(self._numbers, self._keys, self._output) for _ in range(_AHEAD)]

    def iterate(self, go_on: Callable[[], bool]) -> Iterator[tuple[TrainingRun, Computed]]:
        """Compute iterations of every run until one of them has something to save, and take their steps.

        They are given back in their order, and the last one when all are done; counting them is left to the caller. A
        run that has ended is left as it is then, and what still comes of it means nothing.

        Args:
            go_on: asked after each is launched; no more are when it says False.
        """
        start = [run.iteration for run in self._runs]
        count = max(1, min(_MOST, *(run.iterations_to_save for run in self._runs)))
        self._course.begin(self._runs)
        launched = 0
        while launched < count:
            self._launch([iteration + launched for iteration in start], self._slots[launched % _AHEAD])
            launched += 1
            if not go_on():
                break
            if launched < count and launched >= _AHEAD:
                yield from self._results(self._slots[launched % _AHEAD])
        for number in range(max(0, launched - _AHEAD), launched):
            yield from self._results(self._slots[number % _AHEAD])

    def _launch(self, iterations: Sequence[int], slot: _Slot) -> None:
        _, numbers, keys = draw(self._runs, iterations, 0, self._draws)
        slot.numbers.copy_(numbers)
        slot.keys.copy_(keys)
        self._numbers.copy_(slot.numbers, non_blocking=True)
        self._keys.copy_(slot.keys, non_blocking=True)
        self._graph.replay()
        slot.output.copy_(self._output, non_blocking=True)
        slot.is_done.record()

    def _results(self, slot: _Slot) -> Iterator[tuple[TrainingRun, Computed]]:
        slot.is_done.synchronize()
        rows = slot.output.clone()  # A caller may keep a row for longer than the slot is its own.
        for run, row, flag in zip(self._runs, rows[:, :-1], rows[:, -1].tolist(), strict=True):
            yield run, Computed(row, flag > 0)
