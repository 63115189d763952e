"""A sweep, expanded: the runs that a sweep file stands for."""

import contextlib
import gc
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from vwm.config import Configuration
from vwm.config_file import InvalidInput, Problem, show_value, validate
from vwm.files import KeyPath
from vwm.sweep.axes import MOST_RUNS
from vwm.sweep.grammar import SEED, Place, Point, Setting, SweepFile, describe, is_same, read_sweep_file


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


def read_sweep(path: Path) -> Sweep:
    """Read, check and expand a sweep file; nothing is written.

    Raises:
        InvalidInput: something in it is refused; the message says the line, what was given and what was expected.
        UserError: a file cannot be read.
    """
    file = read_sweep_file(path)
    with _no_garbage_collection():
        runs = _Expansion(file).runs()
    return Sweep(file.name, file.axes, tuple(runs), file.rows, file.profile, file.resolved)


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Thousands of configurations are made and none is dropped: looking for garbage would take a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Expansion:
    """The points of a sweep file, turned into validated configurations. Problems are gathered and shown together."""

    def __init__(self, file: SweepFile) -> None:
        self.file = file
        self.problems: dict[tuple[str, ...], Problem] = {}  # a bad value spoils many points and is reported once

    def runs(self) -> list[SweepRun]:
        grid_place = self.file.document.place(("grid",))
        points = [(grid_place, point) for point in self._product()] + self.file.included
        self._stop_if_refused()
        if not points:
            place = self.file.document.place(("exclude",))
            self._refuse(
                Problem(place, "exclude", "conditions that match every point", "at least one run that is left")
            )
        runs = self._configured(points)
        self._stop_if_refused()
        return runs

    def _refuse(self, problem: Problem) -> None:
        self.problems.setdefault((problem.place, problem.name, problem.given, problem.expected), problem)

    def _stop_if_refused(self) -> None:
        if self.problems:
            raise InvalidInput(list(self.problems.values()))

    def _product(self) -> Iterator[Point]:
        """The points of the grid that no condition of ``exclude`` matches."""
        count = len(self.file.seeds)
        for factor in self.file.factors:
            count *= len(factor)
        if count > MOST_RUNS:
            place = self.file.document.place(("grid",))
            self._refuse(Problem(place, "grid", f"{count} runs", f"at most {MOST_RUNS} runs in one sweep"))
            return
        unused = dict(enumerate(self.file.excluded))
        for combination in itertools.product(*self.file.factors):
            point = {name: setting for part in combination for name, setting in part.items()}
            hits = [index for index, condition in enumerate(self.file.excluded) if _matches(point, condition)]
            for index in hits:
                unused.pop(index, None)
            if not hits:
                yield point
        for index, condition in unused.items():
            place = self.file.document.place(("exclude", index))
            self._refuse(Problem(place, "exclude", describe(condition), "a condition that matches a point of the grid"))

    def _configured(self, points: list[tuple[str, Point]]) -> list[SweepRun]:
        """Every point with every seed, as complete configurations that were validated one by one."""
        common = self.file.base.model_dump()
        for name, setting in self.file.common.items():
            common = _with(common, name, setting.value)
        runs: list[SweepRun] = []
        taken: dict[str, tuple[str, SweepRun]] = {}
        for origin, point in points:
            unseeded = common
            for name, setting in point.items():
                unseeded = _with(unseeded, name, setting.value)
            for seed in self.file.seeds:
                content = _with(unseeded, SEED, seed.value)
                written = {**self.file.common, **point, SEED: seed}
                try:
                    configuration = validate(content, partial(_place, written, self.file.base_place))
                except InvalidInput as error:
                    for problem in error.problems:
                        self._refuse(_with_point(problem, point))
                    continue
                settings = {name: _value(configuration, name) for name in self.file.axes}
                run = SweepRun(settings, configuration.training_params.seed, configuration, configuration.run_id)
                if run.run_id in taken:
                    self._refuse(_repeated(run, origin, *taken[run.run_id]))
                taken.setdefault(run.run_id, (origin, run))
                runs.append(run)
        return runs


def _matches(point: Point, condition: Point) -> bool:
    return all(is_same(point[name].value, setting.value) for name, setting in condition.items())


def _with(content: Mapping[str, Any], name: str, value: Any) -> dict[str, Any]:
    """A copy of nested mappings with ``value`` under the dotted ``name``; what does not change is shared."""
    first, _, rest = name.partition(".")
    return {**content, first: _with(content[first], rest, value) if rest else value}


def _value(configuration: Configuration, name: str) -> Any:
    value: Any = configuration
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _place(written: Mapping[str, Setting], base_place: Place, at: KeyPath) -> str:
    """Where the sweep file or its base gives the value at ``at``."""
    for length in range(len(at), 1, -1):
        setting = written.get(".".join(str(part) for part in at[:length]))
        if setting is not None:
            return setting.place
    return base_place(at)


def _with_point(problem: Problem, point: Point) -> Problem:
    """The problem with the point it arose at, where several settings may be at odds."""
    if problem.hint or not point or list(point) == [problem.name]:
        return problem
    return replace(problem, hint=f"at the point {describe(point)}")


def _repeated(run: SweepRun, origin: str, first_origin: str, first: SweepRun) -> Problem:
    """The refusal of a run that the sweep already holds, read at ``origin``."""
    text = ", ".join(f"{name.rsplit('.', 1)[-1]} = {show_value(value)}" for name, value in run.settings.items())
    different = [name for name, value in run.settings.items() if value != first.settings[name]]
    if different:
        given = f"points that differ only in {', '.join(different)}"
        return Problem(
            origin, "a run twice", given, "settings that change a run's result", "these change names or drawings only"
        )
    return Problem(origin, "a point twice", text or "the base", "every point once", f"{first_origin} has it already")
