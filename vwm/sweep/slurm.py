"""Everything that asks SLURM something, or tells it something. One short-lived command a question, never a shell.

The answers name a job twice, by its id and by its name: ids are used again when a cluster's counter starts over, so an
entry is a job of ours only where both are.
"""

import os
import re
import secrets
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

TIMEOUT_S = 30.0  # A busy controller may take seconds; SLURM's own commands give up later than a person would.
_DAY_S = 86_400.0
_FOREIGN = ("SQUEUE_", "SACCT_", "SCANCEL_", "SCONTROL_", "SLURM_TIME_FORMAT", "SLURM_BITSTR_LEN")
_QUEUE_FIELDS = [
    "ArrayJobID",
    "ArrayTaskID",
    "JobID",
    "State",
    "Reason",
    "RestartCnt",
    "TimeLeft",
    "StartTime",
    "NodeList",
    "Name",
]
_ACCOUNT_FIELDS = ["JobID", "JobIDRaw", "State", "ExitCode", "Start", "End", "NodeList", "JobName"]


class SchedulerUnreachable(Exception):
    """A command of SLURM's failed, gave no answer in time, or is not there; the message is what SLURM said."""


@dataclass(frozen=True)
class QueueEntry:
    """A job, or an element of a job array, that waits or runs."""

    array_id: str  # what sbatch answered; for a job that is no array, its id
    index: int | None  # in the array; None for a job that is no array
    job_id: str  # SLURM's own id of the element, which it gets when it starts; before, the array's
    name: str
    state: str  # SLURM's word: PENDING, RUNNING, COMPLETING, …
    reason: str  # why it waits, in SLURM's word; "None" where there is no reason
    nodes: str  # "" while it waits
    restarts: int  # how often it was requeued
    seconds_left: int | None  # until its time limit; None without one
    start: float | None = None  # Unix time; while it waits, when SLURM expects it to start, if it does

    @property
    def target(self) -> str:
        """The element as SLURM's commands take it: ``1234_5``, or ``1234`` for a job that is no array."""
        return self.array_id if self.index is None else f"{self.array_id}_{self.index}"


@dataclass(frozen=True)
class AccountEntry:
    """One attempt of a job or an element, as the accounting remembers it."""

    array_id: str
    index: int | None  # None too in the one entry for all elements of an array that were never told apart, as none ran
    job_id: str
    name: str
    state: str  # SLURM's word: COMPLETED, FAILED, TIMEOUT, CANCELLED, REQUEUED, …
    exit_code: str  # exit code and signal, as in "1:0"
    nodes: str
    start: float | None  # Unix times
    end: float | None


# ---------------------------------------------------------------------------------------------------------------
# Questions
# ---------------------------------------------------------------------------------------------------------------


def queue(names: Sequence[str] | None = None) -> list[QueueEntry]:
    """Jobs that wait or run, every element of an array by itself: those of this user, or those with these names.

    A job's name is unique to a launch, so that a sweep of a whole group is seen by each of its members.

    Raises:
        SchedulerUnreachable: squeue failed.
    """
    delimiter = _delimiter()
    fields = ",".join(f"{field}:0{delimiter}" for field in _QUEUE_FIELDS)
    which = f"--user={os.getuid()}" if names is None else f"--name={','.join(names)}"
    return parse_queue(ask("squeue", "--noheader", "--array", which, f"--Format={fields}"), delimiter)


def accounting(array_ids: Sequence[str], since: float) -> list[AccountEntry] | None:
    """Every attempt of these jobs, the latest of an element last; None where there is no accounting to ask.

    Args:
        array_ids: what sbatch answered.
        since: Unix time before which none of them was submitted. Left to itself, sacct forgets at midnight.
    """
    return _account([f"--jobs={','.join(array_ids)}"], since) if array_ids else []


def find_by_name(name: str, since: float) -> str | None:
    """What sbatch answered, or would have answered, for the job of this unique name; None where there is no such job.

    Raises:
        SchedulerUnreachable: squeue failed, so nobody knows whether the job is there.
    """
    waiting = [entry.array_id for entry in queue([name]) if entry.name == name]
    if waiting:
        return waiting[0]
    ended = [entry.array_id for entry in _account([f"--name={name}"], since) or [] if entry.name == name]
    return ended[-1] if ended else None


def _account(which: list[str], since: float) -> list[AccountEntry] | None:
    delimiter = _delimiter()
    # The clocks of this machine and of the cluster may differ, and a summer time may end; a day is more than both.
    start = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(since - _DAY_S))
    words = ["sacct", "--allocations", "--duplicates", "--parsable", "--noheader", f"--delimiter={delimiter}"]
    words += ["--allusers", f"--starttime={start}", f"--format={','.join(_ACCOUNT_FIELDS)}", *which]
    try:
        return parse_accounting(ask(*words), delimiter)
    except SchedulerUnreachable:
        return None


def excluded_nodes(job_id: str) -> str:
    """The nodes that a job is kept off, in SLURM's short form, such as ``node[1-3],node9``; empty if there are none.

    Raises:
        SchedulerUnreachable: the controller does not answer.
    """
    found = re.search(r"\bExcNodeList=(\S+)", ask("scontrol", "show", "job", job_id))
    return "" if found is None or found[1] == "(null)" else found[1]


