"""The folder of one run: which files it holds and what its state says. Imports no torch, so that status is quick."""

import json
import os
import socket
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from vwm.config import Configuration
from vwm.config_file import load_configuration
from vwm.errors import UserError
from vwm.files import is_locked, read_json, write_atomically

Phase = Literal["training", "evaluating", "finished", "stopped", "interrupted", "failed"]
Reason = Literal["stop requested", "time limit", "preempted", "node lost", "killed", "out of memory", "nan", "error"]


@dataclass(frozen=True)
class RunState:
    """What ``state.json`` says: how far a run is, who works on it, and why it stopped."""

    phase: Phase
    iteration: int  # completed iterations
    num_iterations: int  # iterations at most
    attempt: int  # starts of this run so far
    heartbeat: float = 0.0  # Unix time of the last sign of life; this and the next two are stamped on writing
    host: str = ""
    pid: int = 0
    iterations_per_second: float | None = None
    mean_abs_error: float | None = None  # rad, over the trials of the last logging period
    reason: Reason | None = None  # why it stopped or failed
    detail: str | None = None  # the error's message, or what to do


class _File:
    """A file of a run's folder; its path is made when it is asked for, since a status makes thousands of folders."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, folder: "RunFolder", kind: object) -> Path:
        return folder.path / self._name


class RunFolder:
    """The files of one run, as paths, whether or not there is a file."""

    config = _File("config.yaml")
    state = _File("state.json")
    checkpoint = _File("checkpoint.pt")
    numbered_checkpoints = _File("checkpoints")  # with keep_every: checkpoint-<iteration>.pt
    failed_state = _File("failed.pt")  # the state whose next iteration gave no finite number
    history = _File("history.jsonl")
    responses = _File("responses.npz")
    result = _File("result.json")  # exists exactly when the run is finished
    traceback = _File("error.txt")  # of the last failure
    lock = _File("lock")  # held by the process that trains the run
    stop = _File("stop")  # its content is the reason to stop at the next step

    def __init__(self, path: Path) -> None:
        self.path = path

    def read_state(self) -> RunState | None:
        """The run's state, or None before its first attempt.

        Raises:
            UserError: the file is damaged.
        """
        try:
            content = read_json(self.state)
            state = None if content is None else RunState(**content)
        except (ValueError, TypeError, OSError) as error:
            raise UserError(self._damage(" ".join(str(error).split()))) from None
        if state is not None:
            numbers = (state.iteration, state.num_iterations, state.attempt, state.heartbeat)
            if not all(isinstance(number, int | float) for number in numbers):
                raise UserError(self._damage("a number was expected where there is none"))
        return state

    def _damage(self, why: str) -> str:
        return f"state.json cannot be read: {why}; delete it to go on: {self.state}"

    def write_state(self, state: RunState) -> None:
        """Replace ``state.json``, stamped with the time, this host and this process."""
        stamped = replace(state, heartbeat=time.time(), host=socket.gethostname(), pid=os.getpid())
        write_atomically(self.state, json.dumps(asdict(stamped), indent=1) + "\n")

    def is_finished(self) -> bool:
        """Whether the final result is there."""
        return self.result.exists()

    def is_being_trained(self) -> bool:
        """Whether a living process holds this run (on this machine, or on a file system that carries locks)."""
        return is_locked(self.lock)

    def request_stop(self, reason: Reason) -> None:
        """Ask the process that trains this run to save and leave at its next step."""
        write_atomically(self.stop, reason)

    def read_result(self) -> dict[str, Any] | None:
        """The final evaluation, or None while the run is not finished."""
        return read_json(self.result)


def prepare_run_folder(path: Path, configuration: Configuration, flush: bool = True) -> RunFolder:
    """Make ``path`` the folder of this run, or find that it is already; ``flush`` as in ``write_atomically``.

    Raises:
        UserError: the folder holds another run, or files that are no run's. Nothing is written then.
    """
    folder = RunFolder(path)
    if folder.config.exists():
        present, _ = load_configuration(folder.config)
        if present.run_id != configuration.run_id:
            raise UserError(
                f"{path}: this folder holds run {present.run_id}, and the configuration given is run "
                f"{configuration.run_id}. Choose another folder with --out, or train what is there: vwm train {path}"
            )
        return folder
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path}: this is no run's folder and it is not empty. Choose another folder with --out.")
    path.mkdir(parents=True, exist_ok=True)
    write_atomically(folder.config, configuration.to_yaml(), flush)
    return folder
