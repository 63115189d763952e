"""One job: torchrun, started once for the runs of a pack, and the road by which a request to stop reaches them.

A signal to torchrun would kill its workers or leave them as orphans. So torchrun never sees one: the job's process
turns the signal into stop files in the runs' folders, the workers save at their next step and leave, and torchrun ends
by itself. The job holds nothing but where its runs are; it can be killed and started again at any moment.
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
from tempfile import TemporaryDirectory
from typing import Protocol

from vwm.config_file import load_configuration
from vwm.errors import UserError
from vwm.files import Locked, locked
from vwm.sweep.claim import claimed
from vwm.sweep.memory import ADVICE, kernel_kills
from vwm.training.run_folder import Reason, RunFolder, RunState

POLL_S = 0.2
# torchrun on one machine, with a port that the system picks.
ALONE = ("--nnodes=1", "--rdzv_backend=c10d", "--rdzv_endpoint=localhost:0")


class Requests(Protocol):
    """What a job was asked to do."""

    def reason(self) -> Reason | None:
        """Why its runs are to save and stop now, or None."""

    def by_force(self) -> bool:
        """Whether what does not leave by itself is to be killed; said once."""


class LocalRequests:
    """Requests to a job of this machine: signals, and the death of the launcher that started it."""

    def __init__(self, parent: int | None) -> None:
        self._parent = parent
        self._signals = 0
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._note)

    def _note(self, number: int, _: object) -> None:
        self._signals += 1

    def reason(self) -> Reason | None:
        """A first signal, or that nobody is there any more who waits for this job."""
        orphan = self._parent is not None and os.getppid() != self._parent
        return "stop requested" if self._signals or orphan else None

    def by_force(self) -> bool:
        """A second signal."""
        again = self._signals > 1
        self._signals = min(self._signals, 1)
        return again


def run_job(runs: Sequence[RunFolder], processes: int, requests: Requests) -> int:
    """Train what can be trained here; 0 when every run is finished or was stopped on request, otherwise 1."""
    with ExitStack() as claims:
        mine = [run for run in runs if claim(run, claims)]
        if mine:
            train(mine, [*ALONE, f"--nproc_per_node={processes}"], requests)
    return 0 if all(_is_finished_or_stopped(run) for run in runs) else 1


def _is_finished_or_stopped(run: RunFolder) -> bool:
    try:
        state = run.read_state()
    except UserError:  # It is damaged, which was said when it was to be claimed.
        return False
    return state is not None and state.phase in ("finished", "stopped")


def train(runs: Sequence[RunFolder], torchrun: Sequence[str], requests: Requests) -> None:
    """Train runs that this job has claimed until torchrun ends; afterwards their states say how each was left."""
    before = {run: run.read_state() for run in runs}
    kills = kernel_kills()
    exit_code = run_torchrun(runs, torchrun, requests, may_ask=True)
    memory_ran_out = kernel_kills() > kills
    for run in runs:
        _settle(run, before[run], exit_code, requests.reason() is not None, memory_ran_out)


def claim(run: RunFolder, claims: ExitStack) -> bool:
    """Whether this job trains the run: nobody else does, it is not finished, and its state can be read."""
    try:
        run.read_state()
    except UserError as damage:
        say(str(damage))
        return False
    with suppress(Locked):
        claims.enter_context(claimed(run))
        if run.is_finished():
            say(f"{run.path.name} is finished.")
            return False
        if not run.is_being_trained():
            run.stop.unlink(missing_ok=True)  # A request to an earlier attempt.
            return True
    say(f"{run.path.name} is left to the process that trains it.")
    return False


def say(text: str) -> None:
    """A line in the job's log."""
    print(f"[job] {text}", flush=True)


def run_torchrun(runs: Sequence[RunFolder], arguments: Sequence[str], requests: Requests, may_ask: bool) -> int:
    """Start torchrun and wait until it and its workers have ended; returns its exit code.

    Args:
        runs: what it trains.
        arguments: of torchrun itself.
        requests: what this job is asked to do.
        may_ask: whether this process writes the stop files: of the processes of a job on several nodes, one does.
    """
    with TemporaryDirectory(prefix="vwm-torchrun-", ignore_cleanup_errors=True) as folder:
        # Not told where, torchrun leaves a folder among the temporary files of every node, and nobody removes it.
        return _wait_for(_start_torchrun(runs, [*arguments, f"--log-dir={folder}"]), runs, requests, may_ask)


