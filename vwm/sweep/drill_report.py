"""What a drill has seen, as a table, and whether two histories are as close as GPUs promise."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vwm.sweep.grants import Grant

Verdict = Literal["passed", "failed", "not seen"]
_COLOURS: dict[Verdict, str] = {"passed": "green", "failed": "red", "not seen": "yellow"}


@dataclass(frozen=True)
class Step:
    """One thing that was tried."""

    what: str
    seen: str
    verdict: Verdict
    advice: str = ""


def rows(history: Path, last: int) -> list[dict[str, Any]]:
    """The rows of a history.jsonl up to this iteration."""
    everything = [json.loads(line) for line in history.read_text().splitlines()]
    return [row for row in everything if row["iteration"] <= last]


def are_close(first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]]) -> bool:
    """Whether two histories have the same iterations, and losses that differ by less than a tenth."""
    return [row["iteration"] for row in first] == [row["iteration"] for row in second] and all(
        math.isclose(one["loss"], other["loss"], rel_tol=0.1) for one, other in zip(first, second, strict=True)
    )


def report(steps: Sequence[Step], grants: Sequence[Grant]) -> RenderableType:
    """What was tried and seen, and what the cluster grants."""
    tried = Table("tried", "seen", "result", title="The drill", title_justify="left")
    for step in steps:
        tried.add_row(Text(step.what), Text(step.seen), Text(step.verdict, _COLOURS[step.verdict]))
    granted = Table("setting", "what it grants", title="The cluster", title_justify="left")
    for grant in grants:
        granted.add_row(Text(grant.what), Text(grant.answer))
    advice = [f"{step.what}: {step.advice}." for step in steps if step.advice]
    advice += [f"{grant.what}: {grant.advice}." for grant in grants if grant.advice]
    parts: list[RenderableType] = [tried, *([granted] if grants else [])]
    return Group(*parts, *(Text(line, "yellow") for line in dict.fromkeys(advice)))
