"""A drill: on the user's own cluster, a small run is interrupted in three ways and compared with one that was not.

First a job measures how fast the cluster trains, so that the two runs last longer than the time limit of their jobs on
any machine. Everything goes the way of a real sweep: the same submission, the same jobs, the same files.
"""

import io
import re
import shlex
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.text import Text

from vwm.errors import UserError
from vwm.files import dump_yaml, write_atomically
from vwm.sweep import slurm
from vwm.sweep.drill_report import Step, are_close, report, rows
from vwm.sweep.grants import Grant, ask_for_grants
from vwm.sweep.grid import Sweep, read_sweep
from vwm.sweep.ledger import Job, Ledger
from vwm.sweep.limits import why_refused
from vwm.sweep.plan import STARTABLE
from vwm.sweep.profile import Profile, SlurmProfile
from vwm.sweep.scheduled import why_waiting
from vwm.sweep.slurm import QueueEntry, SchedulerUnreachable, ask
from vwm.sweep.submit import Submission
from vwm.training.run_folder import RunFolder, RunState

_TIME_LIMIT_MIN = 2
_SIGNAL_DELAY_S = 20  # SLURM gives notice of the limit this long before, or up to a minute earlier.
_TRAINING_S = 140  # Two short attempts and one up to the limit fit in, whenever the notice comes.
_ROUNDS = 3  # at most, where cores that were busy while the speed was measured become free
_UNDISTURBED_MIN = 20  # at most; the two runs may share the cores of a node
_MEASURE_S = 8.0
_POLL_S = 1.0
_POLLS_PER_QUEUE = 5
_GONE_S = 20.0  # A file system may show the last files of a job so late.
_CONFIGURATION: dict[str, dict[str, Any]] = {
    "model_params": {
        **{"max_item_num": 3, "item_num": [1, 2, 3], "num_neurons": 16, "dt": 20, "tau_min": 40, "tau_max": 200},
        **{"spike_noise_factor": 0.2, "T_init": 20, "T_stimi": 60, "T_delay": 60, "T_decode": 60},
    },
    "training_params": {
        **{"num_trials": 24, "eta": 1e-3, "logging_period": 20},
        **{"adaptive_lr_patience": 40, "early_stop_patience": 100_000_000},
    },
}
_FILES = ("history.jsonl", "checkpoint.pt", "responses.npz", "result.json")

_NO_REQUEUE = (
    "this cluster does not let a job requeue itself: runs stop there, and launch has to be called again; "
    "ask for JobRequeue=1 and the right to scontrol requeue"
)
_TOO_SLOW = "a run could not save in time: raise signal_delay_s in the profile, and look at the job's log"


