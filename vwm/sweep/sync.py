"""From the folders of a sweep's runs to Weights & Biases, on a machine with internet such as a login node.

What is sent is the history in a run's folder, together with what its offline runs say about attempts, speed and memory.
The server is asked how many rows it has, and gets the others. So a sync may be interrupted, repeated, or follow on
attempts that were online: every row arrives once. W&B's own ``wandb sync`` sends a log again from its beginning when it
was interrupted, and then rows stand there twice.
"""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from vwm.config_file import load_configuration
from vwm.files import read_json, write_atomically
from vwm.sweep.grid import SweepRun
from vwm.training.attachments import figures, is_checkpoint_wanted
from vwm.training.mirror import Measures, Mirror, flat, project, read_history, server
from vwm.training.offline_runs import read_offline_runs
from vwm.training.run_folder import RunFolder
from vwm.training.wandb_server import one_line, patiently, stored_rows

_AT_A_TIME = 8
_FINISH_TIMEOUT_S = 120.0

Outcome = Literal["synced", "up to date", "pending", "new"]


@dataclass(frozen=True)
class Synced:
    """What a run's folder remembers of its last sync: ``wandb/synced.json``."""

    server: str
    project: str
    rows: int
    is_finished: bool
    figures: Mapping[str, Sequence[int]]  # those of analyses: name → bytes, time of modification (ns)
    has_checkpoint: bool


@dataclass(frozen=True)
class SyncedRun:
    """How a run is after a sync."""

    run_id: str
    outcome: Outcome
    is_finished: bool  # whether nothing more can come
    why: str = ""  # it is pending


def sync(
    runs: Sequence[SweepRun],
    folder: Path,
    measures: Mapping[str, Measures],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[SyncedRun]:
    """Bring the server up to date with these runs, several at a time.

    Args:
        runs: of the sweep.
        folder: ``runs/<sweep>``.
        measures: of finished runs, by run id.
        progress: told how many are done.
    """
    done = 0
    lock = threading.Lock()
    stop = threading.Event()

    def one(run: SweepRun) -> SyncedRun:
        nonlocal done
        files = RunFolder(folder / run.run_id)
        try:
            synced = patiently(lambda: _sync_run(files, measures.get(run.run_id)), stop)
        except Exception as error:  # Whatever it is, the other runs go on.
            synced = SyncedRun(run.run_id, "pending", files.is_finished(), one_line(error))
        with lock:
            done += 1
            progress(done, len(runs))
        return synced

    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        try:
            return list(pool.map(one, runs))
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _sync_run(files: RunFolder, measures: Measures | None) -> SyncedRun:
    run_id = files.path.name
    if not files.config.exists() or not files.history.exists():
        return SyncedRun(run_id, "new", is_finished=False)
    is_finished = files.is_finished() and measures is not None
    if files.is_being_trained() and _is_online(files):
        return SyncedRun(run_id, "pending", False, "it is being trained, and mirrored by its own process")
    rows = read_history(files, 0, files.history.stat().st_size)
    if not _is_covered(files):
        rows = rows[:-1]
    drawn = {path.name: [(found := path.stat()).st_size, found.st_mtime_ns] for path in figures(files) if is_finished}
    mark = Synced(server(), project(), len(rows), is_finished, drawn, is_finished and is_checkpoint_wanted())
    path = files.path / "wandb" / "synced.json"
    if read_json(path) == asdict(mark):
        return SyncedRun(run_id, "up to date", is_finished)
    if not rows:
        return SyncedRun(run_id, "new", is_finished=False)
    _send(files, rows, measures if is_finished else None)
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, json.dumps(asdict(mark)) + "\n")
    return SyncedRun(run_id, "synced", is_finished)


def _send(files: RunFolder, rows: Sequence[Mapping[str, Any]], measures: Measures | None) -> None:
    """Send what is missing, and see that it has arrived."""
    offline = read_offline_runs(files)
    attempts = {name: facts for name, facts in offline.config.items() if name.startswith("attempt_")}
    configuration, _ = load_configuration(files.config)
    # What the client keeps meanwhile is of no use afterwards, and in the run's folder it would look like an attempt.
    with TemporaryDirectory(prefix="vwm-sync-", ignore_cleanup_errors=True) as place:
        mirror = Mirror(files, configuration, "online", attempts, _FINISH_TIMEOUT_S, Path(place))
        try:
            mirror.hand_on(0, [_facts(offline.rows.get(number, {})) | flat(row) for number, row in enumerate(rows)])
            if measures is not None:
                mirror.summarise(measures)
        finally:  # What was handed on before something failed is not lost by it.
            state = files.read_state()
            goes_on = measures is None and state is not None and state.phase != "failed"
            mirror.leave(exit_code=0 if measures is not None else 1, preempted=goes_on)
    arrived = stored_rows(mirror.path)
    if arrived < len(rows):
        raise ConnectionError(f"{arrived} of {len(rows)} rows have arrived")


def _facts(row: Mapping[str, Any]) -> dict[str, Any]:
    """What an offline run knows of a row beside what the history says; of W&B's own entries only the time."""
    return {name: value for name, value in row.items() if not name.startswith("_") or name == "_timestamp"}


def _is_covered(files: RunFolder) -> bool:
    """Whether the checkpoint covers the last row of the history: it is written after the row."""
    state = files.read_state()
    return files.is_finished() or (state is not None and state.phase in ("stopped", "evaluating"))


def _is_online(files: RunFolder) -> bool:
    """Whether the latest attempt sends its rows itself."""
    attempts = sorted(files.path.glob("wandb/*run-*-*"), key=lambda path: path.name.removeprefix("offline-"))
    return bool(attempts) and not attempts[-1].name.startswith("offline-")


def in_words(synced: Sequence[SyncedRun]) -> list[str]:
    """What a person is told after a sync."""
    counts = {outcome: sum(run.outcome == outcome for run in synced) for outcome in ("synced", "up to date", "pending")}
    unstarted = sum(run.outcome == "new" for run in synced)
    parts = [f"{count} {outcome}" for outcome, count in counts.items() if count]
    if unstarted:
        parts.append(f"{unstarted} with nothing to send yet")
    pending = [f"{run.run_id} is pending: {run.why}" for run in synced if run.outcome == "pending"]
    return [f"{len(synced)} runs: {', '.join(parts)}.", *pending]
