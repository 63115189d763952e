"""Launching a sweep on this machine: a few jobs at a time, in the foreground, with a live table."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from vwm.errors import UserError
from vwm.sweep.breaker import advice, repeated_error
from vwm.sweep.doubt import alone, settle_earlier_intents
from vwm.sweep.grid import Sweep
from vwm.sweep.ledger import Ledger
from vwm.sweep.plan import ObservedRun, Plan, State, jobs_to_start, make_plan, observe
from vwm.sweep.profile import LocalProfile
from vwm.sweep.provenance import record_launch
from vwm.sweep.slurm import SchedulerUnreachable
from vwm.sweep.status import COLOURS, errors_view, heading, name_run, runs_table
from vwm.training.mirror import tracking_mode
from vwm.training.run_folder import RunFolder, prepare_run_folder

_POLL_S = 0.2
_SECONDS_BETWEEN_LINES = 30.0  # where the output is no terminal
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class _ActiveJob:
    """A job that was started here and has not been seen to end."""

    name: str
    runs: list[ObservedRun]
    process: "subprocess.Popen[bytes]"
    told_to_leave: bool = False  # its workers, after the job itself was killed


class Launch:
    """One launch of a sweep. It trains the runs it is given, each at most once, and leaves live runs alone."""

    def __init__(self, sweep: Sweep, folder: Path, profile: LocalProfile, console: Console) -> None:
        """Writes nothing yet; ``folder`` is runs/<sweep>."""
        self.sweep = sweep
        self.folder = folder.absolute()
        self.profile = profile
        self.console = console
        self.ledger = Ledger(self.folder / "ledger.jsonl")
        self._repeated_error: str | None = None  # with which so many runs failed that no more are started
        self.stops = 0  # how often somebody asked for an end
        self._observed: dict[str, ObservedRun] = {}
        self._left: tuple[ObservedRun, ...] = ()
        self._active: list[_ActiveJob] = []
        self._prefix = f"{sweep.name}-{secrets.token_hex(4)}"
        self._started = 0
        self._read_up_to = 0  # bytes of the ledger in which cancellations were looked for

    def run(self, states: Sequence[State], only: Sequence[str] | None = None) -> int:
        """Train the runs that are in one of ``states`` (of these ids, if ``only`` is given) until none is left.

        Returns:
            0 when every run of the sweep is finished, 130 after a request to stop, otherwise 1.

        Raises:
            UserError: nobody knows whether SLURM has some of the runs.
        """
        self._settle_doubts()
        record_launch(self.sweep, self.folder, self.profile)
        (self.folder / "logs").mkdir(exist_ok=True)
        plan = make_plan(self.sweep, self.folder)
        self._observed = {observed.run_id: observed for observed in plan.runs}
        self._left = plan.left
        wanted = [run for run in plan.in_state(*states) if only is None or run.run_id in only]
        waiting = jobs_to_start(wanted, self.profile)
        self._read_up_to = self.ledger.size()
        with self._signals(), self._display() as show:
            while self._active or (waiting and not self.stops):
                waiting = self._without_cancelled(waiting) if self._repeated_error is None else []
                while waiting and not self.stops and len(self._active) < self.profile.concurrency:
                    self._start(waiting.pop(0), states)
                self._look()
                show()
                time.sleep(_POLL_S)
        return 130 if self.stops else 0 if self.plan().counts()["finished"] == len(self.sweep.runs) else 1

    def plan(self) -> Plan:
        """The runs as they were last seen."""
        return Plan(tuple(self._observed.values()), self._left)

    def _settle_doubts(self) -> None:
        """What an earlier launch has perhaps given to SLURM is not trained here as well."""
        if not any(job.is_in_doubt for job in self.ledger.jobs()):
            return

        def say(line: str, style: str) -> None:
            self._print(Text(line, style))

        try:
            with alone(self.folder, say):
                settle_earlier_intents(self.folder, self.ledger, say)
        except SchedulerUnreachable as words:
            raise UserError(
                f"An earlier launch has perhaps given runs of this sweep to SLURM, which cannot be asked: {words}. "
                "Launch again where, or when, it answers."
            ) from None

    # -- jobs --------------------------------------------------------------------------------------------------

    def _without_cancelled(self, waiting: list[list[ObservedRun]]) -> list[list[ObservedRun]]:
        """The packs without the runs that somebody cancelled since the last look."""
        end = self.ledger.size()
        cancelled = self.ledger.cancelled_since(self._read_up_to)
        self._read_up_to = end
        kept = [[run for run in pack if run.run_id not in cancelled] for pack in waiting] if cancelled else waiting
        dropped = sum(map(len, waiting)) - sum(map(len, kept))
        if dropped:
            self._print(Text(f"{dropped} waiting {'run was' if dropped == 1 else 'runs were'} cancelled", "yellow"))
        return [pack for pack in kept if pack]

    def _start(self, pack: Sequence[ObservedRun], states: Sequence[State]) -> None:
        """Start a job for what is still to be done of a pack: others may have been at work since the plan."""
        runs = []
        for planned in pack:
            observed = self._observe(planned)
            if observed.state in states:
                runs.append(observed)
            elif observed.state == "running":
                self._say("left to the process that trains it", observed)
        if not runs:
            return
        paths = []
        for observed in runs:
            assert observed.run is not None
            paths.append(prepare_run_folder(self.folder / observed.run_id, observed.run.configuration).path)
        name = f"{self._prefix}-{self._started}"
        self._started += 1
        self.ledger.intends(name, [[observed.run_id for observed in runs]])
        command = [sys.executable, "-m", "vwm.sweep.job", "--processes", str(self.profile.processes_per_job)]
        command += ["--parent", str(os.getpid()), *map(str, paths)]
        with open(self.folder / "logs" / f"{name}.log", "ab") as log:
            # A session of its own: a Ctrl-C in the terminal comes here and is passed on once, as SIGTERM.
            process = subprocess.Popen(
                command,
                env={**os.environ, "WANDB_MODE": tracking_mode(None, self.profile.wandb)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.ledger.started(name, process.pid)
        self._active.append(_ActiveJob(name, runs, process))
        for observed in runs:
            self._say("started" if observed.state == "new" else "goes on", observed)

    def _look(self) -> None:
        """See how the runs are, and which jobs have ended."""
        for observed in list(self._observed.values()):
            if observed.state == "running":
                self._observe(observed)
        for job in list(self._active):
            for observed in job.runs:
                self._observe(observed)
            exit_code = job.process.poll()
            if exit_code is None or self._has_orphans(job, exit_code):
                continue
            self._active.remove(job)
            self.ledger.ended(job.name, exit_code)
            if exit_code and self._repeated_error is None:
                self._repeated_error = repeated_error(self.folder)
                if self._repeated_error is not None:
                    self._print(Text(advice(self._repeated_error), "red"))
            for observed in job.runs:
                self._say_how_it_ended(self._observe(observed), job)

    def _has_orphans(self, job: _ActiveJob, exit_code: int) -> bool:
        """Whether workers outlive a job that was killed; they are asked to save and leave."""
        alive = [
            folder
            for folder in (RunFolder(self.folder / run.run_id) for run in job.runs)
            if exit_code < 0 and folder.is_being_trained()
        ]
        if alive and not job.told_to_leave:
            job.told_to_leave = True
            self._print(Text(f"job {job.name} was killed; its runs are asked to save and stop", "yellow"))
            for folder in alive:
                folder.request_stop("killed")
        return bool(alive)

    def _observe(self, earlier: ObservedRun) -> ObservedRun:
        now = observe(self.folder, earlier.run_id, earlier.run)
        self._observed[earlier.run_id] = now
        return now

    # -- requests to stop --------------------------------------------------------------------------------------

    @contextmanager
    def _signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._stop) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: object) -> None:
        """Pass the request on to the jobs; the loop goes on until they have left."""
        self.stops += 1
        for job in self._active:
            if job.process.poll() is None:
                job.process.terminate()

    # -- what a person sees ------------------------------------------------------------------------------------

    @contextmanager
    def _display(self) -> Iterator[Callable[[], None]]:
        """Gives the function that shows how things are: a live table, or now and then a line in a file."""
        if self.console.is_terminal:
            with Live(self._view(), console=self.console, auto_refresh=False, transient=True) as live:
                yield lambda: live.update(self._view(), refresh=True)
            return
        last = time.monotonic()

        def show_line() -> None:
            nonlocal last
            if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
                last = time.monotonic()
                self._print(heading(self.sweep.name, self.plan()))

        yield show_line

    def _view(self) -> RenderableType:
        plan = self.plan()
        parts: list[RenderableType] = [Text(), heading(self.sweep.name, plan)]
        running = plan.in_state("running")
        if running:
            rows = max(1, self.console.height - 10)
            parts += [Text(), runs_table(self.sweep.axes, running, rows)]
        if self.stops == 1:
            parts.append(Text("Stopping: the runs save at their next step. Ctrl-C again ends them by force.", "yellow"))
        elif self.stops:
            parts.append(Text("Ending by force what has not left within half a minute.", "red"))
        return Group(*parts)

    def _say_how_it_ended(self, observed: ObservedRun, job: _ActiveJob) -> None:
        record = observed.record
        if observed.state == "finished" and record is not None and record.mean_abs_error is not None:
            self._say("finished", observed, f"mean |error| {record.mean_abs_error:.3f} rad")
        elif observed.state == "running":
            self._say("left to the process that trains it", observed)
        elif observed.state == "new":
            self._say("did not start", observed, f"see {self.folder / 'logs' / job.name}.log")
        else:
            why = "" if record is None or record.reason in (None, "stop requested") else f"{record.reason}"
            self._say(observed.state, observed, why)
            if observed.state in ("failed", "interrupted"):
                for line in errors_view([observed]):
                    self._print(line)

    def _say(self, what: str, observed: ObservedRun, more: str = "") -> None:
        colour = COLOURS[observed.state] if what == observed.state else ""
        self._print(Text.assemble((f"{what:<11} ", colour), name_run(observed), f"  {more}" if more else ""))

    def _print(self, line: Text) -> None:
        # A terminal gets its lines broken between words; a file gets them whole.
        self.console.print(line, soft_wrap=not self.console.is_terminal)
