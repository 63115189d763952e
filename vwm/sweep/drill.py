"""A drill: on the user's own cluster, a small run is interrupted in three ways and compared with one that was not.

Both would train for ever. The one is given notice, requeued, and run into its time limit; as soon as it has gone on
after that, both are ended, and what they have come to by the same iteration is compared. Everything goes the way of a
real sweep: the same submission, the same jobs, the same files.
"""

import re
import shlex
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.text import Text

from vwm.errors import UserError
from vwm.sweep import slurm
from vwm.sweep.drill_report import Step, are_close, report, rows
from vwm.sweep.drill_run import KEEP_EVERY, DrillRun, OverError
from vwm.sweep.grants import Grant, ask_for_grants
from vwm.sweep.limits import why_refused
from vwm.sweep.profile import Profile, SlurmProfile
from vwm.sweep.slurm import SchedulerUnreachable, ask
from vwm.training.run_folder import RunState

_TIME_LIMIT_MIN = 2
_SIGNAL_DELAY_S = 20  # SLURM gives notice of the limit this long before, or up to a minute earlier.
_UNDISTURBED_MIN = 30  # at most; it is ended with the other one
_TRIES = 4  # of an interruption that another one came before: the cluster's own, or the time limit of a slow start

_NO_REQUEUE = (
    "this cluster does not let a job requeue itself: runs stop there, and launch has to be called again; "
    "ask for JobRequeue=1 and the right to scontrol requeue"
)
_TOO_SLOW = "a run could not save in time: raise signal_delay_s in the profile, and look at the job's log"


class _RefusedError(Exception):
    """SLURM does not requeue a job; the message is what it said."""


