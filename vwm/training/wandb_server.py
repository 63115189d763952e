"""What a W&B server holds of our runs, asked with as few requests as there can be."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from vwm.errors import UserError

_RUNS_PER_REQUEST = 200
_TRIES = 6
_TIMEOUT_S = 30
_REFUSED = ("401", "403", "api key", "permission", "not logged in", "could not find project")

T = TypeVar("T")


@dataclass(frozen=True)
class StoredRun:
    """A run as the server has it."""

    run_id: str
    state: str
    heartbeat: str  # when a client last sent something; whatever changes a run changes it
    summary: Mapping[str, Any]  # empty in a list without summaries


def stored_rows(path: str) -> int:
    """How many rows of history the server has of the run entity/project/id."""
    import wandb

    return wandb.Api(timeout=_TIMEOUT_S).run(path).lastHistoryStep + 1


def stored_runs(path: str, filters: Mapping[str, Any], *, summaries: bool) -> list[StoredRun]:
    """The runs of a project, 200 a request.

    Args:
        path: entity/project, or project for the entity of the environment or of the key.
        filters: a Mongo query, as for ``wandb.Api().runs``.
        summaries: whether to ask for their summaries, which are most of what is sent.

    Raises:
        UserError: the server refuses, or does not answer after several tries.
    """
    import wandb

    def listed() -> list[StoredRun]:
        api = wandb.Api(timeout=_TIMEOUT_S)
        runs = api.runs(path, dict(filters), per_page=_RUNS_PER_REQUEST, lazy=not summaries)
        return [
            StoredRun(run.id, run.state, run.heartbeat_at, dict(run.summary_metrics) if summaries else {})
            for run in runs
        ]

    try:
        return patiently(listed)
    except Exception as error:  # wandb raises its own errors, those of requests, and ValueError.
        raise UserError(
            f"W&B, {path}: {one_line(error)}. Look at WANDB_BASE_URL, WANDB_API_KEY and the names."
        ) from None


def stored_summaries(path: str, run_ids: Sequence[str]) -> list[StoredRun]:
    """These runs of a project with their summaries, 200 a request; errors as in `stored_runs`."""
    found: list[StoredRun] = []
    for start in range(0, len(run_ids), _RUNS_PER_REQUEST):
        names = list(run_ids[start : start + _RUNS_PER_REQUEST])
        found += stored_runs(path, {"name": {"$in": names}}, summaries=True)
    return found


def patiently(ask: Callable[[], T], gives_up: threading.Event | None = None) -> T:
    """What ``ask`` returns, tried again after 1, 2, 4, … seconds for as long as it fails and that may help."""
    for attempt in range(_TRIES):
        try:
            return ask()
        except Exception as error:
            if attempt == _TRIES - 1 or is_refused(error):
                raise
        if gives_up is None:
            time.sleep(2**attempt)
        elif gives_up.wait(2**attempt):
            break
    raise UserError("it was stopped")


def is_refused(error: Exception) -> bool:
    """Whether asking again cannot help."""
    return any(word in str(error).lower() for word in _REFUSED)


def one_line(error: Exception) -> str:
    """An error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
