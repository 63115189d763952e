"""The grammar of a sweep file: its keys, read and checked one by one."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vwm.config import Configuration
from vwm.config_file import InvalidInput, Problem, check_name, field_names, show_value, validate, without_ignored
from vwm.errors import UserError
from vwm.files import Document, KeyPath, nearest, read_document
from vwm.sweep.axes import MOST_RUNS, AxisError, axis_values

SEED = "training_params.seed"
KEYS = ("name", "base", "set", "grid", "exclude", "include", "seeds", "launch", "table")

Place = Callable[[KeyPath], str]


@dataclass(frozen=True)
class Setting:
    """One value for one field, and where it was written."""

    value: Any
    place: str


Point = dict[str, Setting]  # dotted name → value
Factor = list[Point]  # one factor of the grid's product: an axis, or several that move together


@dataclass(frozen=True)
class SweepFile:
    """What a sweep file says, checked key by key but not yet expanded into runs."""

    document: Document
    name: str
    base: Configuration
    base_place: Place  # where a value of the base is written
    common: Point  # set:
    factors: list[Factor]  # grid:
    excluded: list[Point]
    included: list[tuple[str, Point]]  # each with its place
    seeds: list[Setting]
    axes: tuple[str, ...]
    rows: tuple[str, ...]
    profile: Path | None
    resolved: Mapping[str, Any]


def read_sweep_file(path: Path) -> SweepFile:
    """Read and check a sweep file.

    Raises:
        InvalidInput: something in it is refused; the message says the line, what was given and what was expected.
        UserError: a file cannot be read.
    """
    return _Reader(read_document(path), path.absolute().parent).read()


def is_same(one: object, other: object) -> bool:
    """Whether two values of a file are the same setting: 2 and 2.0 are, true and 1 are not."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _hashable(value: object) -> object:
    """Equal for equal settings, as ``is_same`` has it."""
    if isinstance(value, list):
        return tuple(_hashable(item) for item in value)
    return (bool, value) if isinstance(value, bool) else repr(value) if isinstance(value, dict) else value


def describe(point: Point) -> str:
    """A point on one line, by the last parts of its names."""
    return ", ".join(f"{name.rsplit('.', 1)[-1]} = {show_value(setting.value)}" for name, setting in point.items())


