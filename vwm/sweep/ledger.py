"""The ledger of a sweep: an append-only file of what was started, written before it starts, and what became of it."""

import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vwm.files import append_line

# What the events after an intent tell: the key of the event, and the attribute of the job.
_TELLS = {
    "started": ("pid", "pid"),
    "ended": ("exit_code", "exit_code"),
    "submitted": ("slurm_id", "slurm_id"),
    "refused": ("why", "refused"),
}


@dataclass(frozen=True)
class Job:
    """One job as the ledger tells it: a process of this machine, or an array of SLURM's."""

    name: str  # unique: under SLURM it finds the job after a doubtful answer
    elements: tuple[tuple[str, ...], ...]  # ids of the runs of each element of the array; a local job has one
    time: float = 0.0  # of the intent, Unix time
    pid: int | None = None  # None: the intent is there, the process perhaps not, or it is SLURM's
    exit_code: int | None = None  # None: it has not ended, or nobody was there to see it end
    slurm_id: str | None = None  # what sbatch answered
    refused: str | None = None  # why there is no such job: SLURM's words, or that it never reached SLURM
    task: Mapping[str, Any] = field(default_factory=dict)  # what an element of an array is told beside its runs

    @property
    def runs(self) -> tuple[str, ...]:
        """The ids of all runs it carries."""
        return tuple(run for element in self.elements for run in element)

    @property
    def analyses(self) -> tuple[str, ...]:
        """The analyses that it is to do of its runs; none where it trains them."""
        return tuple(self.task.get("analyses", ()))

    @property
    def is_in_doubt(self) -> bool:
        """Whether it was to be submitted and nobody noted what came of it."""
        return bool(self.task) and self.slurm_id is None and self.refused is None

    def target(self, element: int) -> str | None:
        """The element as SLURM names it, ``1234_5``, or ``1234`` where there is one and thus no array; None without."""
        return self.slurm_id if self.slurm_id is None or len(self.elements) == 1 else f"{self.slurm_id}_{element}"

    def is_alive(self) -> bool:
        """Whether its process is there, on this machine."""
        if self.exit_code is not None or self.pid is None:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # It is somebody else's.
            return True
        return True


class Ledger:
    """``ledger.jsonl``. Every line is flushed to the disk before the call returns."""

    def __init__(self, path: Path) -> None:
        self.path = path

    # -- writing -----------------------------------------------------------------------------------------------

    def launched(self, provenance: dict[str, Any]) -> None:
        """A launch began, with this code on this machine."""
        self._append("launch", provenance=provenance)

    def intends(self, job: str, elements: Sequence[Sequence[str]], task: Mapping[str, Any] | None = None) -> None:
        """A job of this unique name is about to be started or, where there is a task, submitted to SLURM."""
        self._append("intent", job=job, elements=[list(runs) for runs in elements], **({"task": task} if task else {}))

    def started(self, job: str, pid: int) -> None:
        """The job's process is there."""
        self._append("started", job=job, pid=pid)

    def ended(self, job: str, exit_code: int) -> None:
        """The job's process is gone; a negative code is the signal that killed it."""
        self._append("ended", job=job, exit_code=exit_code)

    def submitted(self, job: str, slurm_id: str) -> None:
        """SLURM has the job."""
        self._append("submitted", job=job, slurm_id=slurm_id)

    def refused(self, job: str, why: str) -> None:
        """SLURM does not have the job and never will."""
        self._append("refused", job=job, why=why)

    def cancelled(self, runs: Sequence[str]) -> None:
        """Somebody asked that these runs stop, or are not started by a launch in progress."""
        self._append("cancelled", runs=list(runs))

    def lost(self, node: str) -> None:
        """An attempt ended without a word on this node."""
        self._append("lost", node=node)

    def _append(self, event: str, **content: Any) -> None:
        line = json.dumps({"time": round(time.time(), 3), "event": event, **content})
        append_line(self.path, ("" if self._ends_with_a_whole_line() else "\n") + line)

    def _ends_with_a_whole_line(self) -> bool:
        try:
            with open(self.path, "rb") as handle:
                if handle.seek(0, 2) == 0:
                    return True
                handle.seek(-1, 2)
                return handle.read() == b"\n"
        except FileNotFoundError:
            return True

    # -- reading -----------------------------------------------------------------------------------------------

    def size(self) -> int:
        """Bytes written so far: a mark for ``cancelled_since``."""
        return self.path.stat().st_size if self.path.exists() else 0

    def cancelled_since(self, mark: int) -> set[str]:
        """The runs that were cancelled after the ledger had ``mark`` bytes."""
        events = self._events(mark)
        return {run for event in events if event["event"] == "cancelled" for run in event["runs"]}

    def jobs(self) -> list[Job]:
        """All jobs in the order they were started."""
        jobs: dict[str, Job] = {}
        for event in self._events():
            name = str(event.get("job"))
            if event["event"] == "intent":
                elements = tuple(tuple(runs) for runs in event["elements"])
                jobs[name] = Job(name, elements, event["time"], task=event.get("task", {}))
            elif name in jobs and event["event"] in _TELLS:
                key, attribute = _TELLS[event["event"]]
                jobs[name] = replace(jobs[name], **{attribute: event[key]})
        return list(jobs.values())

    def losses(self) -> Counter[str]:
        """How many attempts each node has lost."""
        return Counter(str(event["node"]) for event in self._events() if event["event"] == "lost")

    def jobs_of(self, run: str) -> list[Job]:
        """The jobs that carried a run, the latest last."""
        return [job for job in self.jobs() if run in job.runs]

    def _events(self, offset: int = 0) -> Iterable[dict[str, Any]]:
        """The events from a byte on. A line torn by a power cut is no event: whatever it announced was not done."""
        try:
            with open(self.path, "rb") as handle:
                handle.seek(offset)
                lines = handle.read().splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            try:
                yield json.loads(line)
            except ValueError:
                continue
