"""From packs of runs to the arrays of a submission: their sizes, who waits for whom, and what it may cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vwm.sweep.ledger import Job, Ledger
from vwm.sweep.limits import Limits
from vwm.sweep.plan import ObservedRun
from vwm.sweep.profile import SlurmProfile
from vwm.sweep.slurm import QueueEntry, queue

Pack = list[ObservedRun]


@dataclass(frozen=True)
class Array:
    """A job array: an element for each pack."""

    packs: tuple[Pack, ...]
    at_a_time: int  # elements that run at the same time
    after: int | None  # the array, by its place in the submission, that must have ended before this one begins


@dataclass(frozen=True)
class Outlook:
    """What a launch would submit now, and what has to wait."""

    arrays: tuple[Array, ...]
    left_out: int  # packs for which the queue has no room now
    limit: str | None  # the limit that leaves no room
    lines: tuple[str, ...]  # all of it in words


@dataclass(frozen=True)
class LiveElement:
    """An element of an array of this sweep that waits or runs."""

    entry: QueueEntry
    runs: tuple[str, ...]


def live_elements(jobs: Sequence[Job], queue: Sequence[QueueEntry]) -> list[LiveElement]:
    """The elements of these jobs that are in the queue. Ids are used again by SLURM, so that the name has to agree."""
    known = {(job.slurm_id, job.name): job for job in jobs if job.slurm_id is not None}
    live = []
    for entry in queue:
        job = known.get((entry.array_id, entry.name))
        if job is not None and (entry.index or 0) < len(job.elements):
            live.append(LiveElement(entry, job.elements[entry.index or 0]))
    return live


def live_analyses(folder: Path) -> list[LiveElement]:
    """What waits or runs of the jobs that analyse runs of the sweep in ``folder`` (runs/<sweep>).

    Raises:
        SchedulerUnreachable: there are such jobs, and SLURM does not answer.
    """
    jobs = [job for job in Ledger(folder / "ledger.jsonl").jobs() if job.analyses and job.slurm_id]
    return live_elements(jobs, queue([job.name for job in jobs])) if jobs else []


def arrange(packs: Sequence[Pack], most_elements: int, at_a_time: int | None) -> tuple[Array, ...]:
    """Cut packs into arrays of at most ``most_elements``, of which at most ``at_a_time`` elements run together.

    SLURM limits the elements that run of one array only. So the arrays stand in lanes: the throttles of all lanes add
    up to the limit, and in a lane an array begins when the one before it has ended.
    """
    chunks = [tuple(packs[first : first + most_elements]) for first in range(0, len(packs), most_elements)]
    lanes = len(chunks) if at_a_time is None else min(len(chunks), at_a_time)
    arrays = []
    for place, chunk in enumerate(chunks):
        lane = place % lanes
        throttle = len(chunk)
        if at_a_time is not None:
            throttle = min(throttle, at_a_time // lanes + (lane < at_a_time % lanes))
        arrays.append(Array(chunk, throttle, place - lanes if place >= lanes else None))
    return tuple(arrays)


def look_ahead(packs: Sequence[Pack], profile: SlurmProfile, limits: Limits, queued: int) -> Outlook:
    """What of these packs can be submitted now.

    Args:
        packs: the runs of every job.
        profile: what a job asks for.
        limits: what the cluster allows.
        queued: jobs of this user that are in the queue.
    """
    room = limits.room(queued)
    fits = len(packs) if room is None else min(len(packs), room[0])
    arrays = arrange(packs[:fits], limits.array_elements, profile.jobs_at_a_time)
    left_out = len(packs) - fits
    lines = [f"Jobs: {len(packs)}, in {_plural(len(arrays), 'array')}{_sizes(arrays)}; {_at_a_time(profile)}."]
    if profile.gpus:
        hours = len(packs) * profile.gpus * profile.timeout_min / 60
        kind, each = "GPU-hours", _plural(profile.gpus, "GPU")
    else:
        cpus = profile.nodes * profile.processes_per_node * profile.cpus_per_process
        hours = len(packs) * cpus * profile.timeout_min / 60
        kind, each = "core-hours", _plural(cpus, "core")
    lines.append(
        f"At most {hours:.6g} {kind} per attempt ({len(packs)} × {each} × {profile.timeout_min / 60:.4g} h); "
        f"a job is queued again up to {_plural(profile.max_requeues, 'time')}."
    )
    if len(packs) > limits.array_elements:
        lines.append(f"MaxArraySize = {limits.max_array_size}: an array has at most {limits.array_elements} jobs.")
    if left_out and room is not None:
        lines.append(
            f"{room[1]}, and {_plural(queued, 'job')} of yours {'is' if queued == 1 else 'are'} queued: "
            f"{_plural(left_out, 'job')} would be refused now, and can be launched later."
        )
    return Outlook(arrays, left_out, room[1] if left_out and room else None, tuple(lines))


def _sizes(arrays: Sequence[Array]) -> str:
    sizes = [len(array.packs) for array in arrays]
    if len(sizes) < 2:
        return ""
    return f" of {sizes[0]}" if sizes[0] == sizes[-1] else f" of {sizes[0]}, the last of {sizes[-1]}"


def _at_a_time(profile: SlurmProfile) -> str:
    most = profile.jobs_at_a_time
    return "as many at a time as SLURM starts" if most is None else f"at most {most} at a time"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
