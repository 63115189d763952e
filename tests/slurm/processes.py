"""Daemons on this machine: started apart from their starter, known by process id and start time."""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


class Failed(Exception):
    """The cluster did not do what it was asked to; the message says what was waited for and where to look."""


@dataclass(frozen=True)
class Process:
    """A process, told from a later one with the same id by its start time (clock ticks since the machine started)."""

    pid: int
    started: int

    @staticmethod
    def with_id(pid: int) -> "Process | None":
        """The living process with this id; a zombie is dead."""
        try:
            # The name, second of the fields, is in brackets and may hold anything; the state follows it.
            state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if state in "ZX" else Process(pid, int(fields[18]))

    def alive(self) -> bool:
        """Whether it is this very process that runs under the id."""
        return Process.with_id(self.pid) == self

    def send(self, number: signal.Signals) -> None:
        """Send a signal if it is alive."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def stop(self, patience: float) -> None:
        """Ask it to leave, kill it after ``patience`` seconds, and return when it is gone."""
        if patience > 0:
            self.send(signal.SIGTERM)
            with contextlib.suppress(Failed):
                wait_for(f"the end of process {self.pid}", lambda: not self.alive(), patience)
        self.send(signal.SIGKILL)
        wait_for(f"the end of process {self.pid}", lambda: not self.alive(), 120)
        # Gone for good only once its starter has asked for it; that may be another process than this one.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)


def start(command: list[str], environment: dict[str, str], log: Path) -> Process:
    """Start a daemon in a session of its own, its output appended to ``log``; it outlives the caller."""
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    pid = os.posix_spawnp(
        command[0],
        command,
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    process = Process.with_id(pid)
    if process is None:
        raise Failed(f"{command[0]} ended at once; see {log}")
    return process


def process_namespace(pid: int) -> str | None:
    """The namespace the process sees processes in, such as ``pid:[4026532300]``."""
    return _link(f"/proc/{pid}/ns/pid")


def namespace_of_children(pid: int) -> str | None:
    """The process namespace that the children of a process are born into; None until the first of them is."""
    return _link(f"/proc/{pid}/ns/pid_for_children")


def members(namespace: str) -> list[int]:
    """The ids, on this machine, of all living processes in a process namespace."""
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    # A dead process keeps its namespace until it has been asked for, which may take its parent seconds.
    return [pid for pid in pids if process_namespace(pid) == namespace and Process.with_id(pid)]


def wait_for(what: str, condition: Callable[[], bool], timeout: float) -> None:
    """Return once the condition holds.

    Raises:
        Failed: it does not hold within ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"waited {timeout:.0f} s in vain for {what}")
        time.sleep(0.05)


def _link(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None
