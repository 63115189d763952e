"""Runs in training, mirrored in Weights & Biases by a thread of its own, so that training never waits for it.

Training says how much of the history a checkpoint on the disk covers, and how a run ends; the thread does the rest,
start-up of W&B included. Whatever goes wrong in it is said once, and ``vwm-sweep sync`` mends it from the run's folder.
"""

import os
import queue
import resource
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from vwm.config import Configuration
from vwm.training.mirror import Measures, Mirror, Mode, flat, read_history
from vwm.training.run_folder import Phase, Reason, RunFolder

_FINISH_TIMEOUT_S = 15.0
_LONGEST_END_S = 60.0  # the last wait for all of it, start-up and measures of a short run included
_SLURM = (
    *("JOB_ID", "ARRAY_JOB_ID", "ARRAY_TASK_ID", "JOB_NAME", "JOB_PARTITION", "JOB_NODELIST", "RESTART_COUNT"),
    *("CPUS_PER_TASK", "JOB_GPUS", "CLUSTER_NAME"),
)


@dataclass(frozen=True)
class Tracking:
    """How runs are mirrored while they are trained."""

    mode: Mode
    measure: Callable[[RunFolder], Measures]  # of a finished run's responses, for the final summary


UNTRACKED = Tracking("disabled", lambda run: {})


@dataclass(frozen=True)
class _Covered:
    history_bytes: int
    facts: dict[str, Any]


@dataclass(frozen=True)
class _Ended:
    phase: Phase
    reason: Reason | None


class Tracker:
    """The mirror of one run in training."""

    def __init__(
        self,
        folder: RunFolder,
        configuration: Configuration,
        attempt: int,
        tracking: Tracking,
        say: Callable[[list[str]], None],
    ) -> None:
        """Start it. The history is as long as the run's checkpoint says.

        Args:
            folder: the run's.
            configuration: of the run.
            attempt: number of this start of the run, from 1.
            tracking: mode online or offline.
            say: told once, from another thread, what went wrong.
        """
        self._folder, self._configuration, self._attempt = folder, configuration, attempt
        self._tracking, self._say = tracking, say
        self._news: queue.SimpleQueue[_Covered | _Ended] = queue.SimpleQueue()
        self._has_ended = False
        self._news.put(_Covered(self._history_bytes(), {}))
        # A daemon, since a thread that hangs in a dead network must not keep the process.
        self._thread = threading.Thread(target=self._follow, name=f"tracking {folder.path.name}", daemon=True)
        self._thread.start()

    def covered(self, steps_per_second: float | None) -> None:
        """A checkpoint that covers the present history is on the disk."""
        facts: dict[str, Any] = {"attempt": self._attempt, "memory_mib": peak_memory_mib()}
        if steps_per_second is not None:
            facts["steps_per_second"] = steps_per_second
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            facts["gpu_memory_mib"] = torch.cuda.max_memory_allocated() / 2**20
        self._news.put(_Covered(self._history_bytes(), facts))

    def end(self, phase: Phase, reason: Reason | None) -> None:
        """The run was left in this phase; nothing comes after it."""
        if not self._has_ended:
            self._has_ended = True
            self._news.put(_Ended(phase, reason))

    def wait(self) -> None:
        """Wait for the mirror to be complete, but not for ever."""
        self.end("interrupted", "killed")  # for a run that was left by an exception
        self._thread.join(_LONGEST_END_S)
        if self._thread.is_alive():
            self._complain("it did not end in time")

    def _history_bytes(self) -> int:
        return self._folder.history.stat().st_size if self._folder.history.exists() else 0

    def _complain(self, why: str) -> None:
        name = self._folder.path.name
        self._say([f"{name}: not tracked by W&B any more ({why}). Nothing is lost: vwm-sweep sync makes up for it."])

    # -- in the thread -----------------------------------------------------------------------------------------

    def _follow(self) -> None:
        try:
            self._mirror()
        except Exception as error:  # A mirror that breaks must not break what it shows.
            self._complain(" ".join(f"{type(error).__name__}: {error}".split()))

    def _mirror(self) -> None:
        facts = {f"attempt_{self._attempt}": facts_of_attempt()}
        mirror = Mirror(self._folder, self._configuration, self._tracking.mode, facts, _FINISH_TIMEOUT_S)
        done_bytes = done_rows = 0
        while isinstance(news := self._news.get(), _Covered):
            rows = read_history(self._folder, done_bytes, news.history_bytes)
            mirror.hand_on(done_rows, [flat(row) | news.facts for row in rows])
            done_bytes, done_rows = news.history_bytes, done_rows + len(rows)
        is_finished = news.phase == "finished"
        if is_finished:
            mirror.summarise(self._tracking.measure(self._folder))
        mirror.leave(exit_code=0 if is_finished else 1, preempted=news.reason in ("preempted", "time limit"))


def peak_memory_mib() -> float:
    """The most memory this process has used, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def facts_of_attempt() -> dict[str, Any]:
    """Where and when this attempt runs."""
    slurm = {name.lower(): value for name in _SLURM if (value := os.environ.get(f"SLURM_{name}"))}
    facts = {"host": socket.gethostname(), "started": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts | ({"slurm": slurm} if slurm else {})
