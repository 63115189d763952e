"""What a finished run has in Weights & Biases beside numbers: responses, figures, and its checkpoint if asked.

They are sent from the run's folder, and to a server only: in an offline run they would stand beside the originals, and
W&B's client would keep a second copy of a table in the user's home.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vwm.training.run_folder import RunFolder

if TYPE_CHECKING:
    from wandb import Run

TRIALS_PER_SET_SIZE = 50
"""So the table has 2,750 rows, 0.1 MB, where set sizes are 1 to 10, however many trials the evaluation has."""

COLUMNS = ("trial", "set size", "location", "target (rad)", "response (rad)", "error (rad)")


def attach(run: "Run", folder: RunFolder, run_id: str) -> None:
    """Send what a finished run's folder holds to its open W&B run.

    Everything becomes a part of the summary or an artifact, since a row of the history would be one that the run's own
    history lacks.
    """
    import wandb

    run.summary.update({"responses": wandb.Table(columns=list(COLUMNS), data=response_rows(folder.responses))})
    drawn = {f"analysis/{path.stem}": wandb.Image(str(path)) for path in figures(folder)}
    if drawn:
        run.summary.update(drawn)
    if is_checkpoint_wanted():
        artifact = wandb.Artifact(f"checkpoint-{run_id}", type="model")
        # As it is and where it is: the file of a finished run does not change.
        artifact.add_file(str(folder.checkpoint), policy="immutable", skip_cache=True)
        run.log_artifact(artifact)


def is_checkpoint_wanted() -> bool:
    """Whether the environment asks for final checkpoints, with the variable that other programs have for this."""
    return os.environ.get("WANDB_LOG_MODEL", "").lower() not in ("", "false")


def figures(folder: RunFolder) -> list[Path]:
    """The figures that analyses have left in a run's folder."""
    return sorted(folder.path.glob("analysis/*.png"))


def response_rows(responses: Path) -> list[Iterable[Any]]:
    """The first trials of the final evaluation at each set size, a row an item, angles in radians to five digits.

    Args:
        responses: ``responses.npz`` with ``set_size`` [T] and, NaN where no item was shown, ``target`` and
            ``response`` [T, M], radians in [-π, π).
    """
    import numpy as np

    with np.load(responses, allow_pickle=False) as content:
        set_size, target, response = (content[name] for name in ("set_size", "target", "response"))
    trials = np.concatenate([np.flatnonzero(set_size == size)[:TRIALS_PER_SET_SIZE] for size in np.unique(set_size)])
    rows: list[Iterable[Any]] = []
    for trial in trials:
        for location in np.flatnonzero(~np.isnan(target[trial])):
            shown, answer = float(target[trial, location]), float(response[trial, location])
            error = (answer - shown + np.pi) % (2 * np.pi) - np.pi
            numbers = [round(value, 5) for value in (shown, answer, error)]
            rows.append([int(trial), int(set_size[trial]), int(location), *numbers])
    return rows
