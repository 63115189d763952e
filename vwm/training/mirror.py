"""One of our runs as a run of Weights & Biases. The history in the run's folder is the truth, and this is its mirror.

A row is handed on once, at the W&B step that is its number in the history. Which rows are there already is never
remembered but asked: of the server where there is one, and of the offline runs in the folder where there is none.
So whatever was killed, whenever, the next mirror goes on with the first row that is missing.
"""

import json
import math
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import vwm
from vwm.config import Configuration
from vwm.errors import UserError
from vwm.files import read_json
from vwm.training.attachments import attach
from vwm.training.offline_runs import OfflineRuns, logs, read_offline_runs
from vwm.training.run_folder import RunFolder

Mode = Literal["online", "offline", "disabled"]
MODES: tuple[Mode, ...] = ("online", "offline", "disabled")

Measures = Mapping[str, Sequence[Any]]
"""Measures of a run's responses by set size, column by column; one of the columns is set_size."""

_INIT_TIMEOUT_S = 20.0
_QUIET_S = 5.0  # W&B's helper process writes for up to about three seconds after its trainer was killed

_FIRST = threading.Lock()  # for W&B to start its helper process, of which a process has one


class Mirror:
    """An open W&B run. Everything in it may raise what W&B raises."""

    def __init__(
        self,
        folder: RunFolder,
        configuration: Configuration,
        mode: Mode,
        attempts: Mapping[str, Any],
        finish_timeout_s: float,
        place: Path | None = None,
    ) -> None:
        """Open it, or go on with it.

        Args:
            folder: the run's.
            configuration: of the run, with its id.
            mode: online or offline.
            attempts: facts about attempts, by their names, such as ``attempt_1``.
            finish_timeout_s: how long `leave` waits for a server at most, seconds.
            place: the folder for what W&B's client keeps; the run's, where not given.
        """
        import wandb

        self._folder, self._run_id, self._mode = folder, configuration.run_id, mode
        sweep = sweep_of(folder)
        if mode == "offline":
            earlier = earlier_offline_runs(folder)
        place = place or folder.path
        place.joinpath("wandb").mkdir(exist_ok=True)
        with _FIRST:
            wandb.setup()
        self._run = wandb.init(
            id=configuration.run_id,
            name=configuration.name,
            project=project(),
            group=sweep,
            tags=[sweep] if sweep else None,
            job_type="train",
            dir=place,
            resume="allow",
            reinit="create_new",
            config=describe(configuration, folder) | dict(attempts),
            allow_val_change=True,
            settings=wandb.Settings(
                mode=mode,
                silent=True,
                console="off",
                disable_git=True,
                disable_code=True,
                x_disable_stats=True,
                x_disable_meta=True,
                x_save_requirements=False,
                x_transaction_log_flush_interval=1.0,
                init_timeout=_INIT_TIMEOUT_S,
                finish_timeout=finish_timeout_s,
            ),
        )
        self._run.define_metric("*", step_metric="trainer/step")
        self.path: str = self._run.path
        self.next_row = earlier.next_row if mode == "offline" else self._run.starting_step

    def hand_on(self, first: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Hand on those of these rows that are not there, each as `flat` makes it, with further facts or without.

        Args:
            first: the number of the first of them in the history, from 0.
            rows: consecutive rows that a checkpoint covers.
        """
        for number, row in enumerate(rows, first):
            if number >= self.next_row:
                self._run.log(dict(row), step=number, commit=True)
        self.next_row = max(self.next_row, first + len(rows))

    def summarise(self, measures: Measures) -> None:
        """Write the final summary, and to a server what goes with it.

        After a resume W&B's own summary would still be that of an earlier attempt.
        """
        result = self._folder.read_result()
        assert result is not None
        self._run.summary.update(
            {
                **scalars(measures),
                "iterations": result["iterations"],
                "ended_by": result["ended_by"],
                # As text, since every digit and what is not a number come through like this.
                "result": json.dumps(result),
                "measures": json.dumps(dict(measures)),
            }
        )
        if self._mode == "online":
            attach(self._run, self._folder, self._run_id)

    def leave(self, exit_code: int, preempted: bool = False) -> None:
        """Close it, and wait until everything is where it belongs, or the time is up.

        Raises:
            OSError: the offline run is not whole, of which W&B's client says nothing.
        """
        if preempted:
            self._run.mark_preempting()
        self._run.finish(exit_code=exit_code)
        if self._mode == "offline":
            written = earlier_offline_runs(self._folder)
            if not written.is_closed or len(written.rows) < self.next_row:
                raise OSError(f"{len(written.rows)} of {self.next_row} rows could be written; is the disk full?")


def server() -> str:
    """The address of the W&B server."""
    return os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"


def project() -> str:
    """The W&B project, which the environment names as for every program that uses W&B."""
    return os.environ.get("WANDB_PROJECT") or "vwm"


def tracking_mode(option: str | None, otherwise: Mode = "offline") -> Mode:
    """The mode that --wandb names, or else WANDB_MODE, or else ``otherwise``.

    Raises:
        UserError: it is none of the modes.
    """
    origin = "WANDB_MODE=" if option is None else "--wandb "
    given = (os.environ.get("WANDB_MODE") or otherwise) if option is None else option
    for mode in MODES:
        if given == mode:
            return mode
    raise UserError(f"{origin}{given}: expected one of {', '.join(MODES)}.")


def sweep_of(folder: RunFolder) -> str | None:
    """The name of the sweep that a run's folder belongs to."""
    parent = folder.path.absolute().parent
    return parent.name if (parent / "sweep.yaml").exists() else None


def describe(configuration: Configuration, folder: RunFolder) -> dict[str, Any]:
    """What W&B shows as the configuration of a run."""
    launched = _provenance(folder.path.absolute().parent / "provenance.json")
    return {
        **configuration.model_dump(mode="json"),
        "run_id": configuration.run_id,
        "fano_factor": configuration.model_params.fano_factor,
        "vwm_version": vwm.__version__,
        "git": launched.get("git"),
        "code": launched.get("code"),
    }


def _provenance(path: Path) -> dict[str, Any]:
    try:
        return read_json(path) or {}
    except (ValueError, OSError):
        return {}  # A damaged file is no reason to lose what it is only a remark on.


def earlier_offline_runs(folder: RunFolder) -> OfflineRuns:
    """The offline runs of earlier attempts, once nobody writes to them any more."""
    found = read_offline_runs(folder)
    while not found.is_closed:
        quiet_s = time.time() - max(path.stat().st_mtime for path in logs(folder))
        if quiet_s >= _QUIET_S:
            break
        time.sleep(min(_QUIET_S - quiet_s, _QUIET_S))
        found = read_offline_runs(folder)
    return found


def read_history(folder: RunFolder, start: int, end: int) -> list[dict[str, Any]]:
    """The rows in these bytes of a run's history."""
    if start == end:
        return []
    with open(folder.history, "rb") as file:
        file.seek(start)
        return [json.loads(line) for line in file.read(end - start).splitlines()]


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the history under the names that it has in W&B, where what depends on the set size has one each."""
    out: dict[str, Any] = {"trainer/step": row["iteration"]}
    for name in ("loss", "error_loss", "mean_rate", "learning_rate", "patience"):
        out[name] = row[name]
    for name in ("mean_abs_error", "sd_abs_error", "mean_rate_by_set_size"):
        short = name.removesuffix("_by_set_size")
        out |= {f"{short}/{size}": value for size, value in zip(row["set_size"], row[name], strict=True)}
    return out


def scalars(measures: Measures) -> dict[str, float]:
    """Each measure at each set size as a number of its own, ``final/<measure>/<set size>``, where it is a number."""
    return {
        f"final/{name}/{size}": value
        for name, column in measures.items()
        if name != "set_size"
        for size, value in zip(measures["set_size"], column, strict=True)
        if isinstance(value, int | float) and math.isfinite(value)
    }
