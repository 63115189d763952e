"""What a launch on a cluster would do, without doing it: nothing is written, and the cluster need not be there."""

from pathlib import Path

from vwm.sweep.arrays import Pack, live_elements, look_ahead
from vwm.sweep.grid import Sweep
from vwm.sweep.ledger import Ledger
from vwm.sweep.limits import Limits, read_limits, why_refused
from vwm.sweep.plan import STARTABLE, Plan, jobs_to_start, make_plan
from vwm.sweep.profile import SlurmProfile
from vwm.sweep.slurm import SchedulerUnreachable, queue


def forecast_submission(sweep: Sweep, folder: Path, profile: SlurmProfile) -> tuple[Plan, list[Pack], list[str]]:
    """The state of the runs, the packs that a launch would submit, and in lines what the cluster makes of them."""
    taken: set[str] = set()
    lines = []
    jobs = [job for job in Ledger(folder / "ledger.jsonl").jobs() if not job.analyses]
    try:
        entries = queue([job.name for job in jobs if job.slurm_id is not None])
        taken = {run for element in live_elements(jobs, entries) for run in element.runs}
        limits, queued, refused = read_limits(profile), len(queue()), why_refused(profile)
        if refused is not None:
            lines.append(f"SLURM would refuse these jobs: {refused}")
    except SchedulerUnreachable as words:
        limits, queued = Limits(), 0
        lines.append(f"The cluster could not be asked, so that its limits and its queue are not known: {words}")
    doubtful = [job.name for job in jobs if job.is_in_doubt]
    if doubtful:
        lines.append(f"A launch first finds out whether SLURM has {', '.join(doubtful)}.")
    if taken:
        lines.append(f"In the queue already and left alone: {len(taken)} run{'' if len(taken) == 1 else 's'}.")
    plan = make_plan(sweep, folder)
    packs = jobs_to_start([run for run in plan.in_state(*STARTABLE) if run.run_id not in taken], profile)
    if packs:
        lines[:0] = look_ahead(packs, profile, limits, queued).lines
    return plan, packs, lines