class Drill:
    """One drill on a cluster."""

    def __init__(self, profile: Profile, origin: str, runs: Path, console: Console) -> None:
        """Writes nothing yet.

        Args:
            profile: the layout of the jobs, and where they run.
            origin: what the user calls it.
            runs: the folder of all sweeps; the drill makes a folder in it.
            console: where it says what it does.

        Raises:
            UserError: there is nothing to drill: a profile of this machine, or no sbatch.
        """
        if not isinstance(profile, SlurmProfile):
            raise UserError(
                f"{origin}: this profile trains on this machine, and a drill needs the jobs of a cluster. "
                "Name a profile with where: slurm, such as --on launch/slurm.yaml"
            )
        if shutil.which("sbatch") is None:
            raise UserError("There is no sbatch on this machine. Call drill on a login node of the cluster.")
        self.profile = profile
        self.console = console
        self.folder = runs / time.strftime("drill-%Y%m%d-%H%M%S")
        self.steps: list[Step] = []
        self._runs: list[DrillRun] = []
        self._began = time.monotonic()
        self._said = ""

    def run(self) -> int:
        """Do it.

        Returns:
            0 all passed, 1 something did not, 2 SLURM refused the jobs, 3 it could not be asked.
        """
        try:
            ask("scontrol", "ping")
            refusal = why_refused(self._profile(_UNDISTURBED_MIN))
            if refusal is not None:
                raise OverError(f"SLURM refuses a job of this profile: {refusal}", 2)
            self.folder.mkdir(parents=True)
            self._say(f"The drill takes four to ten minutes where no job has to wait. Its files: {self.folder}")
            grants = self._drill()
        except OverError as over:
            self._say(str(over), "red")
            if self.steps:
                self.console.print(report(self.steps, []))
            return over.exit_code
        except SchedulerUnreachable as words:
            self._say(f"SLURM cannot be asked: {words}", "red")
            return 3
        finally:
            self._clear_up()
        self.console.print(report(self.steps, grants))
        self._say(f"The folder may be deleted: {self.folder}")
        return 0 if all(step.verdict == "passed" for step in self.steps) else 1

    def _drill(self) -> list[Grant]:
        disturbed = self._start("disturbed", _TIME_LIMIT_MIN)
        undisturbed = self._start("undisturbed", _UNDISTURBED_MIN)
        found = re.search(r"\bPartition=([^\s,]+)", ask("scontrol", "show", "job", disturbed.job_id()))
        self._see_it_train(disturbed)
        self._give_notice(disturbed)
        self._requeue(disturbed)
        self._run_into_the_limit(disturbed)
        self._compare(undisturbed, disturbed)
        return ask_for_grants(found[1] if found else "?", disturbed.ends() is not None)

    # -- the steps ---------------------------------------------------------------------------------------------

    def _start(self, name: str, limit_min: int) -> DrillRun:
        run = DrillRun(name, self.folder, self._profile(limit_min), self._say)
        self._runs.append(run)
        run.launch()
        return run

    def _see_it_train(self, run: DrillRun) -> None:
        state = run.wait_for_training()
        if state is None:
            raise OverError(f"{run.name}: its job ended before it had trained.")
        layout = f"{self.profile.nodes} × {self.profile.processes_per_node} processes on {state.host}"
        self.steps.append(Step("a job starts and trains", layout, "passed"))

    def _give_notice(self, run: DrillRun) -> None:
        def interrupt() -> None:
            self._say(f"{run.name}: is given notice")
            ask("scancel", "--signal=USR2", run.job_id())  # to the steps, as SLURM does it

        self._interrupt(run, "notice (SIGUSR2), as before a preemption", "preempted", interrupt)

    def _requeue(self, run: DrillRun) -> None:
        def interrupt() -> None:
            self._say(f"{run.name}: scontrol requeue")
            job = run.job_id()
            try:
                slurm.requeue(job)
            except SchedulerUnreachable as words:
                raise _RefusedError(str(words)) from None

        self._interrupt(run, "scontrol requeue, as an administrator does", "stop requested", interrupt)

    def _run_into_the_limit(self, run: DrillRun) -> None:
        def wait() -> None:
            self._say(f"{run.name}: runs into its time limit, {_TIME_LIMIT_MIN} min after its start")

        self._interrupt(run, f"the time limit ({_TIME_LIMIT_MIN} min)", "time limit", wait)

    def _interrupt(self, run: DrillRun, what: str, reason: str, interrupt: Callable[[], None]) -> None:
        """Interrupt the run as soon as it trains, see it go on, and do so again if it was interrupted otherwise."""
        for _ in range(_TRIES):
            before = run.wait_for_training(_attempt(run))
            if before is None:
                self.steps.append(Step(what, "its job left the queue before", "not seen", "repeat the drill"))
                return
            try:
                interrupt()
            except _RefusedError as words:
                self.steps.append(Step(what, f"SLURM refused: {words}", "failed", _NO_REQUEUE))
                return
            step, met = self._see_it_go_on(run, what, before.attempt)
            if step.verdict == "failed" or met in (reason, None):
                self.steps.append(step)
                return
        self.steps.append(Step(what, f"{step.seen}, {_TRIES} times", "not seen", "repeat the drill"))

    def _see_it_go_on(self, run: DrillRun, what: str, attempt: int) -> tuple[Step, str | None]:
        """Wait for the attempt after this one, say how the run came there, and for which reason it saved, if it did."""
        left: RunState | None = None  # as the interrupted attempt left it

        def note(state: RunState) -> None:
            nonlocal left
            if state.attempt == attempt and state.phase in ("stopped", "interrupted"):
                left = state

        later = run.wait_for_training(attempt + 1, note)
        reason = left.reason if left else None
        how = f"saved at iteration {left.iteration} ({reason})" if left else "was not seen to save"
        if later is not None:
            return Step(what, f"{how}; attempt {later.attempt} went on", "passed"), reason
        ends = run.ends()
        words = f" ({', '.join(ends)})" if ends else ""
        step = Step(what, f"{how}; its job left the queue{words}", "failed", _NO_REQUEUE if left else _TOO_SLOW)
        self._say(f"{run.name}: its job is gone; launched again")
        run.launch()
        return step, reason

    def _compare(self, undisturbed: DrillRun, disturbed: DrillRun) -> None:
        what = "the same results as the undisturbed run"
        state = disturbed.wait_for_training(_attempt(disturbed))
        if state is None:
            raise OverError(f"{disturbed.name}: its job ended before it could be compared.")
        last = KEEP_EVERY * (state.iteration // KEEP_EVERY + 1)  # the first checkpoint that stays after the last start
        ends = Counter(disturbed.ends() or ())
        for run in (disturbed, undisturbed):
            run.wait_for_checkpoint(last)
        for run in (disturbed, undisturbed):
            run.cancel()
        for run in (disturbed, undisturbed):
            run.wait_for_end()
        told = f"{_attempt(disturbed)} attempts"
        told += f"; in sacct {', '.join(f'{count} × {word}' for word, count in ends.items())}" if ends else ""
        if _attempt(undisturbed) != 1:
            self.steps.append(Step(what, "the undisturbed run was interrupted too", "not seen", "repeat the drill"))
            return
        one, other = (rows(run.folder.history, last) for run in (undisturbed, disturbed))
        checkpoints = [
            (undisturbed.checkpoint(at), disturbed.checkpoint(at)) for at in range(KEEP_EVERY, last + 1, KEEP_EVERY)
        ]
        different = [of_one.name for of_one, of_other in checkpoints if of_one.read_bytes() != of_other.read_bytes()]
        if one == other and not different:
            seen = f"{told}; equal to the last bit up to iteration {last}: history and {len(checkpoints)} checkpoints"
            self.steps.append(Step(what, seen, "passed"))
        elif self.profile.gpus and are_close(one, other):
            seen = f"{told}; the histories up to iteration {last} are close, which is all that GPUs promise"
            self.steps.append(Step(what, seen, "passed"))
        else:
            names = [*(["history.jsonl"] if one != other else []), *different[:1]]
            seen = f"{told}; not equal: {', '.join(names)}"
            self.steps.append(Step(what, seen, "failed", "please report it with the folder of the drill"))

    # -- around them -------------------------------------------------------------------------------------------

    def _profile(self, limit_min: int) -> SlurmProfile:
        """The user's layout, with a short time and nobody who gets mail."""
        short = {"timeout_min": limit_min, "signal_delay_s": _SIGNAL_DELAY_S, "max_requeues": 50}
        return self.profile.model_copy(
            update={**short, "runs_per_job": 1, "jobs_at_a_time": None, "mail_user": None, "mail_type": None}
        )

    def _clear_up(self) -> None:
        """Leave no job behind, however the drill ended."""
        try:
            live = [entry for run in self._runs for entry in run.cancel()]
        except SchedulerUnreachable as words:
            self._say(f"Jobs may be left, for SLURM cannot be asked: {words}. To end them later:", "red")
            for run in self._runs:
                self._say(f"vwm-sweep cancel {run.name} --runs {shlex.quote(str(self.folder))}")
            return
        if live:
            targets = ", ".join(entry.target for entry in live)
            self._say(f"Cancelled: {targets}. The folder of the drill is left: {self.folder}", "yellow")

    def _say(self, line: str, style: str = "") -> None:
        if line == self._said:
            return
        self._said = line
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        self.console.print(Text(f"{minutes}:{seconds:02d}  {line}", style), soft_wrap=not self.console.is_terminal)


def _attempt(run: DrillRun) -> int:
    """The latest attempt of a run, counted from 1."""
    state = run.folder.read_state()
    return 1 if state is None else state.attempt
