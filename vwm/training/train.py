"""Training a pack: runs that are iterated together in one process (or in the processes of one torchrun)."""

import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch

from vwm.errors import UserError
from vwm.files import Locked, locked, write_atomically
from vwm.model.network import batch_shape
from vwm.training import checkpoint
from vwm.training.batches import Batches
from vwm.training.evaluation import evaluate, write_result
from vwm.training.iteration import Computed
from vwm.training.progress import ProgressDisplay
from vwm.training.run_folder import Phase, Reason, RunFolder, RunState
from vwm.training.saving import Saving
from vwm.training.stopping import REASONS, StopRequests, is_part_of_a_job
from vwm.training.tracking import UNTRACKED, Tracker, Tracking
from vwm.training.training_run import TrainingRun, use_matmul_precision
from vwm.training.workers import WorkerLostError, Workers

_SECONDS_BETWEEN_HEARTBEATS = 2.0


class Member:
    """A run of the pack together with its folder: what the loop knows about it, and what it tells the world."""

    def __init__(self, folder: RunFolder, workers: Workers, saving: Saving) -> None:
        self.folder = folder
        self._saving = saving
        self.writes = workers.is_first
        self.run, self.notes = checkpoint.open_run(folder, workers.device, workers.size, self.writes)
        earlier = folder.read_state() if self.writes else None
        self.attempt = 1 if earlier is None else earlier.attempt + 1
        self.mean_abs_error = None if earlier is None else earlier.mean_abs_error
        self.phase: Phase = "training"
        self.tracker: Tracker | None = None
        self._processes = workers.size
        self._started_at, self._first_iteration = time.monotonic(), self.run.iteration
        self._last_heartbeat = 0.0

    @property
    def num_iterations(self) -> int:
        """Iterations at most; early stopping may end the run before."""
        return self.run.configuration.training_params.num_iterations

    @property
    def speed(self) -> float | None:
        """Iterations per second in this attempt."""
        done = self.run.iteration - self._first_iteration
        return done / (time.monotonic() - self._started_at) if done else None

    def tell(self, phase: Phase, reason: Reason | None = None, detail: str | None = None) -> None:
        """Write state.json, after everything else of this run."""
        self.phase = phase
        if self.writes:
            self._saving.wait(self)
            self.folder.write_state(self._state(reason, detail))
        if self.tracker is not None and phase not in ("training", "evaluating"):
            self.tracker.end(phase, reason)

    def _state(self, reason: Reason | None = None, detail: str | None = None) -> RunState:
        self._last_heartbeat = time.monotonic()
        return RunState(
            phase=self.phase,
            iteration=self.run.iteration,
            num_iterations=self.num_iterations,
            attempt=self.attempt,
            iterations_per_second=self.speed,
            mean_abs_error=self.mean_abs_error,
            reason=reason,
            detail=detail,
        )

    def show(self, display: ProgressDisplay) -> None:
        """Tell how far the run is."""
        display.advance(self.folder.path, self.run.iteration, self.num_iterations, self.speed, self.mean_abs_error)
        self.heartbeat()

    def heartbeat(self) -> None:
        """Begin to write state.json if the last time is some seconds ago."""
        is_due = time.monotonic() - self._last_heartbeat >= _SECONDS_BETWEEN_HEARTBEATS
        if self.writes and is_due:
            state = self._state()
            self._saving.begin(self, lambda: self.folder.write_state(state))

    def record(self) -> None:
        """Begin to write the history row and the checkpoint that are due after this iteration."""
        row = None
        if self.run.row_is_due:
            row = self.run.close_window()
            self.mean_abs_error = sum(row["mean_abs_error"]) / len(row["mean_abs_error"])
        self.save(row)

    def save(self, row: dict[str, Any] | None = None) -> None:
        """Begin to write the checkpoint, after a row of the history where one is given."""
        if not self.writes:
            return
        content, speed = checkpoint.snapshot(self.run, self._processes), self.speed
        keep_every = self.run.configuration.training_params.keep_every

        def write() -> None:
            if row is not None:
                checkpoint.append_history(self.folder, row)
            checkpoint.save(content, self.folder, keep_every)
            if self.tracker is not None:
                self.tracker.covered(speed)

        self._saving.begin(self, write)