def _wait_for(torchrun: "subprocess.Popen[bytes]", runs: Sequence[RunFolder], requests: Requests, may_ask: bool) -> int:
    """Hand requests on until torchrun and its workers have ended; returns its exit code."""
    asked = not may_ask
    while torchrun.poll() is None:
        reason = None if asked else requests.reason()
        if reason is not None:
            asked = True
            say(f"{reason}: the runs save at their next step.")
            _ask_to_stop(runs, reason)
        if requests.by_force():
            torchrun.terminate()  # It kills what has not left half a minute after this.
        time.sleep(POLL_S)
    if torchrun.returncode < 0 and may_ask:
        # torchrun was killed and could not end its workers. They are asked; each lets go of its run's lock.
        say(f"torchrun was killed by signal {-torchrun.returncode}; its workers are asked to save and leave.")
        _ask_to_stop(runs, "killed")
        while any(run.is_being_trained() for run in runs):
            time.sleep(POLL_S)
    return torchrun.returncode


def _ask_to_stop(runs: Sequence[RunFolder], reason: Reason) -> None:
    for run in runs:
        if not run.is_finished():
            run.request_stop(reason)


def _start_torchrun(runs: Sequence[RunFolder], arguments: Sequence[str]) -> "subprocess.Popen[bytes]":
    """Start torchrun in a session of its own, so that a Ctrl-C in a terminal does not reach it."""
    command = [sys.executable, "-m", "torch.distributed.run", *arguments, "--max_restarts=0"]
    command += ["-m", "vwm", "train", *(str(run.path) for run in runs)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "VWM_JOB": "1"}
    # An ignored signal stays ignored in a child: SIGUSR2, which schedulers send to every process, kills a torchrun.
    noted = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        return subprocess.Popen(command, env=environment, start_new_session=True, stdin=subprocess.DEVNULL)
    finally:
        signal.signal(signal.SIGUSR2, noted)


def _settle(run: RunFolder, before: RunState | None, exit_code: int, asked: bool, memory_ran_out: bool) -> None:
    """After torchrun has ended: no stale request to stop, and no run whose state does not say that it is over.

    A scheduler's signal goes to every process of a job. Workers that it met before they could note it have died without
    a word, so that where the job was asked to stop their exit says nothing about the run.
    """
    try:
        with locked(run.lock):
            run.stop.unlink(missing_ok=True)
            state = run.read_state()
            if run.is_finished():
                return
            has_begun = state != before
            was_killed = has_begun and state is not None and state.reason == "killed"  # as another worker of it saw it
            is_silent = state is not None and state.phase in ("training", "evaluating")
            if memory_ran_out and (is_silent or was_killed or not has_begun):
                run.write_state(_failed(run, state, "out of memory", ADVICE))
            elif state is not None and is_silent:
                how = f"killed by signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
                detail = f"its process ended early ({how})"
                run.write_state(replace(state, phase="interrupted", reason="killed", detail=detail))
            elif not has_begun and exit_code > 0 and not asked:
                detail = f"refused before training (exit code {exit_code}); see its log"
                run.write_state(_failed(run, before, "error", detail))
    except Locked:
        return  # A process of another job trains the run, and answers for it.


def _failed(run: RunFolder, state: RunState | None, reason: Reason, detail: str) -> RunState:
    """The state of a run that failed, which may have left before it wrote any."""
    if state is not None:
        return replace(state, phase="failed", reason=reason, detail=detail)
    configuration, _ = load_configuration(run.config)
    iterations = configuration.training_params.num_iterations
    return RunState(phase="failed", iteration=0, num_iterations=iterations, attempt=1, reason=reason, detail=detail)


def main() -> None:
    """The entry point: ``python -m vwm.sweep.job --processes P RUN_DIR [RUN_DIR …]``."""
    parser = argparse.ArgumentParser(prog="python -m vwm.sweep.job", description="Train the runs of one job.")
    parser.add_argument("--processes", type=int, default=1, help="processes that torchrun starts")
    parser.add_argument("--parent", type=int, help="stop when this process is gone")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR")
    arguments = parser.parse_args()
    requests = LocalRequests(arguments.parent)
    sys.exit(run_job([RunFolder(path) for path in arguments.runs], arguments.processes, requests))


if __name__ == "__main__":
    main()
