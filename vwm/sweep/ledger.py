"""The ledger of a sweep: an append-only file of what was started, written before it starts, and what became of it."""

import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vwm.files import append_line


@dataclass(frozen=True)
class Job:
    """One job as the ledger tells it."""

    name: str
    runs: tuple[str, ...]  # ids of the runs it carries
    pid: int | None = None  # None: the intent is there, the process perhaps not
    exit_code: int | None = None  # None: it has not ended, or nobody was there to see it end

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

    def intends(self, job: str, runs: Sequence[str]) -> None:
        """A job of this unique name is about to be started."""
        self._append("intent", job=job, runs=list(runs))

    def started(self, job: str, pid: int) -> None:
        """The job's process is there."""
        self._append("started", job=job, pid=pid)

    def ended(self, job: str, exit_code: int) -> None:
        """The job's process is gone; a negative code is the signal that killed it."""
        self._append("ended", job=job, exit_code=exit_code)

    def cancelled(self, runs: Sequence[str]) -> None:
        """Somebody asked that these runs stop, or are not started by a launch in progress."""
        self._append("cancelled", runs=list(runs))

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
                jobs[name] = Job(name, tuple(event["runs"]))
            elif name not in jobs:
                continue
            elif event["event"] == "started":
                jobs[name] = Job(name, jobs[name].runs, event["pid"])
            elif event["event"] == "ended":
                jobs[name] = Job(name, jobs[name].runs, jobs[name].pid, event["exit_code"])
        return list(jobs.values())

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
