"""What was computed from the responses of finished runs, kept so that only new results are read again.

A cache is a file of JSON lines, one a run, that only grows while it is used: an interruption loses nothing that was
computed. A line holds as long as the run's responses, the code of ``vwm.behaviour`` and its libraries stay the same.
"""

import concurrent.futures
import hashlib
import json
import multiprocessing
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from vwm.files import append_line, write_atomically
from vwm.sweep.archive import Archive
from vwm.sweep.grid import SweepRun
from vwm.sweep.profile import cores
from vwm.training.run_folder import RunFolder

Compute = Callable[[RunFolder, Archive], Any]
"""From a run's files to something that JSON holds. A module's function, so that other processes find it by name.
Raises UnreadableResponses."""

Progress = Callable[[int, int], None]
"""Told how many of how many runs are done."""

_BATCH = 4  # runs that a process is given at a time
_FEW = 6  # runs that are done before other processes would have started


@dataclass(frozen=True)
class Unreadable:
    """A finished run whose responses cannot be read."""

    why: str


def measured(
    runs: Sequence[SweepRun], folder: Path, name: str, compute: Compute, progress: Progress = lambda done, total: None
) -> dict[str, Any]:
    """What ``compute`` makes of each of these finished runs, by run id; ``Unreadable`` where it cannot.

    Args:
        folder: ``runs/<sweep>``; the cache is ``tables/cache/<name>.jsonl`` in it.
        compute: called on all cores of this machine.
    """
    archived = Archive(folder).checksums("responses.npz")
    cache = _Cache(folder / "tables" / "cache" / f"{name}.jsonl", _version(compute))
    results: dict[str, Any] = {}
    left: dict[str, _Responses] = {}
    for run in runs:
        responses = _Responses.of(RunFolder(folder / run.run_id).responses, archived.get(run.run_id))
        known = cache.look_up(run.run_id, responses)
        if known is None:
            left[run.run_id] = responses
        else:
            results[run.run_id] = known
    progress(len(results), len(runs))
    for run_id, result in _computed(list(left), folder, compute):
        results[run_id] = result if isinstance(result, Unreadable) else cache.add(run_id, left[run_id], result)
        progress(len(results), len(runs))
    cache.tidy({run.run_id for run in runs})
    return results


# ---------------------------------------------------------------------------------------------------------------
# The cache
# ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Responses:
    """The file a result was made from."""

    path: Path
    size: int  # bytes; −1 where there is no file
    modified: int | None  # time of modification in nanoseconds; None in the archive
    crc: int | None  # in the archive: CRC-32

    @classmethod
    def of(cls, path: Path, archived: tuple[int, int] | None) -> "_Responses":
        try:
            status = path.stat()
        except FileNotFoundError:
            size, crc = archived or (-1, None)
            return cls(path, size, None, crc)
        return cls(path, status.st_size, status.st_mtime_ns, None)

    def checksum(self) -> int:
        """CRC-32 of the content, which an archive has for every file without reading it."""
        return self.crc if self.crc is not None else zlib.crc32(self.path.read_bytes())


class _Cache:
    """A cache file, and those of its lines that were made by this version."""

    def __init__(self, path: Path, version: str) -> None:
        self.path = path
        self.version = version
        self.entries: dict[str, dict[str, Any]] = {}
        self.lines = 0
        self.is_torn = False  # whether the last line was cut while it was written
        if path.exists():
            with open(path, encoding="utf-8", errors="replace") as file:
                for line in file:
                    self.lines += 1
                    self._take(line)
                    self.is_torn = not line.endswith("\n")

    def _take(self, line: str) -> None:
        # Most lines that do not hold are of another version, which stands first; they need not be parsed.
        if not line.startswith(f'{{"version": "{self.version}"'):
            return
        try:
            entry = json.loads(line)
        except ValueError:  # the line of a process that was killed while it wrote
            return
        self.entries[entry["run_id"]] = entry

    def look_up(self, run_id: str, responses: _Responses) -> Any:
        """What is known of a run with these responses, or None."""
        entry = self.entries.get(run_id)
        if entry is None or entry["size"] != responses.size:
            return None
        # The time says at once that nothing was touched; the checksum, that a copy or an archive holds the same bytes.
        if entry["modified"] != responses.modified:
            if entry["crc"] != responses.checksum():
                return None
            if responses.modified is not None:
                self.add(run_id, responses, entry["result"])
        return entry["result"]

    def add(self, run_id: str, responses: _Responses, result: Any) -> Any:
        """Append what was made from these responses; returns it as it will be read again."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        entry = {
            "version": self.version,
            "run_id": run_id,
            "size": responses.size,
            "modified": responses.modified,
            "crc": responses.checksum(),
            "result": result,
        }
        line = json.dumps(entry)
        append_line(self.path, f"\n{line}" if self.is_torn else line)
        self.is_torn = False
        self.lines += 1
        self.entries[run_id] = json.loads(line)
        return self.entries[run_id]["result"]

    def tidy(self, runs: set[str]) -> None:
        """Write the file anew when most of its lines are of no use any more."""
        useful = [entry for run_id, entry in self.entries.items() if run_id in runs]
        if self.lines > 2 * len(useful):
            write_atomically(self.path, "".join(json.dumps(entry) + "\n" for entry in useful))


def _version(compute: Compute) -> str:
    """A short hash of everything but the responses that a result depends on."""
    import vwm.behaviour

    digest = hashlib.sha256(f"{compute.__module__}.{compute.__qualname__}".encode())
    for path in sorted(Path(vwm.behaviour.__path__[0]).glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    for package in ("numpy", "scipy", "pandas"):
        digest.update(f"{package} {metadata.version(package)}".encode())
    return digest.hexdigest()[:16]


# ---------------------------------------------------------------------------------------------------------------
# What is not in the cache
# ---------------------------------------------------------------------------------------------------------------


def _computed(runs: Sequence[str], folder: Path, compute: Compute) -> Iterator[tuple[str, Any]]:
    """Each run with its result, in the order in which they come."""
    if len(runs) <= _FEW or cores() == 1:
        for run in runs:
            yield from _compute_batch([run], folder, compute)
        return
    batches = [runs[start : start + _BATCH] for start in range(0, len(runs), _BATCH)]
    # Processes are started anew: a copy of this one would hold the locks of its threads.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(min(cores(), len(batches)), context) as pool:
        futures = [pool.submit(_compute_batch, batch, folder, compute) for batch in batches]
        try:
            for future in concurrent.futures.as_completed(futures):
                yield from future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _compute_batch(runs: Sequence[str], folder: Path, compute: Compute) -> list[tuple[str, Any]]:
    from vwm.behaviour.responses import UnreadableResponses

    archive = Archive(folder)
    results: list[tuple[str, Any]] = []
    for run in runs:
        try:
            results.append((run, compute(RunFolder(folder / run), archive)))
        except UnreadableResponses as error:
            results.append((run, Unreadable(str(error))))
    return results
