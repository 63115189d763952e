"""When several runs of a sweep fail with the same error, it is the code's or the machine's, and no more start."""

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

from vwm.files import read_json
from vwm.training.run_folder import RunFolder

SAME_ERRORS = 3


def repeated_error(sweep: Path) -> str | None:
    """The error with which at least `SAME_ERRORS` runs of this sweep's folder have failed, or None.

    Only failures with the reason "error" count: memory and numbers that are not finite are a run's own.
    """
    if not sweep.is_dir():
        return None
    details: Counter[str] = Counter()
    with os.scandir(sweep) as entries:
        for entry in entries:
            try:
                state = read_json(Path(entry.path) / "state.json") or {}
            except (NotADirectoryError, ValueError):
                continue
            if state.get("phase") == "failed" and state.get("reason") == "error" and state.get("detail"):
                details[state["detail"].replace(entry.name, "…")] += 1  # An error may name its run's folder.
    (detail, count), *_ = details.most_common(1) or [("", 0)]
    return detail if count >= SAME_ERRORS else None


def advice(error: str) -> str:
    """What a person is told when no more runs are started."""
    return (
        f"{SAME_ERRORS} or more runs failed with the same error, so no more are started: {error}\n"
        "Mend the cause, then: vwm-sweep retry"
    )


def forgive(run: RunFolder) -> None:
    """Let a failed run go on: somebody has looked at it, and its error no longer counts."""
    state = run.read_state()
    if state is not None and state.phase == "failed":
        run.write_state(replace(state, phase="stopped", reason="stop requested", detail=None))
