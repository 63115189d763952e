"""A job as SLURM runs it: on every node one task, which starts torchrun, saves before the end, and asks to be requeued.

What reaches a task: SIGUSR2 ahead of the time limit and, where the cluster grants it, ahead of a preemption; SIGTERM
for `scancel`, for `scontrol requeue` and for a preemption without notice; nothing when a node dies. After SIGUSR2 the
runs are saved and the job requeues itself. After SIGTERM SLURM has decided already: the runs are saved, and the task
waits for its end, since a job that ends by itself is complete and is not requeued.
"""

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from submitit import JobEnvironment

from vwm.errors import UserError
from vwm.sweep.breaker import advice, repeated_error
from vwm.sweep.job import ALONE, claim, run_torchrun, say, train
from vwm.sweep.ledger import Ledger
from vwm.sweep.slurm import SchedulerUnreachable, controller_answers, end_job, exclude, excluded_nodes, requeue
from vwm.training.run_folder import Reason, RunFolder, RunState

_LOSSES_BEFORE_EXCLUSION = 2
_WAIT_FOR_CLAIM_S = 180.0  # A file system may hold the lock of a node that died for a minute or two.
_WAIT_FOR_END_S = 900.0
_WAIT_FOR_CONTROLLER_S = 600.0
_EARLY_NOTICE_S = 60.0  # SLURM looks at time limits every half minute and may give notice that much too early.


class SlurmRequests:
    """What SLURM asks of this task, as signals."""

    def __init__(self, timeout_min: int, signal_delay_s: int) -> None:
        started = float(os.environ.get("SLURM_JOB_START_TIME", time.time()))
        self._notice_from = started + 60 * timeout_min - signal_delay_s - _EARLY_NOTICE_S
        self.notice: Reason | None = None  # SIGUSR2
        self.is_leaving = False  # SIGTERM
        signal.signal(signal.SIGUSR2, self._note_notice)
        signal.signal(signal.SIGTERM, self._note_end)

    def _note_notice(self, number: int, _: object) -> None:
        # The same signal announces both ends; which one is told by the clock.
        self.notice = self.notice or ("time limit" if time.time() >= self._notice_from else "preempted")

    def _note_end(self, number: int, _: object) -> None:
        self.is_leaving = True

    def reason(self) -> Reason | None:
        """Notice of an end, or the end itself."""
        return self.notice or ("stop requested" if self.is_leaving else None)

    def by_force(self) -> bool:
        """SLURM kills by itself."""
        return False


class TrainOnNodes:
    """What submitit calls on every node of a job; it holds where the runs are, and no progress."""

    def __init__(
        self, runs: list[str], processes_per_node: int, max_requeues: int, timeout_min: int, signal_delay_s: int
    ) -> None:
        self.runs = runs
        self.processes_per_node = processes_per_node
        self.max_requeues = max_requeues
        self.timeout_min = timeout_min
        self.signal_delay_s = signal_delay_s

    def __call__(self) -> None:
        """Train the runs; ends with exit code 1 if one of them failed or is damaged."""
        try:
            self._train()
        except UserError as error:
            say(str(error))
            sys.exit(1)

    def _train(self) -> None:
        requests = SlurmRequests(self.timeout_min, self.signal_delay_s)
        runs = [RunFolder(Path(path)) for path in self.runs]
        torchrun = _torchrun_arguments(self.processes_per_node)
        if _environment_number("SLURM_PROCID", 0) == 0:
            exit_code = self._lead(runs, torchrun, requests)
        else:
            unfinished = [run for run in runs if not run.is_finished()]
            exit_code = run_torchrun(unfinished, torchrun, requests, may_ask=False) if unfinished else 0
        if requests.reason() is not None and _are_to_go_on(runs):
            wait_for_the_end()
        sys.exit(1 if exit_code else 0)

    def _lead(self, runs: Sequence[RunFolder], torchrun: Sequence[str], requests: SlurmRequests) -> int:
        """The part of the first task: it claims the runs, writes the stop files, and decides what comes after."""
        restarts = _environment_number("SLURM_RESTART_COUNT", 0)
        began = ledger_of([run.path for run in runs]).size()
        with ExitStack() as claims:
            mine = [run for run in runs if not run.is_finished() and _claim_patiently(run, claims, requests)]
            if len(mine) < sum(not run.is_finished() for run in runs):
                return 1
            if restarts and mine:
                _note_lost_nodes(mine)
            if restarts > self.max_requeues:
                _give_up(mine, restarts)
                return 1
            bad_node = _bad_node(mine) if restarts and mine else None
            if bad_node is not None:
                _move_off(bad_node, mine, began)
            error = repeated_error(runs[0].path.parent) if mine else None
            if error is not None:
                say(advice(error))
                return 1
            if mine:
                train(mine, torchrun, requests)
        left = {run: state for run in mine if not run.is_finished() and (state := run.read_state()) is not None}
        to_go_on = {
            run: state
            for run, state in left.items()
            if state.phase == "interrupted"
            or (state.phase == "stopped" and state.reason in ("preempted", "time limit"))
        }
        if to_go_on and not requests.is_leaving:
            _go_back_to_the_queue(to_go_on, began)
        return 1 if any(state.phase == "failed" for state in left.values()) or to_go_on else 0


