"""Cancelling runs: by a stop file where a process trains them, by scancel where all runs of a SLURM job are meant."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vwm.sweep import slurm
from vwm.sweep.arrays import live_analyses
from vwm.sweep.ledger import Ledger
from vwm.sweep.plan import ObservedRun
from vwm.sweep.slurm import QueueEntry, SchedulerUnreachable
from vwm.training.run_folder import RunFolder


@dataclass(frozen=True)
class CancelReport:
    """What was done, a sentence each, and whether SLURM could not be asked."""

    lines: tuple[str, ...]
    unreachable: bool


def cancel_runs(folder: Path, chosen: Sequence[ObservedRun], everything: Sequence[ObservedRun]) -> CancelReport:
    """Cancel runs of the sweep in ``folder``; only jobs of this sweep, known by id and by name, are touched.

    Args:
        chosen: the runs to cancel; those that are finished stay as they are, but are not analysed further.
        everything: all runs of the sweep, as they were observed with SLURM's answer.
    """
    unfinished = [observed for observed in chosen if observed.state != "finished"]
    meant = {observed.run_id for observed in chosen}
    if folder.is_dir() and chosen:
        # The finished ones too: a job that analyses them and goes back to the queue just now has to know.
        Ledger(folder / "ledger.jsonl").cancelled(sorted(meant))
    ids = {observed.run_id for observed in unfinished}
    whole = [entry for entry, carried in _carried(everything).items() if carried <= ids]
    in_whole = {run.run_id for run in unfinished if _entry(run) in whole}
    # Asked by file first, so that a run whose job gets a signal only seconds before its end is known to be meant.
    asked = [run.run_id for run in unfinished if run.state == "running" or (_entry(run) and run.run_id not in in_whole)]
    for run_id in asked:
        RunFolder(folder / run_id).request_stop("stop requested")
    lines, failure = [], ""
    try:
        whole += [element.entry for element in live_analyses(folder) if meant.issuperset(element.runs)]
        if whole:
            slurm.cancel(whole)
            lines.append(f"{_count(len(whole), 'SLURM job')} cancelled: {_some([entry.target for entry in whole])}.")
    except SchedulerUnreachable as error:
        failure = str(error)
    if asked:
        lines.append(f"{_count(len(asked), 'run')} asked to save and stop.")
    failure = failure or next((run.note for run in unfinished if run.state == "unreachable"), "")
    if failure:
        lines.append(f"SLURM cannot be asked, so that its jobs go on: {failure}. Repeat the command later.")
    return CancelReport(tuple(lines or ["Nothing is running."]), bool(failure))


def _entry(observed: ObservedRun) -> QueueEntry | None:
    return observed.carrier.live if observed.carrier is not None else None


def _carried(everything: Sequence[ObservedRun]) -> dict[QueueEntry, set[str]]:
    """The unfinished runs of every job or element of SLURM's that waits or runs."""
    carried: dict[QueueEntry, set[str]] = {}
    for observed in everything:
        entry = _entry(observed)
        if entry is not None and observed.state not in ("finished", "failed"):
            carried.setdefault(entry, set()).add(observed.run_id)
    return carried


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _some(targets: Sequence[str]) -> str:
    return ", ".join([*targets[:6], *(["…"] if len(targets) > 6 else [])])
