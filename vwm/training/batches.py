"""The runs of a pack in the batches that are computed together, on a GPU recorded and replayed."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from vwm.model.network import noise_law
from vwm.model.recurrence import POOL
from vwm.training.iteration import Computed, backward
from vwm.training.recorded import Recorded, can_be_recorded
from vwm.training.training_run import TrainingRun
from vwm.training.workers import Workers


class Batches:
    """Runs of one pack, in the batches that are computed together, for as long as the pack is trained."""

    def __init__(self, workers: Workers) -> None:
        """Nothing is recorded yet."""
        self._workers = workers
        self._too_many: float = float("inf")  # runs that the memory did not hold together
        self._may_record = workers.device.type == "cuda" and workers.size == 1
        self._stream = torch.cuda.Stream() if self._may_record else None  # type: ignore[no-untyped-call]
        self._together: list[int] = []  # the runs of the last call
        self._recorded: dict[tuple[int, ...], Recorded] = {}
        self._computed_once: set[tuple[int, ...]] = set()

    def iterate(self, runs: Sequence[TrainingRun], go_on: Callable[[], bool]) -> Iterator[tuple[TrainingRun, Computed]]:
        """One iteration of each of these runs, or, where they are recorded, all to the next thing that one has to save.

        The caller counts each one before it takes the next. What a run's iterations have made of it is complete when
        all are taken.

        Args:
            runs: of the pack, all that are still trained.
            go_on: asked between iterations that are recorded; they end soon when it says False.
        """
        together = [id(run) for run in runs]
        if together != self._together:
            # Once a run has left, the rest has other shapes, and what was kept for the old ones would fill the memory.
            self._forget()
            self._together = together
        for batch in self._divided(runs):
            yield from self._iterate_together(batch, go_on)

    def _forget(self) -> None:
        """Free what was kept for the next iteration: graphs, and with them the buffers that they write to."""
        self._recorded.clear()
        self._computed_once.clear()
        POOL.clear()
        if self._workers.device.type == "cuda":
            torch.cuda.empty_cache()

    def _divided(self, runs: Sequence[TrainingRun]) -> list[list[TrainingRun]]:
        """The runs that are computed together.

        On a GPU they are one batched computation for each law of the noise and way to compute. On a CPU batching gains
        nothing, and one by one each run's arithmetic is to the last bit what it is when the run is trained alone.
        """
        if not self._workers.batch_packs:
            return [[run] for run in runs]
        batches: dict[tuple[object, ...], list[TrainingRun]] = {}
        for run in runs:
            configuration = run.configuration
            way = configuration.training_params.matmul_precision, configuration.worth_compiling
            kind = (*noise_law(configuration.model_params), *way)
            batches.setdefault(kind, []).append(run)
        return list(batches.values())

    def _iterate_together(
        self, runs: Sequence[TrainingRun], go_on: Callable[[], bool]
    ) -> Iterator[tuple[TrainingRun, Computed]]:
        """Runs in one computation, or in halves for as long as the memory does not hold them together.

        Nothing is lost by a second try: the random numbers of an iteration do not depend on what was drawn before.
        """
        if len(runs) >= self._too_many:
            half = len(runs) // 2
            yield from self._iterate_together(runs[:half], go_on)
            yield from self._iterate_together(runs[half:], go_on)
            return
        try:
            computed = self._recorded_or_not(runs, go_on)
        except torch.OutOfMemoryError:
            if len(runs) == 1 and not self._recorded:
                raise
            computed = None
        if computed is not None:
            yield from computed
            return
        # Outside of the handler, whose traceback would keep the tensors of the failed try alive.
        if self._recorded:
            self._record_no_more("the memory may be missing that the graphs hold")
        else:
            self._too_many = len(runs)
        self._forget()
        yield from self._iterate_together(runs, go_on)

    def _recorded_or_not(
        self, runs: Sequence[TrainingRun], go_on: Callable[[], bool]
    ) -> Iterator[tuple[TrainingRun, Computed]]:
        key = tuple(id(run) for run in runs)
        if self._may_record and key not in self._recorded and key in self._computed_once and can_be_recorded(runs):
            self._record(key, runs)
        if key in self._recorded:
            return self._recorded[key].iterate(go_on)
        self._computed_once.add(key)
        with self._on_own_stream():
            rows = backward(runs, self._workers.rank)
        return iter([(run, Computed(row)) for run, row in zip(runs, rows, strict=True)])

    def _record(self, key: tuple[int, ...], runs: Sequence[TrainingRun]) -> None:
        assert self._stream is not None
        try:
            self._recorded[key] = Recorded(runs, self._stream)
        except RuntimeError as error:  # The memory does not hold it beside what is there, or a driver refuses.
            self._record_no_more(str(error).splitlines()[0])
        if not self._may_record:
            # Other graphs write to buffers that they share with the one that was not recorded, and these are gone.
            self._forget()

    def _record_no_more(self, reason: str) -> None:
        self._may_record = False
        print(f"Training goes on without a CUDA graph, more slowly: {reason}", file=sys.stderr)

    @contextmanager
    def _on_own_stream(self) -> Iterator[None]:
        """Compute on the stream that is recorded, where one may be, before and after all that is on the usual one."""
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            yield
        torch.cuda.current_stream().wait_stream(self._stream)
