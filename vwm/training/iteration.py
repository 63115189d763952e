"""One iteration of some runs together: trials, the way forward and back; on a GPU recorded once and replayed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vwm.model.losses import error_loss
from vwm.model.network import (
    Simulation,
    draw_spikes,
    noise_law,
    prepare,
    simulate,
    simulate_prepared,
)
from vwm.model.recurrence import POOL
from vwm.model.task import Trials, draw_trials
from vwm.training.random_streams import iteration_stream
from vwm.training.training_run import TrainingRun, use_matmul_precision
from vwm.training.workers import Workers


@dataclass(frozen=True)
class Computed:
    """What came of one iteration of a run.

    Attributes:
        measured: the vector of `TrainingRun.measure`.
        was_finite: whether the step was taken, since loss and gradients were finite; None where it is still to be
            taken, from the gradients that are in place.
    """

    measured: Tensor
    was_finite: bool | None = None


class Batches:
    """Runs of one pack, in the batches that are computed together, for as long as the pack is trained."""

    def __init__(self, workers: Workers) -> None:
        """Nothing is recorded yet."""
        self._workers = workers
        self._too_many: float = float("inf")  # runs that the memory did not hold together
        self._may_record = workers.device.type == "cuda" and workers.size == 1
        self._recorded: dict[tuple[int, ...], Recorded] = {}
        self._computed_once: set[tuple[int, ...]] = set()

    def iterate(self, runs: Sequence[TrainingRun]) -> list[Computed]:
        """One iteration of each of these runs."""
        computed: dict[int, Computed] = {}
        for batch in self._divided(runs):
            computed |= self._iterate_together(batch)
        return [computed[id(run)] for run in runs]

    def _divided(self, runs: Sequence[TrainingRun]) -> list[list[TrainingRun]]:
        """The runs that are computed together.

        On a GPU they are one batched computation for each law of the noise and precision. On a CPU batching gains
        nothing, and one by one each run's arithmetic is to the last bit what it is when the run is trained alone.
        """
        if not self._workers.batch_packs:
            return [[run] for run in runs]
        batches: dict[tuple[str, ...], list[TrainingRun]] = {}
        for run in runs:
            configuration = run.configuration
            kind = (*noise_law(configuration.model_params), configuration.training_params.matmul_precision)
            batches.setdefault(kind, []).append(run)
        return list(batches.values())

    def _iterate_together(self, runs: Sequence[TrainingRun]) -> dict[int, Computed]:
        """One iteration of runs in one computation, or in halves for as long as the memory does not hold them together.

        Nothing is lost by a second try: the random numbers of an iteration do not depend on what was drawn before.
        """
        if len(runs) < self._too_many:
            try:
                return self._recorded_or_not(runs)
            except torch.OutOfMemoryError:
                if len(runs) == 1 and not self._recorded:
                    raise
            # Outside of the handler, whose traceback would keep the tensors of the failed try alive.
            if self._recorded:
                self._may_record = False  # It may be what the graphs hold that is missing now.
            else:
                self._too_many = len(runs)
            self._recorded.clear()
            POOL.clear()
            if self._workers.device.type == "cuda":
                torch.cuda.empty_cache()
            return self._iterate_together(runs)
        half = len(runs) // 2
        return self._iterate_together(runs[:half]) | self._iterate_together(runs[half:])

    def _recorded_or_not(self, runs: Sequence[TrainingRun]) -> dict[int, Computed]:
        key = tuple(id(run) for run in runs)
        if self._may_record and key in self._computed_once and key not in self._recorded and can_be_recorded(runs):
            # A graph that shares a run with these is of a time when the pack was larger.
            self._recorded = {other: graph for other, graph in self._recorded.items() if not set(other) & set(key)}
            self._recorded[key] = Recorded(runs)
        if key in self._recorded:
            return dict(zip(key, self._recorded[key].iterate(), strict=True))
        self._computed_once.add(key)
        vectors = backward(runs, self._workers.rank)
        return {at: Computed(vector) for at, vector in zip(key, vectors, strict=True)}


def backward(runs: Sequence[TrainingRun], rank: int) -> list[Tensor]:
    """Put the gradients of this iteration into the networks, one batch of trials each, all in one computation.

    Returns:
        What `TrainingRun.measure` makes of it, a vector a run.
    """
    use_matmul_precision(runs[0].configuration)
    streams, trials = _draw(runs, rank)
    trials = [batch.to(run.device) for run, batch in zip(runs, trials, strict=True)]
    compile = runs[0].configuration.worth_compiling
    return _go_back(runs, trials, simulate([run.network for run in runs], trials, streams, compile=compile))


def _draw(runs: Sequence[TrainingRun], rank: int, ahead: int = 0) -> tuple[list[torch.Generator], list[Trials]]:
    """The trials of an iteration, this one or one ahead, and the streams that its spikes come from."""
    streams = [iteration_stream(run.configuration.training_params.seed, run.iteration + ahead, rank) for run in runs]
    return streams, [
        draw_trials(run.configuration.model_params, run.set_size, stream)
        for run, stream in zip(runs, streams, strict=True)
    ]


def _go_back(runs: Sequence[TrainingRun], trials: Sequence[Trials], simulation: Simulation) -> list[Tensor]:
    losses = [
        _losses(run, simulation, index, batch) for index, (run, batch) in enumerate(zip(runs, trials, strict=True))
    ]
    for run in runs:
        run.optimizer.zero_grad()
    torch.stack([total for total, _ in losses]).sum().backward()  # type: ignore[no-untyped-call]
    return [
        run.measure(total, error, simulation.mean_rate[index], simulation.readout[:, index], batch)
        for index, (run, batch, (total, error)) in enumerate(zip(runs, trials, losses, strict=True))
    ]


def _losses(run: TrainingRun, simulation: Simulation, index: int, trials: Trials) -> tuple[Tensor, Tensor]:
    """Total loss and error loss of one run."""
    training = run.configuration.training_params
    error = error_loss(training.error_def, simulation.readout[:, index], trials).mean()
    return training.lambda_err * error + training.lambda_reg * simulation.mean_rate[index].mean(), error


def can_be_recorded(runs: Sequence[TrainingRun]) -> bool:
    """Whether an iteration of these runs is the same computation every time: not with torch's gamma sampler."""
    prepared = prepare([run.network for run in runs], runs[0].configuration.worth_compiling)
    return not prepared.spikes.by_torch


