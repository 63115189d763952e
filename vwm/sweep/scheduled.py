"""What SLURM says of the runs that it was given: one question to the queue and one to the accounting, put in words."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from vwm.sweep import slurm
from vwm.sweep.ledger import Job
from vwm.sweep.slurm import AccountEntry, QueueEntry, SchedulerUnreachable

# SLURM's reasons by their beginnings, so that all of QOSMaxJobsPerUserLimit, QOSGrpCpuLimit, … have one line.
_WAITING = (
    ("None", "just submitted"),
    ("Priority", "higher priority jobs first"),
    ("Resources", "no free node"),
    ("QOS", "limit of your QOS"),
    ("Assoc", "limit of your association"),
    ("JobArrayTaskLimit", "others of this array first"),
    ("DependencyNeverSatisfied", "for an array that failed, for ever: cancel it"),
    ("Dependency", "begins after another array"),
    ("JobHeldUser", "held"),
    ("JobHeldAdmin", "held by an administrator"),
    ("BeginTime", "node down or requeue delay"),
    ("NodeDown", "node down"),
    ("PartitionDown", "the partition is down"),
    ("PartitionInactive", "the partition is down"),
    ("PartitionTimeLimit", "its time limit is over the partition's"),
    ("ReqNodeNotAvail", "the nodes asked for are down or reserved"),
    ("JobHoldMaxRequeue", "held by SLURM: requeued too often"),
    ("launch_failed_requeued_held", "held by SLURM: it could not be started"),
)
_ADVICE = {
    "FAILED": "; see its log",
    "BOOT_FAIL": "; its node did not start",
    "DEADLINE": "; its deadline had passed",
}
_ENDED = (
    *("COMPLETED", "FAILED", "TIMEOUT", "OUT_OF_MEMORY", "CANCELLED", "NODE_FAIL", "PREEMPTED"),
    *("BOOT_FAIL", "DEADLINE", "REVOKED"),
)


@dataclass(frozen=True)
class Carrier:
    """The SLURM job that was given a run last, as SLURM knows it now."""

    job: str  # its unique name
    slurm_id: str | None  # "1234_5"; None while nobody knows whether SLURM has it
    live: QueueEntry | None = None  # it waits or runs
    ended: AccountEntry | None = None  # its latest attempt, where it neither waits nor runs
    unreachable: str | None = None  # SLURM's words: it cannot be asked
    note: str = ""  # where it is neither waiting nor running: what became of it, and what to do


@dataclass
class Scheduled:
    """The runs that were last given to SLURM, by their ids."""

    jobs: Mapping[str, tuple[Job, int]] = field(default_factory=dict)  # the job and the element in its array

    def ask(self, runs: Iterable[str]) -> dict[str, Carrier]:
        """What SLURM says of those of these runs that were last given to it. Without any, it is not asked."""
        wanted = {run: self.jobs[run] for run in runs if run in self.jobs}
        names = sorted({job.name for job, _ in wanted.values()})
        if not names:
            return {}
        try:
            live = _Live(slurm.queue(names))
        except SchedulerUnreachable as error:
            return {
                run: Carrier(job.name, job.target(index), unreachable=str(error))
                for run, (job, index) in wanted.items()
            }
        gone = {job.name: job for job, index in wanted.values() if job.slurm_id and live.find(job, index) is None}
        accounts = _accounts(list(gone.values()))
        return {run: _carrier(job, index, live.find(job, index), accounts) for run, (job, index) in wanted.items()}


def scheduled(jobs: Iterable[Job]) -> Scheduled:
    """The runs whose latest job is one of SLURM's, of the jobs of a ledger in their order."""
    latest: dict[str, tuple[Job, int]] = {}
    for job in jobs:
        if job.refused is not None:
            continue
        for index, element in enumerate(job.elements):
            for run in element:
                latest[run] = (job, index)
    return Scheduled({run: (job, index) for run, (job, index) in latest.items() if job.slurm_id or job.is_in_doubt})


class _Live:
    """The queue, by name and element. A job without a noted id is found by its name alone."""

    def __init__(self, entries: Sequence[QueueEntry]) -> None:
        self._entries = {(entry.name, entry.index or 0): entry for entry in entries}

    def find(self, job: Job, index: int) -> QueueEntry | None:
        entry = self._entries.get((job.name, index))
        return None if entry is None or job.slurm_id not in (None, entry.array_id) else entry


def _accounts(jobs: Sequence[Job]) -> dict[tuple[str, int | None], AccountEntry] | None:
    """The latest attempt of every element, by name of the job and index; None without accounting."""
    ids = {job.name: job.slurm_id for job in jobs}
    entries = slurm.accounting(
        [job.slurm_id for job in jobs if job.slurm_id], min((job.time for job in jobs), default=0)
    )
    if entries is None:
        return None
    # Only an entry whose name and id are both ours is ours; a later attempt replaces an earlier one.
    return {(entry.name, entry.index): entry for entry in entries if ids.get(entry.name) == entry.array_id}


def _carrier(
    job: Job, index: int, live: QueueEntry | None, accounts: Mapping[tuple[str, int | None], AccountEntry] | None
) -> Carrier:
    if live is not None:
        return Carrier(job.name, live.target, live=live)
    target = job.target(index)
    if target is None:
        return Carrier(job.name, None, note="nobody noted whether SLURM took its job; the next launch finds out")
    if accounts is None:
        note = f"job {target} ended, result missing; there is no accounting (sacct) to say how it ended"
        return Carrier(job.name, target, note=note)
    # Elements that never began have no entry of their own, but one together, which has no index.
    ended = accounts.get((job.name, index)) or accounts.get((job.name, None))
    if ended is None:
        return Carrier(job.name, target, note=f"job {target} is known neither to squeue nor to sacct, result missing")
    if ended.state not in _ENDED:
        # The queue no longer has it and the accounting, which lags by seconds, has not heard of the end.
        return Carrier(job.name, target, ended=ended, note=f"job {target} has just ended, result missing")
    return Carrier(job.name, target, ended=ended, note=_how_it_ended(target, ended))


def _how_it_ended(target: str, ended: AccountEntry) -> str:
    code = f", exit code {ended.exit_code}" if ended.exit_code not in ("", "0:0") else ""
    where = f" on {ended.nodes}" if ended.nodes else ""
    return f"job {target} ended ({ended.state}{code}){where}, result missing{_ADVICE.get(ended.state, '')}"


def why_waiting(reason: str) -> str:
    """SLURM's reason in words; one that is not known here as it is."""
    return next((words for beginning, words in _WAITING if reason.startswith(beginning)), reason)