class _OverError(Exception):
    """The drill cannot go on; the message says why."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class _OneRun:
    """A sweep of one run in the drill's folder."""

    sweep: Sweep
    profile: SlurmProfile
    path: Path  # the sweep's folder

    @property
    def name(self) -> str:
        return self.sweep.name

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.path / self.sweep.runs[0].run_id)

    def jobs(self) -> list[Job]:
        """The jobs that SLURM was given, the latest last."""
        return [job for job in Ledger(self.path / "ledger.jsonl").jobs() if job.slurm_id]

    def live(self) -> QueueEntry | None:
        """Its latest job, while it waits or runs."""
        job = self.jobs()[-1]
        ours = [entry for entry in slurm.queue([job.name]) if entry.array_id == job.slurm_id]
        return ours[0] if ours else None


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
        self._runs: list[_OneRun] = []
        self._began, self._began_at = time.monotonic(), time.time()
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
                raise _OverError(f"SLURM refuses a job of this profile: {refusal}", 2)
            self.folder.mkdir(parents=True)
            self._say(f"The drill takes seven minutes or more. Its files: {self.folder}")
            grants = self._drill()
        except _OverError as over:
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
        iterations = self._measure()
        for number in range(1, _ROUNDS + 1):
            started = len(self.steps)
            disturbed = self._submit(f"disturbed-{number}", iterations, _TIME_LIMIT_MIN)
            undisturbed = self._submit(f"undisturbed-{number}", iterations, _UNDISTURBED_MIN)
            found = re.search(r"\bPartition=([^\s,]+)", ask("scontrol", "show", "job", self._id(disturbed)))
            self._give_notice(disturbed)
            self._requeue(disturbed)
            self._run_into_the_limit(disturbed)
            state = disturbed.folder.read_state()
            if number == _ROUNDS or state is None or all(step.verdict != "not seen" for step in self.steps[started:]):
                break
            self._say(
                "The runs were too short, for training is faster than it was measured. Once more, with longer ones."
            )
            self._cancel([undisturbed])
            del self.steps[started:]
            iterations = _round(max(2 * iterations, (state.iterations_per_second or 0) * _TRAINING_S))
        for one in (disturbed, undisturbed):
            self._finish(one)
        self.steps.append(self._compare(undisturbed, disturbed))
        ends = self._ends(disturbed)
        return ask_for_grants(found[1] if found else "?", ends is not None)

    # -- the steps ---------------------------------------------------------------------------------------------

    def _measure(self) -> int:
        """How many iterations take ``_TRAINING_S`` here."""
        one = self._submit("speed", 100_000_000, _TIME_LIMIT_MIN)
        first = self._wait_for_training(one, 1)
        if first is None:
            raise _OverError("The first job ended before it had trained; see its log.")
        latest = first
        while latest.heartbeat - first.heartbeat < _MEASURE_S:
            state = self._look(one)
            if state is None or state.phase != "training":
                raise _OverError("The first job was interrupted before its speed was known. Repeat the drill.")
            latest = state
        speed = (latest.iteration - first.iteration) / (latest.heartbeat - first.heartbeat)
        self._cancel([one])
        layout = f"{self.profile.nodes} × {self.profile.processes_per_node} processes on {latest.host}"
        self.steps.append(Step("a job starts and trains", f"{speed:.3g} iterations/s, {layout}", "passed"))
        return _round(speed * _TRAINING_S)

    def _give_notice(self, one: _OneRun) -> None:
        what = "notice (SIGUSR2), as before a preemption"
        before = self._wait_for_training(one, 1)
        if before is None:
            self.steps.append(Step(what, "the run ended before", "not seen"))
            return
        self._say(f"{one.name}: is given notice")
        ask("scancel", "--signal=USR2", self._id(one))  # to the steps, as SLURM does it
        self.steps.append(self._see_it_go_on(one, what, before.attempt))

    def _requeue(self, one: _OneRun) -> None:
        what = "scontrol requeue, as an administrator does"
        state = one.folder.read_state()
        before = self._wait_for_training(one, state.attempt if state else 1)
        if before is None:
            self.steps.append(Step(what, "the run ended before", "not seen"))
            return
        self._say(f"{one.name}: scontrol requeue")
        try:
            slurm.requeue(self._id(one))
        except SchedulerUnreachable as words:
            self.steps.append(Step(what, f"SLURM refused: {words}", "failed", _NO_REQUEUE))
            return
        self.steps.append(self._see_it_go_on(one, what, before.attempt))

    def _run_into_the_limit(self, one: _OneRun) -> None:
        what = f"the time limit ({_TIME_LIMIT_MIN} min)"
        while not one.folder.is_finished():
            state = one.folder.read_state()
            attempt = state.attempt if state else 1
            step = self._see_it_go_on(one, what, attempt)
            if "time limit" in step.seen or step.verdict == "failed":
                self.steps.append(step)
                return
        self.steps.append(Step(what, "the run was finished before", "not seen", "repeat the drill"))

    def _see_it_go_on(self, one: _OneRun, what: str, attempt: int) -> Step:
        """Wait for the attempt after this one, and say how the run came there."""
        left: RunState | None = None  # as the interrupted attempt left it

        def note(state: RunState | None) -> None:
            nonlocal left
            if state is not None and state.attempt == attempt and state.phase in ("stopped", "interrupted"):
                left = state

        later = self._wait_for_training(one, attempt + 1, note)
        how = f"saved at iteration {left.iteration} ({left.reason})" if left else "was not seen to save"
        if later is not None:
            return Step(what, f"{how}; attempt {later.attempt} went on", "passed")
        if one.folder.is_finished():
            return Step(what, "the run was finished before", "not seen", "repeat the drill")
        ends = self._ends(one)
        words = f" ({', '.join(ends)})" if ends else ""
        step = Step(what, f"{how}; its job left the queue{words}", "failed", _NO_REQUEUE if left else _TOO_SLOW)
        self._say(f"{one.name}: its job is gone; launched again")
        self._launch(one)
        return step

    def _finish(self, one: _OneRun) -> None:
        """Wait for the end of a run, launching again what does not come back by itself."""
        while self._wait(one, lambda state: False, f"{one.name}: waiting for its end") == "gone":
            self._launch(one)
        deadline = time.monotonic() + _GONE_S
        while one.live() is not None and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def _compare(self, undisturbed: _OneRun, disturbed: _OneRun) -> Step:
        what = "the same results as the undisturbed run"
        state = disturbed.folder.read_state()
        attempts = "" if state is None else f"{state.attempt} attempts; "
        ends = Counter(self._ends(disturbed) or ())
        attempts += f"in sacct {', '.join(f'{count} × {word}' for word, count in ends.items())}; " if ends else ""
        folders = (undisturbed.folder.path, disturbed.folder.path)
        different = [name for name in _FILES if (folders[0] / name).read_bytes() != (folders[1] / name).read_bytes()]
        if not different:
            return Step(what, f"{attempts}equal to the byte: {', '.join(_FILES)}", "passed")
        seen = f"{attempts}not equal: {', '.join(different)}"
        if self.profile.gpus and are_close(*(rows(folder / "history.jsonl") for folder in folders)):
            return Step(what, f"{seen}; the histories are close, which is all that GPUs promise", "passed")
        return Step(what, seen, "failed", "please report it with the two folders")

    # -- waiting -----------------------------------------------------------------------------------------------

    def _wait_for_training(
        self, one: _OneRun, attempt: int, note: Callable[[RunState | None], None] = lambda state: None
    ) -> RunState | None:
        """The state of the run when this attempt, or a later one, has done iterations; None if it ended before."""
        first: RunState | None = None

        def has_trained(state: RunState | None) -> bool:
            nonlocal first
            note(state)
            if state is None or state.attempt < attempt or state.phase != "training":
                return False
            if first is None or first.attempt != state.attempt:
                first = state
            return state.iteration > first.iteration

        ended = self._wait(one, has_trained, f"{one.name}: waiting until attempt {attempt} trains")
        return one.folder.read_state() if ended == "there" else None

    def _wait(
        self, one: _OneRun, condition: Callable[[RunState | None], bool], what: str
    ) -> Literal["there", "finished", "gone"]:
        """Wait for the condition, for the end of the run, or until its job has left the queue without either.

        Raises:
            _OverError: the run failed.
        """
        polls, gone_since = 0, None
        while True:
            state = self._look(one)
            if condition(state):
                return "there"
            if one.folder.is_finished():
                return "finished"
            polls += 1
            if polls % _POLLS_PER_QUEUE:
                continue
            entry = one.live()
            if entry is not None:
                gone_since = None
                where = why_waiting(entry.reason) if entry.state == "PENDING" else f"on {entry.nodes}"
                self._say(f"{what}: {entry.state.lower()}, {where}")
                continue
            gone_since = gone_since or time.monotonic()
            if time.monotonic() - gone_since > _GONE_S:
                return "gone"

    def _look(self, one: _OneRun) -> RunState | None:
        """The run's state, a moment later."""
        time.sleep(_POLL_S)
        state = one.folder.read_state()
        if state is not None and state.phase == "failed":
            raise _OverError(
                f"{one.name} failed: {state.detail or state.reason}. Its log: vwm-sweep logs "
                f"{one.folder.path.name} --runs {shlex.quote(str(self.folder))}"
            )
        return state

    # -- jobs --------------------------------------------------------------------------------------------------

    def _submit(self, name: str, iterations: int, limit_min: int) -> _OneRun:
        training = {**_CONFIGURATION["training_params"], "num_iterations": iterations}
        path = self.folder / f"{name}.yaml"
        content = {"name": name, "base": {**_CONFIGURATION, "training_params": training}, "seeds": 1}
        write_atomically(path, dump_yaml(content))
        one = _OneRun(read_sweep(path), self._profile(limit_min), self.folder / name)
        self._runs.append(one)
        self._launch(one)
        return one

    def _launch(self, one: _OneRun) -> None:
        said = io.StringIO()
        exit_code = Submission(one.sweep, one.path, one.profile, Console(file=said, width=1000)).run(STARTABLE)
        if exit_code:
            raise _OverError(" ".join(said.getvalue().split()), exit_code)
        self._say(f"{one.name}: submitted as job {one.jobs()[-1].slurm_id}")

    def _profile(self, limit_min: int) -> SlurmProfile:
        """The user's layout, with a short time and nobody who gets mail."""
        short = {"timeout_min": limit_min, "signal_delay_s": _SIGNAL_DELAY_S, "max_requeues": 50}
        return self.profile.model_copy(
            update={**short, "runs_per_job": 1, "jobs_at_a_time": None, "mail_user": None, "mail_type": None}
        )

    def _id(self, one: _OneRun) -> str:
        entry = one.live()
        if entry is None:
            raise _OverError(f"{one.name}: its job is no longer in the queue.")
        return entry.job_id

    def _ends(self, one: _OneRun) -> list[str] | None:
        """How the attempts of its jobs ended, in SLURM's words; None where there is no accounting."""
        jobs = one.jobs()
        entries = slurm.accounting([job.slurm_id for job in jobs if job.slurm_id], self._began_at)
        names = {job.name for job in jobs}
        return None if entries is None else [entry.state for entry in entries if entry.name in names]

    def _cancel(self, runs: Sequence[_OneRun]) -> list[QueueEntry]:
        names = [job.name for one in runs for job in Ledger(one.path / "ledger.jsonl").jobs()]
        live = [entry for entry in slurm.queue(names) if entry.name in names] if names else []
        slurm.cancel(live)
        return live

    def _clear_up(self) -> None:
        """Leave no job behind, however the drill ended."""
        try:
            live = self._cancel(self._runs)
        except SchedulerUnreachable as words:
            self._say(f"Jobs may be left, for SLURM cannot be asked: {words}. To end them later:", "red")
            for one in self._runs:
                self._say(f"vwm-sweep cancel {one.name} --runs {shlex.quote(str(self.folder))}")
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


def _round(iterations: float) -> int:
    """Whole logging periods."""
    return max(40, 20 * round(iterations / 20))
