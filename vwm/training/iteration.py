"""One iteration of some runs together: trials, the way forward and back."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vwm.model.losses import error_loss
from vwm.model.network import Prepared, draw_spikes, prepare, simulate_prepared
from vwm.model.task import Trials, draw_numbers, trials_from
from vwm.training.random_streams import iteration_stream
from vwm.training.training_run import TrainingRun, measure, use_matmul_precision


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

    def count(self, run: TrainingRun, processes: int) -> bool:
        """Take the step, unless that was done with it, and count the iteration.

        Args:
            run: that was computed.
            processes: how many of them `measured` is the sum of.

        Returns:
            False, with nothing changed, if the loss or a gradient is not finite.
        """
        if self.was_finite is None:
            return run.update(self.measured, processes)
        if self.was_finite:
            run.count(self.measured, processes)
        return self.was_finite


def backward(runs: Sequence[TrainingRun], rank: int) -> Tensor:
    """Put the gradients of this iteration into the networks, one batch of trials each, all in one computation.

    Returns:
        What `measure` makes of it, a row a run.
    """
    use_matmul_precision(runs[0].configuration)
    prepared = prepare([run.network for run in runs], runs[0].configuration.worth_compiling)
    streams, numbers, keys = draw(runs, [run.iteration for run in runs], rank, prepared.draws)
    trials = trials_from(set_sizes(runs), numbers.to(runs[0].device), encoding_noise(runs))
    return go_back(runs, trials, prepared.with_keys(keys, streams))


def draw(
    runs: Sequence[TrainingRun], iterations: Sequence[int], rank: int, draws: int
) -> tuple[list[torch.Generator], Tensor, Tensor]:
    """The random numbers of an iteration of each run, on the CPU.

    Args:
        runs: of one pack.
        iterations: how many each has done before this one.
        rank: of this process.
        draws: of spikes in a trial.

    Returns:
        The streams that they come from, the numbers that trials are made from, [3, members, trials, M], and the keys of
        so many draws of spikes, [draws, members, 2].
    """
    streams = [
        iteration_stream(run.configuration.training_params.seed, iteration, rank)
        for run, iteration in zip(runs, iterations, strict=True)
    ]
    numbers = [
        draw_numbers(run.configuration.model_params, len(run.set_size), stream)
        for run, stream in zip(runs, streams, strict=True)
    ]
    return streams, torch.stack(numbers, dim=1), draw_spikes(draws, streams)


def set_sizes(runs: Sequence[TrainingRun]) -> Tensor:
    """Of every trial, [members, trials]."""
    return torch.stack([run.set_size for run in runs]).to(runs[0].device)


def encoding_noise(runs: Sequence[TrainingRun]) -> Tensor:
    """`ILC_noise` of each run, [members, 1, 1], radians."""
    noise = [run.configuration.model_params.ILC_noise for run in runs]
    return torch.tensor(noise, device=runs[0].device)[:, None, None]


def go_back(runs: Sequence[TrainingRun], trials: Trials, prepared: Prepared) -> Tensor:
    """As `backward`, with trials and noise that were drawn before."""
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