class _Reader:
    """One pass over a sweep file. Problems are gathered, so that a person sees them together."""

    def __init__(self, document: Document, folder: Path) -> None:
        self.document = document
        self.folder = folder
        self.problems: list[Problem] = []

    def read(self) -> "SweepFile":
        self._check_keys()
        content = self.document.content
        name = self._name(content.get("name"))
        base, base_place = self._base(content.get("base"))
        common = self._settings(content.get("set"), ("set",))
        before = len(self.problems)
        factors = self._factors(content.get("grid"))
        included = self._included(content.get("include"))
        refused = {problem.name for problem in self.problems[before:]}  # Missing below, and told already.
        excluded = self._excluded(content.get("exclude"), factors, refused)
        names = [name for factor in factors for name in factor[0]] + [name for _, point in included for name in point]
        axes = tuple(dict.fromkeys(names))
        seeds = self._seeds(content.get("seeds"), base.training_params.seed)
        rows = self._rows(content.get("table"), axes, refused)
        profile = self._profile(content.get("launch"))
        self._stop_if_refused()
        resolved = {key: content[key] for key in KEYS if key in content}
        resolved["base"] = base.model_dump(mode="json")
        if profile is not None:
            resolved["launch"] = str(profile)
        return SweepFile(
            self.document,
            name,
            base,
            base_place,
            common,
            factors,
            excluded,
            included,
            seeds,
            axes,
            rows,
            profile,
            resolved,
        )

    # -- what went wrong ---------------------------------------------------------------------------------------

    def _refuse(self, at: KeyPath, name: str, given: str, expected: str, hint: str = "") -> None:
        self.problems.append(Problem(self.document.place(at), name, given, expected, hint))

    def _stop_if_refused(self) -> None:
        if self.problems:
            raise InvalidInput(self.problems)

    # -- the parts of the file ---------------------------------------------------------------------------------

    def _check_keys(self) -> None:
        content = self.document.content
        if not isinstance(content, dict):
            self._refuse((), "the whole file", show_value(content), f"the keys {', '.join(KEYS)}")
        else:
            for key in content:
                if key not in KEYS:
                    expected = f"one of {', '.join(KEYS)}"
                    hint = nearest(str(key), KEYS)
                    if key in field_names():
                        hint = "one value for all runs belongs under set:, several values under grid:"
                    self._refuse((key,), str(key), f"unknown key {str(key)!r}", expected, hint)
        self._stop_if_refused()

    def _name(self, name: object) -> str:
        if isinstance(name, str) and re.fullmatch(r"\w[\w.-]{0,63}", name):
            return name
        given = "nothing" if name is None else show_value(name)
        expected = "a plain folder name: at most 64 letters, digits, dots, hyphens and underscores, such as noise_grid"
        hint = "" if name is None or isinstance(name, str) else "in quotes, if that is what was meant"
        self._refuse(("name",), "name", given, expected, hint)
        return ""

    def _base(self, base: object) -> tuple[Configuration, Place]:
        """The configuration that every run starts from, and where each of its values is written."""
        document = self.document
        prefix: KeyPath = ("base",)
        if isinstance(base, str):
            path = Path(self.document.name).parent / base
            try:
                document = read_document(path)
            except UserError as error:
                if path.is_file():
                    raise
                expected = "a configuration file, its path relative to the sweep file"
                self._refuse(("base",), "base", show_value(base), expected, str(error))
                self._stop_if_refused()
            prefix = ()
            base = document.content
        elif base is None:
            self._refuse(("base",), "base", "nothing", "a configuration file, such as ../configs/default.yaml")
            self._stop_if_refused()

        def place(at: KeyPath) -> str:
            return document.place((*prefix, *at))

        content, _ = without_ignored(base, place)
        if not isinstance(content, dict):
            self.problems.append(Problem(place(()), "base", show_value(base), "sections such as model_params: …"))
            self._stop_if_refused()
        return validate(content, place), place

    def _settings(self, given: object, at: KeyPath) -> Point:
        """A mapping of dotted names to values, as ``set`` and the points of ``include`` are."""
        if given is None:
            return {}
        if not isinstance(given, dict):
            self._refuse(at, str(at[0]), show_value(given), "dotted names with values, {training_params.eta: 1e-3}")
            return {}
        return {
            name: Setting(value, self.document.place((*at, name)))
            for name, value in given.items()
            if self._is_field(name, (*at, name))
        }

    def _is_field(self, name: object, at: KeyPath) -> bool:
        place = self.document.place(at)
        try:
            check_name(str(name), place)
        except InvalidInput as error:
            self.problems += error.problems
            return False
        if name == SEED:
            self.problems.append(Problem(place, SEED, f"an entry of {at[0]}:", "seeds: 5, or seeds: [0, 1, 2]"))
        return name != SEED

    def _factors(self, grid: object) -> list[Factor]:
        """The factors of the grid's product: the values of an axis, or of several that move together."""
        if grid is None:
            return []
        if not isinstance(grid, dict):
            self._refuse(("grid",), "grid", show_value(grid), "dotted names with lists of values")
            return []
        factors: list[Factor] = []
        for key, given in grid.items():
            if key != "zip":
                factors += self._together({key: given}, ("grid",))
            elif isinstance(given, list) and given:
                for index, group in enumerate(given):
                    factors += self._together(group, ("grid", "zip", index))
            else:
                factors += self._together(given, ("grid", "zip"))
        seen: set[str] = set()
        for factor in factors:
            for name, setting in factor[0].items():
                if name in seen:
                    self.problems.append(
                        Problem(setting.place, name, "a second axis of this name", "every name once in the grid")
                    )
                seen.add(name)
        return factors

    def _together(self, group: object, at: KeyPath) -> list[Factor]:
        """One factor of the product, or none where it was refused."""
        if not isinstance(group, dict) or not group:
            self._refuse(at, "zip", show_value(group), "dotted names with lists of equal length")
            return []
        before = len(self.problems)
        columns: dict[str, list[Any]] = {}
        for name, given in group.items():
            if self._is_field(name, (*at, name)):
                try:
                    columns[name] = axis_values(given, name, self.document.place((*at, name)))
                except AxisError as error:
                    self.problems.append(error.problem)
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) > 1:
            given = ", ".join(f"{length} values of {name}" for name, length in lengths.items())
            self._refuse(at, "zip", given, "lists of equal length, because they move together")
        if len(self.problems) > before:
            return []
        factor = [
            {
                name: Setting(value, self.document.place((*at, name, index)))
                for name, value in zip(columns, values, strict=True)
            }
            for index, values in enumerate(zip(*columns.values(), strict=True))
        ]
        first_of: dict[object, int] = {}
        for index, point in enumerate(factor):
            key = tuple(_hashable(setting.value) for setting in point.values())
            if key in first_of:
                place = next(iter(point.values())).place
                given = f"{describe(point)} as value {first_of[key] + 1} and value {index + 1}"
                self.problems.append(Problem(place, ", ".join(columns), given, "every value once"))
            first_of.setdefault(key, index)
        return [factor]

    def _excluded(self, given: object, factors: list[Factor], refused: set[str]) -> list[Point]:
        """The conditions of ``exclude``; each must be able to match a point of the grid."""
        conditions: list[Point] = []
        values = {name: [point[name].value for point in factor] for factor in factors for name in factor[0]}
        for index, condition in enumerate(self._list_of_mappings(given, "exclude")):
            settings = self._settings(condition, ("exclude", index))
            for name, setting in settings.items():
                if name in refused:
                    continue
                if name not in values:
                    expected = f"an axis of the grid: {', '.join(values)}" if values else "a grid with axes"
                    self.problems.append(Problem(setting.place, name, "no axis of the grid", expected))
                elif not any(is_same(setting.value, value) for value in values[name]):
                    shown = ", ".join(show_value(value) for value in values[name][:8])
                    expected = f"a value of this axis: {shown}{', …' if len(values[name]) > 8 else ''}"
                    self.problems.append(Problem(setting.place, name, show_value(setting.value), expected))
            conditions.append(settings)
        return conditions

    def _included(self, given: object) -> list[tuple[str, Point]]:
        """The extra points, each with the place it is written at."""
        return [
            (self.document.place(("include", index)), self._settings(point, ("include", index)))
            for index, point in enumerate(self._list_of_mappings(given, "include"))
        ]

    def _list_of_mappings(self, given: object, key: str) -> list[Any]:
        if given is None:
            return []
        if isinstance(given, list) and all(isinstance(item, dict) and item for item in given):
            return given
        self._refuse((key,), key, show_value(given), "a list of points: [{model_params.num_neurons: 64}]")
        return []

    def _seeds(self, given: object, default: int) -> list[Setting]:
        place = self.document.place(("seeds",))
        if given is None:
            return [Setting(default, place)]
        if isinstance(given, int) and not isinstance(given, bool) and 1 <= given <= MOST_RUNS:
            return [Setting(seed, place) for seed in range(given)]
        if isinstance(given, list) and given:
            for index, seed in enumerate(given):
                if any(is_same(seed, earlier) for earlier in given[:index]):
                    self._refuse(("seeds", index), "seeds", f"{show_value(seed)} twice", "every seed once")
            return [Setting(seed, self.document.place(("seeds", index))) for index, seed in enumerate(given)]
        self._refuse(
            ("seeds",), "seeds", show_value(given), f"a number from 1 to {MOST_RUNS}, or a list such as [0, 1, 2]"
        )
        return []

    def _rows(self, table: object, axes: tuple[str, ...], refused: set[str]) -> tuple[str, ...]:
        """The names that make the rows of a table; all axes, where the file does not say."""
        if table is None:
            return axes
        if not isinstance(table, dict):
            self._refuse(("table",), "table", show_value(table), "{rows: NAME} or {rows: [NAME, NAME]}")
            return ()
        for key in table:
            if key != "rows":
                self._refuse(
                    ("table", key), f"table.{key}", f"unknown key {str(key)!r}", "rows", nearest(str(key), ["rows"])
                )
        rows = table.get("rows", axes)
        rows = rows if isinstance(rows, list) else [rows]
        for row in rows:
            if row not in axes and row not in refused:
                expected = f"an axis of the grid: {', '.join(axes)}" if axes else "a grid with axes"
                self._refuse(("table", "rows"), "table.rows", show_value(row), expected, nearest(str(row), axes))
        return tuple(rows)

    def _profile(self, launch: object) -> Path | None:
        if launch is None or (isinstance(launch, str) and launch):
            return None if launch is None else (self.folder / launch).resolve()
        self._refuse(("launch",), "launch", show_value(launch), "a launch profile, such as ../launch/local.yaml")
        return None
