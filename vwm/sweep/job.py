"""One job: torchrun, started once for the runs of a pack, and the road by which a request to stop reaches them.

A signal to torchrun would kill its workers or leave them as orphans. So torchrun never sees one: this process turns the
signal into stop files in the runs' folders, the workers save at their next step and leave, and torchrun ends by itself.
The job holds nothing but where its runs are; it can be killed and started again at any moment.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from vwm.config import load_configuration
from vwm.files import Locked, locked
from vwm.sweep.claim import claimed
from vwm.training.run_folder import RunFolder, RunState

_POLL_S = 0.2


class Job:
    """The runs of a job, and what it was asked to do."""

    def __init__(self, runs: Sequence[RunFolder], processes: int, parent: int | None) -> None:
        self.runs = runs
        self.processes = processes
        self.parent = parent  # the launcher, whose death is a request to stop; None under a scheduler
        self.signals = 0

    def run(self) -> int:
        """Train what can be trained here; 0 when every run is finished or was stopped on request, otherwise 1."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._note)
        with ExitStack() as claims:
            mine = [run for run in self.runs if _claim(run, claims)]
            if mine:
                before = {run: run.read_state() for run in mine}
                exit_code = self._wait(_start_torchrun(mine, self.processes), mine)
                for run in mine:
                    _settle(run, before[run], exit_code)
        states = [run.read_state() for run in self.runs]
        return 0 if all(state is not None and state.phase in ("finished", "stopped") for state in states) else 1

    def _note(self, number: int, _: object) -> None:
        self.signals += 1

    def _wait(self, torchrun: "subprocess.Popen[bytes]", runs: Sequence[RunFolder]) -> int:
        """Wait for torchrun and its workers; returns its exit code."""
        asked = False
        while torchrun.poll() is None:
            if not asked and (self.signals or self._is_orphan()):
                asked = True
                _say("asked to stop: the runs save at their next step.")
                _ask_to_stop(runs)
            if self.signals > 1:
                # Asked twice: torchrun kills what has not left half a minute after this.
                self.signals = 1
                torchrun.terminate()
            time.sleep(_POLL_S)
        if torchrun.returncode < 0:
            # torchrun was killed and could not end its workers. They are asked; each lets go of its run's lock.
            _say(f"torchrun was killed by signal {-torchrun.returncode}; its workers are asked to save and leave.")
            _ask_to_stop(runs)
            while any(run.is_being_trained() for run in runs):
                time.sleep(_POLL_S)
        return torchrun.returncode

    def _is_orphan(self) -> bool:
        return self.parent is not None and os.getppid() != self.parent


def _claim(run: RunFolder, claims: ExitStack) -> bool:
    """Whether this job trains the run: nobody else does, and it is not finished."""
    with suppress(Locked):
        claims.enter_context(claimed(run))
        if run.is_finished():
            _say(f"{run.path.name} is finished.")
            return False
        if not run.is_being_trained():
            run.stop.unlink(missing_ok=True)  # A request to an earlier attempt.
            return True
    _say(f"{run.path.name} is left to the process that trains it.")
    return False


def _say(text: str) -> None:
    print(f"[job] {text}", flush=True)


def _ask_to_stop(runs: Sequence[RunFolder]) -> None:
    for run in runs:
        if not run.is_finished():
            run.request_stop("stop requested")


def _start_torchrun(runs: Sequence[RunFolder], processes: int) -> "subprocess.Popen[bytes]":
    """Start torchrun in a session of its own, so that a Ctrl-C in a terminal does not reach it."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=1", f"--nproc_per_node={processes}"]
    command += ["--rdzv_backend=c10d", "--rdzv_endpoint=localhost:0", "--max_restarts=0"]
    command += ["-m", "vwm", "train", *(str(run.path) for run in runs)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "VWM_JOB": "1"}
    # An ignored signal stays ignored in a child: SIGUSR2, which schedulers send to every process, kills a torchrun.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    return subprocess.Popen(command, env=environment, start_new_session=True, stdin=subprocess.DEVNULL)


def _settle(run: RunFolder, before: RunState | None, exit_code: int) -> None:
    """After torchrun has ended: no stale request to stop, and no run whose state does not say that it is over."""
    try:
        with locked(run.lock):
            run.stop.unlink(missing_ok=True)
            state = run.read_state()
            if run.is_finished():
                return
            if state is not None and state.phase in ("training", "evaluating"):
                how = f"killed by signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
                detail = f"its process ended early ({how})"
                run.write_state(replace(state, phase="interrupted", reason="killed", detail=detail))
            elif state == before and exit_code > 0:
                run.write_state(_refused(run, before, f"refused before training (exit code {exit_code}); see its log"))
    except Locked:
        return  # A process of another job trains the run, and answers for it.


def _refused(run: RunFolder, before: RunState | None, detail: str) -> RunState:
    """The state of a run whose process left before it wrote any."""
    if before is not None:
        return replace(before, phase="failed", reason="error", detail=detail)
    configuration, _ = load_configuration(run.config)
    iterations = configuration.training_params.num_iterations
    return RunState(phase="failed", iteration=0, num_iterations=iterations, attempt=1, reason="error", detail=detail)


def main() -> None:
    """The entry point: ``python -m vwm.sweep.job --processes P RUN_DIR [RUN_DIR …]``."""
    parser = argparse.ArgumentParser(prog="python -m vwm.sweep.job", description="Train the runs of one job.")
    parser.add_argument("--processes", type=int, default=1, help="processes that torchrun starts")
    parser.add_argument("--parent", type=int, help="stop when this process is gone")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR")
    arguments = parser.parse_args()
    sys.exit(Job([RunFolder(path) for path in arguments.runs], arguments.processes, arguments.parent).run())


if __name__ == "__main__":
    main()
