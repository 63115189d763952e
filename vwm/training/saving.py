"""What is saved of a run goes to the disk while its next iterations are computed."""

from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

_THREADS = 4  # A disk has its answer sooner than four questions one after the other.


class Saving:
    """Writes files in threads: those of one run in the order in which they were asked for.

    Flushing the files of a pack of small networks takes a disk as long as a GPU takes for their iterations. A run has
    at most one thing under way; the next waits for it, so a run that is killed has lost no more than that.
    """

    def __init__(self) -> None:
        """No thread is started yet."""
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="saving")
        self._under_way: dict[Hashable, Future[None]] = {}

    def begin(self, run: Hashable, write: Callable[[], None]) -> None:
        """Call ``write`` in a thread, after what this run has under way; raises what that raised."""
        self.wait(run)
        self._under_way[run] = self._threads.submit(write)

    def wait(self, run: Hashable) -> None:
        """Until everything of this run is written; raises what the writing raised."""
        under_way = self._under_way.pop(run, None)
        if under_way is not None:
            under_way.result()

    def abandon(self, run: Hashable) -> None:
        """Until nothing of this run is being written, whatever comes of it: the run is lost already."""
        with suppress(Exception):
            self.wait(run)
