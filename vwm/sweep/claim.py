"""The claim of a job on a run: from before torchrun starts until after it has ended, no other job takes the run.

A worker locks its run only when it has come up, seconds after its job began. Two launches at the same moment would
both find the run free in between, and the slower would train anew what the faster had finished.
"""

import contextlib
import os
from collections.abc import Iterator

from vwm.files import is_locked, locked
from vwm.training.run_folder import RunFolder

_NAME = "job.lock"  # Held by the job, and let go of by the kernel if the job is killed; its time is the job's start.


@contextlib.contextmanager
def claimed(run: RunFolder) -> Iterator[None]:
    """Hold the claim on a run.

    Raises:
        Locked: another job holds it.
    """
    with locked(run.path / _NAME):
        os.utime(run.path / _NAME)
        yield


def claimed_at(run: RunFolder) -> float | None:
    """When the job began that carries the run now (Unix time), or None where there is none."""
    path = run.path / _NAME
    return path.stat().st_mtime if is_locked(path) else None
