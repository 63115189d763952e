"""The complete state of one run in training, and what one iteration does to it. Knows nothing of files."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vwm.config import Configuration
from vwm.model.losses import absolute_error
from vwm.model.network import Network
from vwm.model.task import Trials, equal_shares
from vwm.training.optimizer import Adam, Plateau
from vwm.training.random_streams import initial_network_stream

_TORCHS_PRECISION = {"float32": "highest", "tf32": "high", "bf16": "medium"}


def use_matmul_precision(configuration: Configuration) -> None:
    """Let torch compute matrix products of float32 as this configuration asks, from now on in this process."""
    torch.set_float32_matmul_precision(_TORCHS_PRECISION[configuration.training_params.matmul_precision])


def measure(loss: Tensor, error_loss: Tensor, mean_rate: Tensor, readout: Tensor, trials: Trials) -> Tensor:
    """What one process saw in one iteration of some runs, as sums that add up over processes, in float64.

    Args:
        loss: the total loss of each run, [members].
        error_loss: its error term, before `lambda_err`.
        mean_rate: [members, trials], Hz.
        readout: [decode steps, members, trials, M, 2].
        trials: the batches.

    Returns:
        [members, 3 + 4 M]: loss, error loss and mean rate; and for each set size from 1 to M the number of trials and
        the sums of their errors, squared errors and rates.
    """
    error, rate = absolute_error(readout, trials).double(), mean_rate.double()
    sizes = torch.arange(1, readout.shape[-2] + 1, device=rate.device)
    belongs = (sizes[:, None] == trials.set_size[..., None, :]).double()
    by_set_size = belongs @ torch.stack([torch.ones_like(error), error, error.square(), rate], dim=-1)
    totals = torch.stack([loss.double(), error_loss.double(), rate.mean(-1)], dim=-1)
    return torch.cat([totals, by_set_size.flatten(1)], dim=-1).detach()


def are_finite(runs: Sequence["TrainingRun"], measured: Tensor) -> Tensor:
    """Whether loss and gradients are finite, a bool a run on its device; `measured` as from `measure`."""
    finite = measured[:, 0].isfinite()
    for parameters in zip(*(run.network.parameters() for run in runs), strict=True):
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        finite = finite & torch.stack(gradients).isfinite().flatten(1).all(1)
    return finite


@dataclass
class LoggingWindow:
    """Sums over the iterations since the last row of the history, so that a row never spans two windows."""

    iterations: int = 0
    loss: float = 0.0
    error_loss: float = 0.0
    mean_rate: float = 0.0
    by_set_size: list[list[float]] = field(default_factory=list)  # trials, error, squared error, rate; a list a size


class TrainingRun:
    """Network, optimiser, learning-rate schedule, early stopping and the open logging window of one run."""

    def __init__(self, configuration: Configuration, device: torch.device) -> None:
        """The run before its first iteration."""
        training = configuration.training_params
        self.configuration = configuration
        self.device = device
        self.network = Network(configuration.model_params, initial_network_stream(training.seed)).to(device)
        self.optimizer = Adam(self.network.parameters(), training.eta)
        self.scheduler = Plateau(training.adaptive_lr_patience)
        self.set_size = equal_shares(configuration.model_params.item_num, training.num_trials)
        self.loss_factors = torch.tensor([training.lambda_err, training.lambda_reg], device=device)
        self.iteration = 0  # completed
        self.best_loss = math.inf
        self.patience = 0  # iterations since the best loss
        self.window = self._empty_window()
        self.ended_by: str | None = None if training.train_rnn else "no training"

    def _empty_window(self) -> LoggingWindow:
        return LoggingWindow(by_set_size=[[0.0] * 4 for _ in self.configuration.model_params.item_num])

    @property
    def learning_rate(self) -> float:
        """Adam's present step size."""
        return self.optimizer.learning_rate

    @property
    def row_is_due(self) -> bool:
        """Whether a row of the history is due after the last iteration."""
        return self.iteration % self.configuration.training_params.logging_period == 0 or self.ended_by is not None

    @property
    def kept_checkpoint_is_due(self) -> bool:
        """Whether a numbered checkpoint is due after the last iteration."""
        keep_every = self.configuration.training_params.keep_every
        return keep_every > 0 and self.iteration % keep_every == 0

    @property
    def is_to_be_saved(self) -> bool:
        """Whether a row or a numbered checkpoint is due after the last iteration."""
        return self.row_is_due or self.kept_checkpoint_is_due

    @property
    def iterations_to_save(self) -> int:
        """Iterations until a row or a numbered checkpoint is due, if the run does not stop early."""
        training = self.configuration.training_params
        periods = [period for period in (training.logging_period, training.keep_every) if period > 0]
        return min(training.num_iterations - self.iteration, *(p - self.iteration % p for p in periods))

    # -----------------------------------------------------------------------------------------------------------
    # One iteration
    # -----------------------------------------------------------------------------------------------------------

    def update(self, measured: Tensor, processes: int) -> bool:
        """Take one step of the optimiser, the schedule and early stopping, from gradients that are in place.

        Args:
            measured: the row of `measure`, summed over all processes.
            processes: how many they were.

        Returns:
            False, with nothing changed, if the loss or a gradient is not finite.
        """
        if not bool(are_finite([self], measured[None])):
            return False
        self.take_step()
        self.count(measured, processes)
        return True

    def take_step(self, learning_rate: Tensor | None = None, skip: Tensor | None = None) -> None:
        """Change the weights by the gradients that are in place.

        Args:
            learning_rate: the step size to read when a graph is replayed; if None, that of the run as it is now.
            skip: one number on the GPU, 1 where the weights are to stay as they are.
        """
        longest = self.configuration.training_params.gradient_clipping
        if longest > 0:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), longest)
        self.optimizer.step(learning_rate, skip)
        self.network.project()

    def count(self, measured: Tensor, processes: int) -> None:
        """Count an iteration whose step was taken: its sums, the schedule of the step size, and early stopping.

        Args:
            measured, processes: as for `update`.
        """
        values = measured.tolist()
        loss, error_loss, mean_rate = (value / processes for value in values[:3])
        self.optimizer.learning_rate = self.scheduler.step_size(loss, self.learning_rate)
        self.iteration += 1
        if loss < self.best_loss:
            self.best_loss, self.patience = loss, 0
        else:
            self.patience += 1

        self.window.iterations += 1
        self.window.loss += loss
        self.window.error_loss += error_loss
        self.window.mean_rate += mean_rate
        for size, sums in zip(self.configuration.model_params.item_num, self.window.by_set_size, strict=True):
            for column in range(4):
                sums[column] += values[3 + 4 * (size - 1) + column]

        training = self.configuration.training_params
        if self.patience >= training.early_stop_patience:
            self.ended_by = "early stopping"
        elif self.iteration >= training.num_iterations:
            self.ended_by = "num_iterations"

    def close_window(self) -> dict[str, Any]:
        """The row of the history for the iterations since the last one; a new window begins.

        Errors are the mean over trials of a trial's mean |error|, radians, `sd_abs_error` is their SD over trials,
        and rates are Hz.
        """
        window, self.window = self.window, self._empty_window()
        sizes = self.configuration.model_params.item_num
        trials, error, squares, rate = ([sums[column] for sums in window.by_set_size] for column in range(4))
        mean_error = [total / count for total, count in zip(error, trials, strict=True)]
        variance = [
            max(0.0, square / count - mean**2) for square, count, mean in zip(squares, trials, mean_error, strict=True)
        ]
        return {
            "iteration": self.iteration,
            "loss": window.loss / window.iterations,
            "error_loss": window.error_loss / window.iterations,
            "mean_rate": window.mean_rate / window.iterations,
            "learning_rate": self.learning_rate,
            "patience": self.patience,
            "set_size": list(sizes),
            "mean_abs_error": mean_error,
            "sd_abs_error": [math.sqrt(value) for value in variance],
            "mean_rate_by_set_size": [total / count for total, count in zip(rate, trials, strict=True)],
        }

    # -----------------------------------------------------------------------------------------------------------
    # The state as plain tensors, numbers and lists
    # -----------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next iteration depends on."""
        return {
            "iteration": self.iteration,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "best_loss": self.best_loss,
            "patience": self.patience,
            "window": vars(self.window),
            "ended_by": self.ended_by,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state that `state_dict` gave."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.iteration = state["iteration"]
        self.best_loss = state["best_loss"]
        self.patience = state["patience"]
        self.window = LoggingWindow(**state["window"])
        self.ended_by = state["ended_by"]
