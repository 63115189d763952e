"""Analyses of a sweep's finished runs: a process each, a few at a time on this machine."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vwm.analysis.made_from import is_up_to_date, made_from
from vwm.config_file import load_configuration
from vwm.sweep.measured import Progress
from vwm.sweep.profile import cores
from vwm.training.run_folder import RunFolder

_POLL_S = 0.1


@dataclass(frozen=True)
class NotAnalysed:
    """A run of which some analysis failed or was refused."""

    run_id: str
    why: str  # the last line that its process has written
    log: Path


def analyse_runs(
    wanted: Mapping[str, Sequence[str]], folder: Path, progress: Progress, is_over: Callable[[], bool] = lambda: False
) -> list[NotAnalysed]:
    """Do the analyses of each run, as many runs at a time as this machine has cores for.

    Whatever ends this ends the processes too; what they have written is whole, and is not done again.

    Args:
        wanted: the names of analyses by run id.
        folder: ``runs/<sweep>``; each run's output is ``logs/analyse-<run id>.log`` in it.
        progress: told how many of the runs are done.
        is_over: whether to end now, and leave the rest.
    """
    logs = folder / "logs"
    logs.mkdir(exist_ok=True)
    waiting = list(wanted)
    running: dict[str, subprocess.Popen[bytes]] = {}
    failed = []
    progress(0, len(wanted))
    try:
        while (waiting or running) and not is_over():
            while waiting and len(running) < cores():
                run_id = waiting.pop(0)
                running[run_id] = _start(folder / run_id, wanted[run_id], logs / f"analyse-{run_id}.log")
            time.sleep(_POLL_S)
            for run_id in [run_id for run_id, process in running.items() if process.poll() is not None]:
                if running.pop(run_id).returncode:
                    failed.append(_failure(run_id, logs / f"analyse-{run_id}.log"))
                progress(len(wanted) - len(waiting) - len(running), len(wanted))
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
    return failed


def left_of(runs: Sequence[Path], names: Sequence[str]) -> dict[str, list[str]]:
    """For each of these runs' folders of which something is left to do, by the run's id, which of the analyses."""
    return {run.name: left for run in runs if (left := left_to_do(run, names))}


def left_to_do(run: Path, names: Sequence[str]) -> list[str]:
    """Those of these analyses whose files in a run's folder are not up to date."""
    folder = RunFolder(run)
    configuration, _ = load_configuration(folder.config)
    origin = made_from(configuration, folder.checkpoint, folder.responses)
    return [name for name in names if not is_up_to_date(run / "analysis", name, origin)]


def _start(run: Path, names: Sequence[str], log: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "vwm", "analyse", str(run), *(word for name in names for word in ("--only", name))]
    with open(log, "wb") as output:
        return subprocess.Popen(
            command,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def _failure(run_id: str, log: Path) -> NotAnalysed:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return NotAnalysed(run_id, lines[-1] if lines else "it ended without a word", log)
