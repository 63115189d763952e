"""The final evaluation: a trained network on fixed trials, the same for every run of a task."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vwm.config import Configuration
from vwm.errors import UserError
from vwm.files import write_atomically
from vwm.model.losses import absolute_error, decoded_angle
from vwm.model.network import Network, simulate
from vwm.model.task import draw_trials
from vwm.training import checkpoint
from vwm.training.progress import ProgressDisplay
from vwm.training.random_streams import evaluation_stream
from vwm.training.run_folder import RunFolder
from vwm.training.training_run import use_matmul_precision
from vwm.training.workers import Workers

TRIALS_PER_SET_SIZE = 2000
_BATCH = 500  # bounds the memory: the rates of one batch at a time


@dataclass(frozen=True)
class Evaluation:
    """Responses of a network, M = max_item_num locations.

    Attributes:
        set_size: [trials].
        target, response: [trials, M], radians in [-π, π), NaN where no item was shown.
        abs_error: [trials], the mean |error| over a trial's items, radians.
        mean_rate: [trials], over steps and units, Hz.
    """

    set_size: NDArray[np.int16]
    target: NDArray[np.float32]
    response: NDArray[np.float32]
    abs_error: NDArray[np.float64]
    mean_rate: NDArray[np.float64]


@torch.no_grad()
def evaluate(
    network: Network,
    set_sizes: tuple[int, ...],
    go_on: Callable[[int, int], bool] = lambda done, total: True,
    *,
    compile: bool = False,
) -> Evaluation | None:
    """Run `TRIALS_PER_SET_SIZE` trials of each set size through the network.

    Args:
        network: on any device.
        set_sizes: which to evaluate.
        go_on: called with the number of batches done and to do before each; False ends the evaluation.
        compile: as for `simulate`.

    Returns:
        The responses, or None if `go_on` ended it.
    """
    device = network.tau.device
    batches = [(size, batch) for size in set_sizes for batch in range(TRIALS_PER_SET_SIZE // _BATCH)]
    parts: list[tuple[torch.Tensor, ...]] = []
    for done, (size, batch) in enumerate(batches):
        if not go_on(done, len(batches)):
            return None
        stream = evaluation_stream(size, batch)
        trials = draw_trials(network.params, torch.full((_BATCH,), size), stream).to(device)
        simulation = simulate([network], [trials], [stream], compile=compile)
        readout = simulation.readout[:, 0]
        parts.append(
            (
                trials.set_size,
                torch.where(trials.present, trials.angle, torch.nan),
                torch.where(trials.present, decoded_angle(readout), torch.nan),
                absolute_error(readout, trials).double(),
                simulation.mean_rate[0].double(),
            )
        )
    set_size, target, response, error, rate = (torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True))
    # atan2 may give +π, which is -π in the half-open interval of the responses.
    response[response >= np.float32(np.pi)] = -np.float32(np.pi)
    return Evaluation(set_size.astype(np.int16), target, response, error, rate)


def write_result(
    folder: RunFolder, evaluation: Evaluation, configuration: Configuration, iterations: int, ended_by: str
) -> dict[str, Any]:
    """Write responses.npz and then result.json, whose presence says that the run is finished; returns the result."""
    write_responses(folder.responses, evaluation)
    result = summarise(evaluation, configuration, iterations, ended_by)
    write_atomically(folder.result, json.dumps(result, indent=1) + "\n")
    return result


def write_responses(path: Path, evaluation: Evaluation) -> None:
    """Write the responses as an npz file, atomically."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        allow_pickle=False,
        set_size=evaluation.set_size,
        target=evaluation.target,
        response=evaluation.response,
    )
    write_atomically(path, buffer.getvalue())


def summarise(evaluation: Evaluation, configuration: Configuration, iterations: int, ended_by: str) -> dict[str, Any]:
    """The result as plain numbers: errors in radians and rates in Hz, a value a set size."""
    sizes = configuration.model_params.item_num
    rows = [evaluation.set_size == size for size in sizes]
    return {
        "run_id": configuration.run_id,
        "name": configuration.name,
        "iterations": iterations,
        "ended_by": ended_by,
        "set_size": list(sizes),
        "trials": [int(row.sum()) for row in rows],
        "mean_abs_error": [float(evaluation.abs_error[row].mean()) for row in rows],
        "sd_abs_error": [float(evaluation.abs_error[row].std()) for row in rows],
        "mean_rate": [float(evaluation.mean_rate[row].mean()) for row in rows],
    }


def evaluate_folder(folder: RunFolder) -> dict[str, Any]:
    """Evaluate the latest checkpoint of a run; writes its result only if its training has ended.

    Raises:
        UserError: the folder is no run's, or there is no checkpoint yet.
    """
    if not folder.config.exists():
        raise UserError(f"{folder.path}: expected a run's folder, which holds config.yaml.")
    workers = Workers()
    content = checkpoint.read_checkpoint(folder, workers.device)
    if content is None:
        raise UserError(f"{folder.path}: there is no checkpoint yet. Train this run first: vwm train {folder.path}")
    run, _ = checkpoint.open_run(folder, workers.device, content["processes"], writes=False)
    params = run.configuration.model_params
    use_matmul_precision(run.configuration)

    with ProgressDisplay(shown=True) as display:
        display.begin(folder.path, 0, 1)

        def go_on(done: int, total: int) -> bool:
            display.advance(folder.path, done, total, None, None)
            return True

        evaluation = evaluate(run.network, params.item_num, go_on, compile=run.configuration.worth_compiling)
    assert evaluation is not None
    if run.ended_by is None:
        return summarise(evaluation, run.configuration, run.iteration, "not ended")
    return write_result(folder, evaluation, run.configuration, run.iteration, run.ended_by)