class Recorded:
    """The iteration of some runs on one GPU, with the step of the optimiser, as a CUDA graph.

    Python takes longer to launch the hundreds of small kernels of an iteration than the GPU takes to run them. The
    graph launches them at once; beside it there are the draws of the next iteration, made on the CPU meanwhile, and
    one vector that comes back. A run whose loss or gradient is not finite is left as it was.
    """

    def __init__(self, runs: Sequence[TrainingRun]) -> None:
        """Record an iteration without computing it. At least one was computed by `backward` and `update` before,
        which makes the state of the optimiser and loads what cannot be loaded while recording.

        Raises:
            torch.OutOfMemoryError: the memory does not hold it beside what is there.
        """
        use_matmul_precision(runs[0].configuration)
        self.runs = list(runs)
        networks = [run.network for run in runs]
        device = runs[0].device
        streams, trials = _draw(runs, 0)
        self._next: tuple[list[int], tuple[Tensor, ...]] | None = None
        prepared = prepare(networks, runs[0].configuration.worth_compiling)
        self._draws = len(prepared.spikes.keys)
        self._inputs = tuple(tensor.to(device) for tensor in self._stacked(streams, trials))
        present, angle, encoded, keys = self._inputs
        prepared = replace(prepared, spikes=replace(prepared.spikes, keys=keys))
        static = [
            Trials(run.set_size.to(device), *rest) for run, *rest in zip(runs, present, angle, encoded, strict=True)
        ]
        self._learning_rates = [torch.tensor(run.learning_rate, device=device) for run in runs]
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            measured = _go_back(runs, static, simulate_prepared(networks, static, prepared))
            finite = [
                (vector[0].isfinite() & run.gradients_are_finite()) for run, vector in zip(runs, measured, strict=True)
            ]
            for run, rate, flag in zip(runs, self._learning_rates, finite, strict=True):
                run.take_step(rate, skip=1 - flag.float())
            self._output = torch.stack(
                [torch.cat([vector, flag[None].double()]) for vector, flag in zip(measured, finite, strict=True)]
            )

    def iterate(self) -> list[Computed]:
        """Compute an iteration of every run and take its step, but do not count it; what is measured is on the CPU."""
        now = [run.iteration for run in self.runs]
        inputs = (
            self._next[1] if self._next is not None and self._next[0] == now else self._stacked(*_draw(self.runs, 0))
        )
        for place, value in zip(self._inputs, inputs, strict=True):
            place.copy_(value)
        for rate, run in zip(self._learning_rates, self.runs, strict=True):
            rate.fill_(run.learning_rate)
        self._graph.replay()
        self._next = [iteration + 1 for iteration in now], self._stacked(*_draw(self.runs, 0, ahead=1))
        return [Computed(row[:-1], bool(row[-1])) for row in self._output.cpu()]

    def _stacked(self, streams: Sequence[torch.Generator], trials: Sequence[Trials]) -> tuple[Tensor, ...]:
        """What changes from iteration to iteration: items present, angles, encoded angles, keys of the spikes."""
        columns = ([getattr(batch, name) for batch in trials] for name in ("present", "angle", "encoded"))
        return *(torch.stack(column) for column in columns), draw_spikes(self._draws, streams)
