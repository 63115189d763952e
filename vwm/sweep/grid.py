"""A sweep file: its grammar, and the runs it expands into."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vwm.config import Configuration


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep: a grid point and a seed."""

    settings: Mapping[str, Any]  # dotted name → value, for every axis of the grid (the seed is not among them)
    seed: int
    configuration: Configuration
    run_id: str


@dataclass(frozen=True)
class Sweep:
    """A sweep file, read, checked and expanded."""

    name: str
    axes: tuple[str, ...]  # the dotted names that vary, in the order of the file
    runs: tuple[SweepRun, ...]  # point by point, seeds innermost
    rows: tuple[str, ...]  # dotted names that make the rows of a table and the lines of a figure (table.rows)
    profile: Path | None  # the default launch profile, absolute
    resolved: Mapping[str, Any]  # the whole sweep as one mapping, base written out: what runs/<sweep>/sweep.yaml holds
