"""One run of a drill: a sweep of one run, launched like any other, and watched from outside."""

import io
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from vwm.files import dump_yaml, write_atomically
from vwm.sweep import slurm
from vwm.sweep.grid import read_sweep
from vwm.sweep.ledger import Job, Ledger
from vwm.sweep.plan import STARTABLE
from vwm.sweep.profile import SlurmProfile
from vwm.sweep.scheduled import why_waiting
from vwm.sweep.slurm import QueueEntry
from vwm.sweep.submit import Submission
from vwm.training.run_folder import RunFolder, RunState

LOGGING_PERIOD = 20
KEEP_EVERY = 100  # The checkpoints of these iterations stay, and are compared.
# The network is small enough to train some iterations a second anywhere, and would train for ever: a drill ends it.
_CONFIGURATION: dict[str, dict[str, Any]] = {
    "model_params": {
        **{"max_item_num": 3, "item_num": [1, 2, 3], "num_neurons": 16, "dt": 20, "tau_min": 40, "tau_max": 200},
        **{"spike_noise_factor": 0.2, "T_init": 20, "T_stimi": 60, "T_delay": 60, "T_decode": 60},
    },
    "training_params": {
        **{"num_iterations": 100_000_000, "num_trials": 24, "eta": 1e-3, "adaptive_lr_patience": 40},
        **{"early_stop_patience": 100_000_000, "logging_period": LOGGING_PERIOD, "keep_every": KEEP_EVERY},
    },
}
_POLL_S = 1.0
_POLLS_PER_QUESTION = 5  # SLURM's controller serves a whole cluster.
_GONE_S = 20.0  # A file system may show the last files of a job so late.


class OverError(Exception):
    """The drill cannot go on; the message says why."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class DrillRun:
    """A run in the folder of a drill, and the jobs that carry it."""

    def __init__(self, name: str, folder: Path, profile: SlurmProfile, say: Callable[[str], None]) -> None:
        """Writes the sweep file; nothing is submitted yet.

        Args:
            name: of the run's sweep.
            folder: of the drill.
            profile: what a job gets.
            say: how a person is told what is waited for.
        """
        write_atomically(folder / f"{name}.yaml", dump_yaml({"name": name, "base": _CONFIGURATION, "seeds": 1}))
        self.name, self.profile = name, profile
        self._say = say
        self._sweep = read_sweep(folder / f"{name}.yaml")
        self._path = folder / name
        self._began = time.time()
        self.folder = RunFolder(self._path / self._sweep.runs[0].run_id)

    # -- its jobs ----------------------------------------------------------------------------------------------

    def launch(self) -> None:
        """Submit it, the first time or again.

        Raises:
            OverError: nothing was submitted.
        """
        said = io.StringIO()
        exit_code = Submission(self._sweep, self._path, self.profile, Console(file=said, width=1000)).run(STARTABLE)
        if exit_code:
            raise OverError(" ".join(said.getvalue().split()), exit_code)
        self._say(f"{self.name}: submitted as job {self._jobs()[-1].slurm_id}")

    def _jobs(self) -> list[Job]:
        """The jobs that SLURM was given, the latest last."""
        return [job for job in Ledger(self._path / "ledger.jsonl").jobs() if job.slurm_id]

    def live(self) -> list[QueueEntry]:
        """Its jobs that wait or run, also one of which nobody noted that it was submitted."""
        names = [job.name for job in Ledger(self._path / "ledger.jsonl").jobs()]
        return [entry for entry in slurm.queue(names) if entry.name in names] if names else []

    def job_id(self) -> str:
        """SLURM's id of the job that waits or runs.

        Raises:
            OverError: there is none.
        """
        live = self.live()
        if not live:
            raise OverError(f"{self.name}: its job is no longer in the queue. {self._log()}")
        return live[-1].job_id

    def ends(self) -> list[str] | None:
        """How the attempts of its jobs ended, in SLURM's words; None where there is no accounting."""
        jobs = self._jobs()
        entries = slurm.accounting([job.slurm_id for job in jobs if job.slurm_id], self._began)
        names = {job.name for job in jobs}
        if entries is None:
            return None
        return [entry.state for entry in entries if entry.name in names and entry.state not in ("RUNNING", "PENDING")]

    def cancel(self) -> list[QueueEntry]:
        """Take its jobs out of the queue; gives them."""
        live = self.live()
        slurm.cancel(live)
        return live

    def _log(self) -> str:
        return f"Its log: vwm-sweep logs {self.folder.path.name} --runs {shlex.quote(str(self._path.parent))}"

    # -- waiting -----------------------------------------------------------------------------------------------

    def wait_for_training(
        self, attempt: int = 1, note: Callable[[RunState], None] = lambda state: None
    ) -> RunState | None:
        """The state of the run when this attempt, or a later one, has done iterations; None if its job ended before.

        Args:
            attempt: counted from 1.
            note: is given every state that is seen meanwhile.

        Raises:
            OverError: the run failed.
        """
        first: RunState | None = None
        there: RunState | None = None

        def has_trained() -> bool:
            nonlocal first, there
            state = self.folder.read_state()
            if state is None:
                return False
            note(state)
            if state.phase == "failed":
                raise OverError(f"{self.name} failed: {state.detail or state.reason}. {self._log()}")
            if state.attempt < attempt or state.phase != "training":
                return False
            if first is None or first.attempt != state.attempt:
                first = state
            there = state
            return state.iteration > first.iteration

        return there if self._wait(has_trained, f"waiting until attempt {attempt} trains") else None

    def checkpoint(self, iteration: int) -> Path:
        """Where the checkpoint of this iteration, a multiple of ``KEEP_EVERY``, stays."""
        return self.folder.numbered_checkpoints / f"checkpoint-{iteration:08d}.pt"

    def wait_for_checkpoint(self, iteration: int) -> None:
        """Return when there is the checkpoint of this iteration.

        Raises:
            OverError: the run's job ended before.
        """
        if not self._wait(self.checkpoint(iteration).exists, f"waiting for iteration {iteration}"):
            raise OverError(f"{self.name}: its job ended before iteration {iteration}. {self._log()}")

    def wait_for_end(self) -> None:
        """Wait until its job has left the queue."""
        self._wait(lambda: False, "waiting for its end", patience=0.0)

    def _wait(self, condition: Callable[[], bool], what: str, patience: float = _GONE_S) -> bool:
        """Wait for the condition; False if the job has left the queue for so long and it does not hold."""
        polls, gone_since = 0, None
        while not condition():
            time.sleep(_POLL_S)
            polls += 1
            if polls % _POLLS_PER_QUESTION:
                continue
            live = self.live()
            if live:
                gone_since = None
                where = why_waiting(live[-1].reason) if live[-1].state == "PENDING" else f"on {live[-1].nodes}"
                self._say(f"{self.name}: {what}: {live[-1].state.lower()}, {where}")
                continue
            gone_since = gone_since or time.monotonic()
            if time.monotonic() - gone_since >= patience:
                return False
        return True
