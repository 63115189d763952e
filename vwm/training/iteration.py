"""One iteration of some runs together: trials, the way forward and back; on a GPU recorded once and replayed."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from vwm.model.losses import error_loss
from vwm.model.network import Prepared, draw_spikes, draws_by_torch, noise_law, prepare, simulate_prepared
from vwm.model.recurrence import POOL
from vwm.model.task import Trials, draw_numbers, trials_from
from vwm.training.random_streams import iteration_stream
from vwm.training.training_run import TrainingRun, are_finite, measure, use_matmul_precision
from vwm.training.workers import Workers


@dataclass(frozen=True)
class Computed:
    """What came of one iteration of a run.

    Attributes:
        measured: the row of `measure`.
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
        self._stream = torch.cuda.Stream() if self._may_record else None  # type: ignore[no-untyped-call]
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

        On a GPU they are one batched computation for each law of the noise and way to compute. On a CPU batching gains
        nothing, and one by one each run's arithmetic is to the last bit what it is when the run is trained alone.
        """
        if not self._workers.batch_packs:
            return [[run] for run in runs]
        batches: dict[tuple[object, ...], list[TrainingRun]] = {}
        for run in runs:
            configuration = run.configuration
            way = configuration.training_params.matmul_precision, configuration.worth_compiling
            kind = (*noise_law(configuration.model_params), *way)
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

    @contextmanager
    def _on_own_stream(self) -> Iterator[None]:
        """Compute on the stream that is recorded, where one may be, before and after all that is on the usual one."""
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            yield
        torch.cuda.current_stream().wait_stream(self._stream)

    def _recorded_or_not(self, runs: Sequence[TrainingRun]) -> dict[int, Computed]:
        key = tuple(id(run) for run in runs)
        is_new = key not in self._recorded and key in self._computed_once
        if self._stream is not None and self._may_record and is_new and can_be_recorded(runs):
            # A graph that shares a run with these is of a time when the pack was larger.
            self._recorded = {other: graph for other, graph in self._recorded.items() if not set(other) & set(key)}
            try:
                self._recorded[key] = Recorded(runs, self._stream)
            except RuntimeError as error:  # The memory does not hold it beside what is there, or a driver refuses.
                self._may_record = False
                reason = str(error).splitlines()[0]
                print(f"Training goes on without a CUDA graph, more slowly: {reason}", file=sys.stderr)
        if key in self._recorded:
            return dict(zip(key, self._recorded[key].iterate(), strict=True))
        self._computed_once.add(key)
        with self._on_own_stream():
            rows = backward(runs, self._workers.rank)
        return {at: Computed(row) for at, row in zip(key, rows, strict=True)}


def backward(runs: Sequence[TrainingRun], rank: int) -> Tensor:
    """Put the gradients of this iteration into the networks, one batch of trials each, all in one computation.

    Returns:
        What `measure` makes of it, a row a run.
    """
    use_matmul_precision(runs[0].configuration)
    prepared = prepare([run.network for run in runs], runs[0].configuration.worth_compiling)
    streams, numbers, keys = _draw(runs, rank, prepared.draws)
    trials = trials_from(_set_sizes(runs), numbers.to(runs[0].device), _encoding_noise(runs))
    return _go_back(runs, trials, prepared.with_keys(keys, streams))


def _draw(
    runs: Sequence[TrainingRun], rank: int, draws: int, ahead: int = 0
) -> tuple[list[torch.Generator], Tensor, Tensor]:
    """The random numbers of an iteration, this one or one ahead, on the CPU.

    Returns:
        The streams that they come from, the numbers that trials are made from, [3, members, trials, M], and the keys of
        so many draws of spikes, [draws, members, 2].
    """
    streams = [iteration_stream(run.configuration.training_params.seed, run.iteration + ahead, rank) for run in runs]
    numbers = [
        draw_numbers(run.configuration.model_params, len(run.set_size), stream)
        for run, stream in zip(runs, streams, strict=True)
    ]
    return streams, torch.stack(numbers, dim=1), draw_spikes(draws, streams)


def _set_sizes(runs: Sequence[TrainingRun]) -> Tensor:
    """[members, trials]"""
    return torch.stack([run.set_size for run in runs]).to(runs[0].device)


def _encoding_noise(runs: Sequence[TrainingRun]) -> Tensor:
    """[members, 1, 1], radians."""
    noise = [run.configuration.model_params.ILC_noise for run in runs]
    return torch.tensor(noise, device=runs[0].device)[:, None, None]


def _go_back(runs: Sequence[TrainingRun], trials: Trials, prepared: Prepared) -> Tensor:
    simulation = simulate_prepared([run.network for run in runs], trials, prepared)
    errors = _error_losses(runs, simulation.readout, trials)
    factors = torch.stack([run.loss_factors for run in runs])
    losses = factors[:, 0] * errors + factors[:, 1] * simulation.mean_rate.mean(-1)
    for run in runs:
        run.optimizer.zero_grad()
    losses.sum().backward()  # type: ignore[no-untyped-call]
    return measure(losses, errors, simulation.mean_rate, simulation.readout, trials)


def _error_losses(runs: Sequence[TrainingRun], readout: Tensor, trials: Trials) -> Tensor:
    """The error loss of each run, [members], by its own definition."""
    kinds = [run.configuration.training_params.error_def for run in runs]
    if len(set(kinds)) == 1:
        return error_loss(kinds[0], readout, trials).mean(-1)
    losses: dict[int, Tensor] = {}
    for kind in sorted(set(kinds)):
        members = [index for index, other in enumerate(kinds) if other == kind]
        some = torch.stack([readout[:, index] for index in members], dim=1)
        losses |= dict(zip(members, error_loss(kind, some, trials.of(members)).mean(-1), strict=True))
    return torch.stack([losses[index] for index in range(len(runs))])


def can_be_recorded(runs: Sequence[TrainingRun]) -> bool:
    """Whether an iteration of these runs is the same computation every time: not with torch's gamma sampler."""
    return not draws_by_torch(runs[0].network, runs[0].configuration.worth_compiling)