def train_folders(folders: Sequence[RunFolder], tracking: Tracking = UNTRACKED) -> list[Phase]:
    """Train the runs of these folders together until each is finished, stopped or failed.

    Every folder holds config.yaml; a run goes on from its checkpoint. Under torchrun each process calls this once.

    Args:
        folders: of the runs.
        tracking: how they are mirrored in Weights & Biases; not, where not given.

    Returns:
        The phase each run was left in: "finished", "stopped" or "failed" (state.json holds the reason).

    Raises:
        UserError: a folder cannot be used, or another process trains it.
        WorkerLostError: another process of this torchrun is gone; the runs are marked as interrupted.
        Exception: whatever went wrong inside; the runs are marked as failed with the traceback. Only a lack of memory
            is not raised, since the reason and the advice say all there is to say.
    """
    workers = Workers()
    with ExitStack() as held:
        held.callback(workers.leave)
        if workers.is_first:
            for folder in folders:
                _take(folder, held)
        workers.wait_for_all()
        stop = held.enter_context(StopRequests())
        display = held.enter_context(ProgressDisplay(shown=workers.is_first))
        saving = Saving()
        pack = [_open(folder, workers, saving) for folder in folders]
        for member in pack:
            _check_fits(member, pack[0])
            display.say(member.notes)
            display.begin(member.folder.path, member.run.iteration, member.num_iterations)
            member.tell("training")
            if member.writes and tracking.mode != "disabled":
                configuration = member.run.configuration
                member.tracker = Tracker(member.folder, configuration, member.attempt, tracking, display.say)
                held.callback(member.tracker.wait)
        try:
            _train(pack, workers, stop, display)
        except WorkerLostError as error:
            for member in pack:
                saving.abandon(member)
                if member.phase in ("training", "evaluating"):
                    member.tell("interrupted", "killed", f"another process of this run was lost: {_summary(error)}")
            raise
        except Exception as error:
            for member in pack:
                saving.abandon(member)
                if member.phase in ("training", "evaluating"):
                    _fail(member, error, display)
            if not _is_out_of_memory(error):
                raise
    return [member.phase for member in pack]


def _take(folder: RunFolder, held: ExitStack) -> None:
    """Lock a run's folder for as long as this process lives, and forget stop requests to an earlier attempt."""
    try:
        held.enter_context(locked(folder.lock))
    except Locked:
        state = folder.read_state()
        by = "" if state is None else f" (process {state.pid} on {state.host})"
        raise UserError(
            f"{folder.path}: another process{by} trains this run just now. Wait for it, or stop it."
        ) from None
    if not is_part_of_a_job():
        folder.stop.unlink(missing_ok=True)


def _open(folder: RunFolder, workers: Workers, saving: Saving) -> Member:
    """Read a run's folder; one that cannot be used is marked as failed, or status would go on calling it new."""
    try:
        return Member(folder, workers, saving)
    except Exception as error:
        if workers.is_first:
            before = folder.read_state() or RunState("failed", iteration=0, num_iterations=0, attempt=0)
            failed = replace(before, phase="failed", attempt=before.attempt + 1, reason="error", detail=_summary(error))
            folder.write_state(failed)
            write_atomically(folder.traceback, traceback.format_exc())
        raise


def _check_fits(member: Member, first: Member) -> None:
    """Refuse a run that cannot be computed in one batch with the first of its pack."""
    ours, others = member.run.configuration, first.run.configuration
    same_trials = ours.training_params.num_trials == others.training_params.num_trials
    if not (same_trials and batch_shape(ours.model_params) == batch_shape(others.model_params)):
        raise UserError(
            f"{member.folder.path}: its network, task or num_trials differs in size from {first.folder.path}, so the "
            "two cannot be trained as one pack. Train them one by one."
        )


def _summary(error: BaseException) -> str:
    """An error on one line; a UserError speaks for itself."""
    lines = str(error).strip().splitlines() or [""]
    return lines[0] if isinstance(error, UserError) else f"{type(error).__name__}: {lines[0]}"


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _fail(member: Member, error: Exception, display: ProgressDisplay) -> None:
    """Mark a run as failed, with the reason and what to do."""
    if member.writes:
        write_atomically(member.folder.traceback, traceback.format_exc())
    if _is_out_of_memory(error):
        detail = "out of memory: lower training_params.num_trials, or take a device with more memory"
        member.tell("failed", "out of memory", detail)
    else:
        detail = _summary(error)
        member.tell("failed", "error", detail)
    display.end(member.folder.path, f"failed: {detail}")


# ---------------------------------------------------------------------------------------------------------------
# The loop
# ---------------------------------------------------------------------------------------------------------------


def _train(pack: Sequence[Member], workers: Workers, stop: StopRequests, display: ProgressDisplay) -> None:
    """Iterate the pack; a member leaves it when it is finished, stopped or failed."""
    active = list(pack)
    batches = Batches(workers)
    while True:
        for member in [member for member in active if member.run.ended_by is not None]:
            _conclude(member, stop, display)
            active.remove(member)
        if not active:
            return
        failed, reasons = _iterate(active, workers, batches, stop, display)
        for member, reason in zip(list(active), reasons, strict=True):
            if member in failed:
                _quarantine(member, display)
                active.remove(member)
                continue
            if member.run.is_to_be_saved:
                member.record()
                member.show(display)
            if reason is not None and member.run.ended_by is None:
                _leave_unfinished(member, reason, display)
                active.remove(member)