def _are_to_go_on(runs: Sequence[RunFolder]) -> bool:
    """Whether a later attempt has something to do."""
    unfinished = [run.read_state() for run in runs if not run.is_finished()]
    return any(state is None or state.phase != "failed" for state in unfinished)


def _environment_number(name: str, default: int) -> int:
    return int(os.environ.get(name) or default)


def _torchrun_arguments(processes_per_node: int) -> list[str]:
    """How the torchruns of a job's nodes find each other, and nobody else's."""
    nodes = _environment_number("SLURM_JOB_NUM_NODES", 1)
    here = [f"--nproc_per_node={processes_per_node}"]
    if nodes == 1:
        return [*ALONE, *here]
    job = int(os.environ["SLURM_JOB_ID"])
    # An element of an array has an id of its own, so jobs that share a node have ids, and with them ports, that differ.
    # The range lies below the ports that outgoing connections are given.
    port = 10_000 + job % 20_000
    attempt = f"{job}.{_environment_number('SLURM_RESTART_COUNT', 0)}"
    rendezvous = [
        f"--rdzv_id={attempt}",
        "--rdzv_backend=c10d",
        f"--rdzv_endpoint={JobEnvironment().hostnames[0]}:{port}",
    ]
    return [f"--nnodes={nodes}", *rendezvous, *here]


def _claim_patiently(run: RunFolder, claims: ExitStack, requests: SlurmRequests) -> bool:
    """Claim a run, waiting a while for the lock of an earlier attempt whose node died.

    Raises:
        UserError: its state is damaged, which waiting does not mend.
    """
    run.read_state()
    deadline = time.monotonic() + _WAIT_FOR_CLAIM_S
    while not claim(run, claims):
        if run.is_finished() or requests.reason() is not None or time.monotonic() > deadline:
            return False
        time.sleep(5)
    return True


def _note_lost_nodes(runs: Sequence[RunFolder]) -> None:
    """Write down where an attempt ended without a word.

    A run that still says it is in training when its job starts again was not asked to stop: its node, or everything
    on it, was killed.
    """
    lost = {state.host for run in runs if (state := run.read_state()) is not None and state.phase == "training"}
    if not lost:
        return
    for run in runs:
        state = run.read_state()
        if state is not None and state.phase in ("training", "evaluating"):
            run.write_state(replace(state, phase="interrupted", reason="node lost", detail=f"{state.host} was lost"))
    ledger = ledger_of([run.path for run in runs])
    for node in sorted(lost):
        say(f"the attempt before was lost on {node}.")
        ledger.lost(node)


def _bad_node(runs: Sequence[RunFolder]) -> str | None:
    """A node of this job that loses more attempts than all others together, if there is one.

    Where every node loses some, the cause is elsewhere, and keeping off them would leave no node at all.
    """
    losses = ledger_of([run.path for run in runs]).losses()
    for node, count in losses.most_common(1):
        if count >= _LOSSES_BEFORE_EXCLUSION and count > losses.total() / 2 and node in JobEnvironment().hostnames:
            return node
    return None


