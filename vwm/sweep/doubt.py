"""Intents of which nobody knows what came: a launch that died around sbatch, or an sbatch that gave no clear answer.

SLURM is asked for the unique name of the job. It is taken over as if sbatch had answered, or declared void.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vwm.files import Locked, locked
from vwm.sweep.ledger import Job, Ledger
from vwm.sweep.slurm import SchedulerUnreachable, find_by_name

# So long after its intent a job that SLURM does not know is void: sbatch has been dead for a minute, and what it had
# sent has been read. Should a controller be slower than this, the claims on runs still keep two jobs apart.
DOUBT_S = 120.0
_POLL_S = 2.0

Say = Callable[[str, str], None]  # a line, and its style


@contextmanager
def alone(folder: Path, say: Say) -> Iterator[None]:
    """Hold the sweep's folder while something is submitted: two launches at once would submit the same runs."""
    said = False
    while True:
        try:
            with locked(folder / "launch.lock"):
                yield
                return
        except Locked:
            if not said:
                say("Another launch of this sweep is submitting; waiting for it.", "yellow")
            said = True


def settle_earlier_intents(folder: Path, ledger: Ledger, say: Say) -> None:
    """Find out what came of the intents that earlier launches have left in doubt; call it while ``alone``.

    Raises:
        SchedulerUnreachable: SLURM does not answer, and they stay in doubt.
    """
    for job in ledger.jobs():
        if job.is_in_doubt:
            say(f"An earlier launch ended while it submitted {job.name}; SLURM is asked for it.", "yellow")
            if settle(job, folder, ledger, "never reached SLURM", patient=True, say=say) is None:
                say(f"{job.name} never reached SLURM; its runs are free again.", "")


def settle(job: Job, folder: Path, ledger: Ledger, words: str, patient: bool, say: Say) -> str | None:
    """Find out whether SLURM has the job of an intent: take it over and give its id, or note why there is none.

    Args:
        job: the intent.
        folder: runs/<sweep>, absolute.
        ledger: of the sweep.
        words: what to note if SLURM does not have the job.
        patient: ask until ``DOUBT_S`` after the intent, before which the job may still be on its way.
        say: how a person is told.

    Raises:
        SchedulerUnreachable: SLURM does not answer, and the intent stays in doubt.
    """
    said = False
    while True:
        try:
            slurm_id = find_by_name(job.name, job.time)
            unreachable = None
        except SchedulerUnreachable as error:
            slurm_id, unreachable = None, error
        if slurm_id is not None:
            take_over(job, slurm_id, folder, ledger)
            count = len(job.elements)
            say(f"found      {slurm_id}  {job.name}  {count} job{'' if count == 1 else 's'}: taken over", "green")
            return slurm_id
        if not patient or time.time() > job.time + DOUBT_S:
            if unreachable is not None:
                raise unreachable
            ledger.refused(job.name, words)
            return None
        if not said:
            left = job.time + DOUBT_S - time.time()
            say(f"Looking for up to {left:.0f} s whether SLURM has {job.name}.", "yellow")
        said = True
        time.sleep(_POLL_S)


def take_over(job: Job, slurm_id: str, folder: Path, ledger: Ledger) -> None:
    """Write what the elements of a job read when they start, as submitit does it after sbatch, and note the id.

    submitit waits for a minute at the start of an element until its file is there.
    """
    from submitit.core.utils import DelayedSubmission, JobPaths

    from vwm.sweep.analysis_job import AnalyseOnNode
    from vwm.sweep.slurm_job import TrainOnNodes

    on_node = AnalyseOnNode if job.analyses else TrainOnNodes
    for index, runs in enumerate(job.elements):
        target = slurm_id if len(job.elements) == 1 else f"{slurm_id}_{index}"
        pickle = JobPaths(folder / "jobs", target).submitted_pickle
        if not pickle.exists():
            delayed = DelayedSubmission(on_node([str(folder / run) for run in runs], **job.task))
            delayed.set_timeout(job.task["timeout_min"], job.task["max_requeues"])
            temporary = pickle.with_name(f".{pickle.name}.{os.getpid()}")
            delayed.dump(temporary)
            temporary.replace(pickle)
    ledger.submitted(job.name, slurm_id)