def _iterate(
    active: Sequence[Member], workers: Workers, batches: Batches, stop: StopRequests, display: ProgressDisplay
) -> tuple[list[Member], list[Reason | None]]:
    """Iterate every member once or more, until something may have to be saved.

    Returns:
        Those whose loss or gradient was not finite, and for each member why it should stop, or None.
    """

    def go_on() -> bool:
        are_training = any(member.run.ended_by is None for member in active)
        return are_training and all(stop.reason(member.folder) is None for member in active)

    computed = batches.iterate([member.run for member in active], go_on)
    reasons: list[Reason | None] | None = None
    if workers.size > 1:
        computed, reasons = _add_up(active, list(computed), workers, stop)
    of_run = {id(member.run): member for member in active}
    failed: list[Member] = []
    for run, each in computed:
        member = of_run[id(run)]
        if member in failed or run.ended_by is not None:
            continue  # The GPU has left it as it was.
        if not each.count(run, workers.size):
            failed.append(member)
            continue
        if not run.is_to_be_saved:
            member.show(display)
    return failed, reasons or [stop.reason(member.folder) for member in active]


def _add_up(
    active: Sequence[Member], computed: Sequence[tuple[TrainingRun, Computed]], workers: Workers, stop: StopRequests
) -> tuple[Iterator[tuple[TrainingRun, Computed]], list[Reason | None]]:
    """Average the gradients over all processes, and add up what was measured and who was asked to stop.

    All ranks then decide alike.
    """
    gradients = [[p.grad for p in run.network.parameters() if p.grad is not None] for run, _ in computed]
    flat = [torch.cat([gradient.flatten() for gradient in each]) for each in gradients]
    stops = torch.zeros(len(active), len(REASONS), dtype=torch.float64)
    for row, member in zip(stops, active, strict=True):
        # Only the first process looks at files, since two might see a new file at different steps.
        reason = stop.reason(member.folder) if workers.is_first else stop.signalled()
        if reason is not None:
            row[REASONS.index(reason)] = 1
    vectors = [each.measured for _, each in computed]
    shared = torch.cat([*vectors, stops.flatten().to(workers.device)])
    workers.add_up(shared, *flat)
    for each, total in zip(gradients, flat, strict=True):
        means = torch.split(total / workers.size, [gradient.numel() for gradient in each])
        for gradient, mean in zip(each, means, strict=True):
            gradient.copy_(mean.view_as(gradient))
    *sums, flags = torch.split(shared, [*(len(vector) for vector in vectors), stops.numel()])
    reasons = [
        next((reason for reason, count in zip(REASONS, row, strict=True) if count > 0), None)
        for row in flags.view_as(stops).tolist()
    ]
    added_up = [(run, replace(each, measured=total)) for (run, each), total in zip(computed, sums, strict=True)]
    return iter(added_up), reasons


# ---------------------------------------------------------------------------------------------------------------
# Three ways to leave the pack
# ---------------------------------------------------------------------------------------------------------------


def _conclude(member: Member, stop: StopRequests, display: ProgressDisplay) -> None:
    """Evaluate a run whose training has ended and write its result; the first process does this for all."""
    run, folder = member.run, member.folder
    if run.ended_by == "no training" and not folder.checkpoint.exists():
        member.save()
    member.tell("evaluating")
    if not member.writes:
        member.phase = "finished"
        return

    def go_on(done: int, total: int) -> bool:
        member.heartbeat()
        return stop.reason(folder) is None

    use_matmul_precision(run.configuration)
    evaluation = evaluate(
        run.network, run.configuration.model_params.item_num, go_on, compile=run.configuration.worth_compiling
    )
    if evaluation is None:
        _leave_unfinished(member, stop.reason(folder) or "stop requested", display)
        return
    assert run.ended_by is not None
    result = write_result(folder, evaluation, run.configuration, run.iteration, run.ended_by)
    folder.stop.unlink(missing_ok=True)  # It came too late to stop anything.
    member.mean_abs_error = sum(result["mean_abs_error"]) / len(result["mean_abs_error"])
    member.tell("finished")
    ended = {"num_iterations": "all iterations done", "early stopping": "stopped early, no better loss"}
    why = ended.get(run.ended_by, run.ended_by)
    display.end(folder.path, f"finished at iteration {run.iteration} ({why}), error {member.mean_abs_error:.3f} rad")


def _leave_unfinished(member: Member, reason: Reason, display: ProgressDisplay) -> None:
    """Save a run that was asked to stop, so that the next attempt goes on from here."""
    if member.phase == "training":
        member.save()
    if member.writes:
        member.folder.stop.unlink(missing_ok=True)
    member.tell("stopped", reason)
    display.end(member.folder.path, f"{reason}: saved at iteration {member.run.iteration}; start it again to go on")


def _quarantine(member: Member, display: ProgressDisplay) -> None:
    """Fail a run whose loss or gradient is not finite; the last good checkpoint stays as it is."""
    detail = (
        f"the loss or a gradient is not finite in iteration {member.run.iteration + 1}; the state before it is in "
        f"{member.folder.failed_state.name}. A smaller training_params.eta often helps."
    )
    if member.writes:
        checkpoint.save_for_inspection(member.run, member.folder)
    member.tell("failed", "nan", detail)
    display.end(member.folder.path, f"failed: {detail}")