def _move_off(node: str, runs: Sequence[RunFolder], began: int) -> None:
    """Go back to the queue and keep off a node; does not return where SLURM agrees."""
    say(f"{node} has lost several attempts of this sweep: the job goes back to the queue and keeps off it.")
    job = own_id()
    # A running job cannot be kept off a node, a waiting one can, and this process has some seconds left. SIGTERM comes
    # at once and to every process; ignored here, it is ignored in SLURM's commands too.
    handler = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        nodes = ",".join(filter(None, (excluded_nodes(job), node)))
        requeue(job)
    except SchedulerUnreachable as error:
        say(f"SLURM did not do so: {error}")
        signal.signal(signal.SIGTERM, handler)
        return
    try:
        exclude(job, nodes)
    except SchedulerUnreachable as error:
        say(f"SLURM may start it on {node} again: {error}")
    end_if_cancelled(job, [run.path for run in runs], began)
    wait_for_the_end()


def own_id() -> str:
    """This job as SLURM's commands name it.

    One element of an array has the number of the array as its own, by which a command would mean all elements.
    """
    array, element = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{element}" if array and element else os.environ["SLURM_JOB_ID"]


def ledger_of(runs: Sequence[Path]) -> Ledger:
    """The ledger of the sweep that has these runs' folders."""
    return Ledger(runs[0].parent / "ledger.jsonl")


def _give_up(runs: Sequence[RunFolder], restarts: int) -> None:
    """Fail what is unfinished in a job that was requeued too often."""
    for run in runs:
        state = run.read_state()
        if state is not None and state.phase != "failed":
            why = state.reason or "killed"
            detail = f"its job was requeued {restarts} times, the last time because of: {why}; see max_requeues"
            run.write_state(replace(state, phase="failed", reason=why, detail=detail))
            say(f"{run.path.name}: {detail}")


def _go_back_to_the_queue(to_go_on: Mapping[RunFolder, RunState], began: int) -> None:
    """Have this job requeued; does not return. ``began``: bytes of the ledger when this attempt began."""
    job = own_id()
    # SLURM signals every process here as soon as it has agreed, and scontrol must not die before it has said so: the
    # job would take a requeue for a refusal, and cancel itself.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say(f"{next(iter(to_go_on.values())).reason}: the job goes back to the queue.")
    try:
        _requeue_patiently(job)
    except SchedulerUnreachable as words:
        detail = f"SLURM did not requeue its job ({words}); vwm-sweep launch goes on with it"
        for run, state in to_go_on.items():
            run.write_state(replace(state, detail=detail))
            say(f"{run.path.name}: {detail}")
        if _environment_number("SLURM_JOB_NUM_NODES", 1) > 1:
            with suppress(SchedulerUnreachable):
                end_job(job)  # The tasks of the other nodes wait for an end that the requeue would have brought.
        sys.exit(1)  # Nothing is left to wait for, and the nodes are free for others.
    end_if_cancelled(job, [run.path for run in to_go_on], began)
    wait_for_the_end()


def end_if_cancelled(job: str, runs: Sequence[Path], began: int) -> None:
    """Cancel a job that has gone back to the queue if its runs were cancelled after the ledger had ``began`` bytes.

    SLURM takes a requeue of a job that was just cancelled, and would start it again. Who cancels writes to the ledger
    first, so either this sees it, or the cancellation comes after the requeue and holds.
    """
    if {run.name for run in runs} <= ledger_of(runs).cancelled_since(began):
        say("its runs were cancelled, and so is the job.")
        with suppress(SchedulerUnreachable):
            end_job(job)


def _requeue_patiently(job: str) -> None:
    """Requeue a job; a controller that does not answer is perhaps only being restarted.

    Raises:
        SchedulerUnreachable: SLURM refused, or did not answer for as long as is worth waiting.
    """
    deadline = time.monotonic() + _WAIT_FOR_CONTROLLER_S
    while True:
        answered = controller_answers()
        try:
            return requeue(job)
        except SchedulerUnreachable:
            # It is a refusal only if the controller was there all the time, and did not come up only just now.
            if (answered and controller_answers()) or time.monotonic() > deadline:
                raise
        time.sleep(2)


def wait_for_the_end() -> None:
    """Wait to be killed: a task that ends by itself would count as complete."""
    deadline = time.monotonic() + _WAIT_FOR_END_S
    while time.monotonic() < deadline:
        time.sleep(1)