def controller_answers() -> bool:
    """Whether there is anybody to ask."""
    try:
        ask("scontrol", "ping")
    except SchedulerUnreachable:
        return False
    return True


# ---------------------------------------------------------------------------------------------------------------
# Orders
# ---------------------------------------------------------------------------------------------------------------


def cancel(entries: Sequence[QueueEntry]) -> None:
    """Cancel jobs and elements that ``queue`` has just given; those that have ended since are passed over.

    scancel gets ids only: with its filters (--name, --user) SLURM 22.05 cancels all waiting elements of an array where
    one was named. Whose jobs they are must therefore be known from their entries.

    Raises:
        SchedulerUnreachable: scancel failed.
    """
    targets = [entry.target for entry in entries]
    for first in range(0, len(targets), 1000):  # A command line has a greatest length.
        ask("scancel", *targets[first : first + 1000])


def end_job(job_id: str) -> None:
    """Cancel the job that calls this.

    Raises:
        SchedulerUnreachable: scancel failed.
    """
    ask("scancel", job_id)


def requeue(job_id: str) -> None:
    """Send a job back to the queue, to start again from the beginning of its script.

    Raises:
        SchedulerUnreachable: scontrol failed, or SLURM refused.
    """
    ask("scontrol", "requeue", job_id)


def exclude(job_id: str, nodes: str) -> None:
    """Keep a job off these nodes (all it is kept off, comma-separated) when it starts the next time.

    Raises:
        SchedulerUnreachable: scontrol failed, or SLURM refused.
    """
    ask("scontrol", "update", f"JobId={job_id}", f"ExcNodeList={nodes}")


# ---------------------------------------------------------------------------------------------------------------
# Commands and their answers
# ---------------------------------------------------------------------------------------------------------------


def ask(*words: str, timeout: float = TIMEOUT_S) -> str:
    """Run one of SLURM's commands and give back what it prints.

    Raises:
        SchedulerUnreachable: it failed, gave no answer within ``timeout`` seconds, or is not there.
    """
    # A user's settings for these commands would filter and dress up the answers.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    environment = {**kept, "LC_ALL": "C", "SLURM_TIME_FORMAT": "%s", "SLURM_BITSTR_LEN": "0"}
    try:
        done = subprocess.run(
            words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False
        )
    except OSError as error:
        raise SchedulerUnreachable(f"{words[0]} cannot be run: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise SchedulerUnreachable(f"{words[0]} gave no answer within {timeout:.0f} s") from None
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).decode(errors="replace").split())
        raise SchedulerUnreachable(said or f"{words[0]} failed with exit code {done.returncode}")
    return done.stdout.decode(errors="replace")


def _delimiter() -> str:
    """A word that stands in no job's name."""
    return f"|{secrets.token_hex(6)}|"


def parse_queue(text: str, delimiter: str) -> list[QueueEntry]:
    """The entries in what squeue printed."""
    entries = []
    for record in _records(text, delimiter, len(_QUEUE_FIELDS)):
        array_id, index, job_id, state, reason, restarts, left, start, nodes, name = record
        element = int(index) if index.isdecimal() else None
        count = int(restarts) if restarts.isdecimal() else 0
        times = (parse_duration(left), _unix_time(start))
        entries.append(QueueEntry(array_id, element, job_id, name, state, reason, nodes, count, *times))
    return entries


def parse_accounting(text: str, delimiter: str) -> list[AccountEntry]:
    """The entries in what sacct printed, attempts of one element in the order in which they began."""
    entries = []
    for target, job_id, state, exit_code, start, end, nodes, name in _records(text, delimiter, len(_ACCOUNT_FIELDS)):
        array_id, _, index = target.partition("_")
        word = state.split()[0] if state else ""  # "CANCELLED by 1000"
        where = "" if nodes == "None assigned" else nodes
        times = (_unix_time(start), _unix_time(end))
        for element in _elements(index):
            entries.append(AccountEntry(array_id, element, job_id, name, word, exit_code, where, *times))
    return sorted(entries, key=lambda entry: float("inf") if entry.start is None else entry.start)


def _records(text: str, delimiter: str, fields: int) -> Iterator[list[str]]:
    """The fields of every record. Each field is closed by a delimiter, so that a name may hold line breaks."""
    parts = [part.strip() for part in text.split(delimiter)]
    for first in range(0, len(parts) - fields, fields):
        yield parts[first : first + fields]


def _elements(text: str) -> list[int | None]:
    """The elements that ``7`` or ``[0-3,8,10-20:2%5]`` stands for; [None] for the empty text of a plain job."""
    if not text:
        return [None]
    elements: list[int | None] = []
    for part in re.sub(r"%\d+$", "", text.strip("[]")).split(","):
        found = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part)
        if found:
            first, last, step = found.groups()
            elements += range(int(first), int(last or first) + 1, int(step or 1))
    return elements


def parse_duration(text: str) -> int | None:
    """Seconds in ``[days-][[hours:]minutes:]seconds``; None for UNLIMITED and whatever else is no duration."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(?:(\d+):)?(\d+)", text)
    if not found:
        return None
    days, first, second, seconds = (int(group or 0) for group in found.groups())
    hours, minutes = (first, second) if found[3] is not None else (0, first)
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _unix_time(text: str) -> float | None:
    return float(text) if text.isdecimal() else None
