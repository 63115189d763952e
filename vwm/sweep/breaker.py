"""When several runs of a sweep fail with the same error, it is the code's or the machine's, and no more start."""

import os
from collections import Counter
from pathlib import Path

from vwm.files import read_json

SAME_ERRORS = 3


def repeated_error(sweep: Path) -> str | None:
    """The error with which at least `SAME_ERRORS` runs of this sweep's folder have failed, or None.

    Only failures with the reason "error" count: memory and numbers that are not finite are a run's own.
    """
    details: Counter[str] = Counter()
    with os.scandir(sweep) as entries:
        for entry in entries:
            try:
                state = read_json(Path(entry.path) / "state.json") or {}
            except (NotADirectoryError, ValueError):
                continue
            if state.get("phase") == "failed" and state.get("reason") == "error" and state.get("detail"):
                details[state["detail"]] += 1
    (detail, count), *_ = details.most_common(1) or [("", 0)]
    return detail if count >= SAME_ERRORS else None