class Recorded:
    """The iteration of some runs on one GPU, with the step of the optimiser, as a CUDA graph.

    Python takes longer to launch the hundreds of small kernels of an iteration than the GPU takes to run them. The
    graph launches them at once; beside it there are the draws of the next iteration, made on the CPU meanwhile, and
    one vector that comes back. A run whose loss or gradient is not finite is left as it was.
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
        self.runs = list(runs)
        device = runs[0].device
        prepared = prepare([run.network for run in runs], runs[0].configuration.worth_compiling)
        self._draws = prepared.draws
        _, numbers, keys = _draw(runs, 0, self._draws)
        self._inputs = numbers.to(device), keys.to(device)
        self._next: tuple[list[int], tuple[Tensor, Tensor]] | None = None
        self._known_rates = [run.learning_rate for run in runs]
        self._learning_rates = torch.tensor(self._known_rates, device=device)
        set_sizes, encoding_noise = _set_sizes(runs), _encoding_noise(runs)
        # The graph reads these where they are, and does not keep them.
        self._constants = prepared, set_sizes, encoding_noise
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=stream):
            trials = trials_from(set_sizes, self._inputs[0], encoding_noise)
            measured = _go_back(runs, trials, prepared.with_keys(self._inputs[1]))
            finite = are_finite(runs, measured)
            for run, rate, skip in zip(runs, self._learning_rates, (~finite).float(), strict=True):
                run.take_step(rate, skip)
            self._output = torch.cat([measured, finite[:, None].double()], dim=1)

    def iterate(self) -> list[Computed]:
        """Compute an iteration of every run and take its step, but do not count it; what is measured is on the CPU."""
        now = [run.iteration for run in self.runs]
        if self._next is None or self._next[0] != now:
            self._next = now, _draw(self.runs, 0, self._draws)[1:]
        for place, value in zip(self._inputs, self._next[1], strict=True):
            place.copy_(value)
        rates = [run.learning_rate for run in self.runs]
        if rates != self._known_rates:
            self._known_rates = rates
            self._learning_rates.copy_(torch.tensor(rates))
        self._graph.replay()
        self._next = [iteration + 1 for iteration in now], _draw(self.runs, 0, self._draws, ahead=1)[1:]
        rows = self._output.cpu()  # waits for the graph
        return [Computed(row, flag > 0) for row, flag in zip(rows[:, :-1], rows[:, -1].tolist(), strict=True)]
