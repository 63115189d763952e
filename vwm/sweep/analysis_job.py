"""Analyses of a sweep's runs as a job of SLURM.

What an analysis has written is whole and is not done again, so that a job which was interrupted begins again and does
what is left. It asks to be requeued at notice of an end, as a job that trains does.
"""

import os
import signal
import sys
from pathlib import Path

from vwm.errors import UserError
from vwm.sweep.analyses import analyse_runs, left_of
from vwm.sweep.job import say
from vwm.sweep.slurm import SchedulerUnreachable, requeue
from vwm.sweep.slurm_job import SlurmRequests, end_if_cancelled, ledger_of, own_id, wait_for_the_end


class AnalyseOnNode:
    """What submitit calls in a job that analyses; it holds where the runs are, and no progress."""

    def __init__(
        self, runs: list[str], analyses: list[str], max_requeues: int, timeout_min: int, signal_delay_s: int
    ) -> None:
        self.runs = runs
        self.analyses = analyses
        self.max_requeues = max_requeues
        self.timeout_min = timeout_min
        self.signal_delay_s = signal_delay_s

    def __call__(self) -> None:
        """Do what is left of the analyses; ends with exit code 1 if some could not be done."""
        requests = SlurmRequests(self.timeout_min, self.signal_delay_s)
        runs = [Path(run) for run in self.runs]
        began = ledger_of(runs).size()
        try:
            wanted = left_of(runs, self.analyses)
        except UserError as error:
            say(str(error))
            sys.exit(1)

        def progress(done: int, total: int) -> None:
            say(f"{done} of {total} runs analysed.")

        failed = analyse_runs(wanted, runs[0].parent, progress, lambda: requests.reason() is not None)
        for one in failed:
            say(f"{one.run_id}: {one.why} ({one.log})")
        if requests.is_leaving:
            wait_for_the_end()  # SLURM has decided what comes next; a job that ends by itself would be complete.
        elif requests.notice is not None and left_of(runs, self.analyses):
            self._go_back_to_the_queue(requests.notice, runs, began)
        sys.exit(1 if failed else 0)

    def _go_back_to_the_queue(self, reason: str, runs: list[Path], began: int) -> None:
        """Have this job requeued, unless that was done too often; returns where it is not.

        ``began``: bytes of the ledger when this attempt began.
        """
        restarts = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
        if restarts >= self.max_requeues:
            say(f"{reason}: the job was requeued {restarts} times, and is not once more; see max_requeues.")
            return
        say(f"{reason}: the job goes back to the queue.")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # It comes as soon as SLURM agrees, to scontrol too.
        try:
            requeue(own_id())
        except SchedulerUnreachable as words:
            say(f"SLURM did not requeue it ({words}); vwm-sweep analyse goes on with its runs.")
            return
        end_if_cancelled(own_id(), runs, began)
        wait_for_the_end()
