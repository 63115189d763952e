"""Requests to stop: a signal, or the stop file in a run's folder. They are only noted here; the loop obeys them."""

import math
import os
import signal
import time
from types import FrameType
from typing import get_args

from vwm.training.run_folder import Reason, RunFolder

REASONS: tuple[Reason, ...] = get_args(Reason)
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_SECONDS_BETWEEN_LOOKS = 0.25


class StopRequests:
    """Notes SIGTERM and SIGINT while it is entered, and looks for stop files when asked.

    Nothing is saved inside a signal handler: a handler may interrupt a collective or an allocation, where saving hangs.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._looked: dict[RunFolder, tuple[float, Reason | None]] = {}

    def __enter__(self) -> "StopRequests":
        self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        # torchrun passes a signal on that the terminal has sent to everybody already: the second one means no more.
        self.signal_number = self.signal_number or number

    def signalled(self) -> Reason | None:
        """The reason to stop that a signal to this process gave, or None."""
        return None if self.signal_number is None else "stop requested"

    def reason(self, folder: RunFolder) -> Reason | None:
        """Why this run should stop now, or None; the stop file knows more than the signal that may come with it.

        A file server is not asked at every iteration of every run: a stop file may be seen a quarter of a second late.
        """
        now = time.monotonic()
        at, found = self._looked.get(folder, (-math.inf, None))
        if self.signal_number is not None or now - at >= _SECONDS_BETWEEN_LOOKS:
            found = self._look(folder)
            self._looked[folder] = now, found
        return found

    def _look(self, folder: RunFolder) -> Reason | None:
        try:
            written = folder.stop.read_text().strip()
        except OSError:
            return self.signalled()
        return next((reason for reason in REASONS if reason == written), "stop requested")


def is_part_of_a_job() -> bool:
    """Whether a job of a sweep has started this process: the job clears old stop files, and answers for new ones."""
    return "VWM_JOB" in os.environ
