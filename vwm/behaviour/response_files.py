"""Responses of people, or of any other responder, from a CSV file."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vwm.behaviour.circular import FloatArray, wrap
from vwm.behaviour.mixture import fit_three_component
from vwm.behaviour.responses import IntArray, Responses, UnreadableResponses
from vwm.errors import UserError

COLUMNS = {
    "responder": "subject",
    "set_size": "set_size",
    "target": "target",
    "response": "response",
    "non_target": "non_target_",
}
"""What a column is called unless ``columns`` says otherwise; ``non_target`` starts the names of all of them."""

UNITS = ("rad", "deg", "deg180")
"""``deg180``: orientations in degrees, which repeat after 180°."""

CONVENTIONS = ("absolute", "relative to the target", "response - non-target")
"""How a file may give its non-targets."""

_TO_RAD = {"rad": 1.0, "deg": np.pi / 180, "deg180": np.pi / 90}
_MOST = {"rad": 2 * np.pi, "deg": 360.0, "deg180": 180.0}  # a full turn either way
_EMPTY = {"", "na", "nan"}
_NOT_TOLD_APART = 2.0  # log-likelihood: a convention that is e² times likelier than the next is believed


@dataclass(frozen=True)
class ResponseFile:
    """The responders of a CSV file, and how its non-targets were read."""

    responders: tuple[Responses, ...]
    convention: str  # one of CONVENTIONS; empty where the file has no non-targets
    note: str  # a sentence for people: how the convention was found


def read_csv(
    path: Path, columns: Mapping[str, str] | None = None, units: str = "rad", convention: str | None = None
) -> ResponseFile:
    """Read a CSV file of one response a row.

    Args:
        path: the file; its first row names the columns.
        columns: the file's own name for those of ``COLUMNS`` that are called otherwise.
        units: one of ``UNITS``.
        convention: one of ``CONVENTIONS``; without it, the most likely one under the three-component mixture.

    Raises:
        UnreadableResponses: says the file, the line, the value and what was expected.
        UserError: ``units`` or ``convention`` is none of those.
    """
    for name, value, allowed in (("units", units, UNITS), ("convention", convention, (None, *CONVENTIONS))):
        if value not in allowed:
            raise UserError(f"{name} {value!r}: expected one of {', '.join(str(one) for one in allowed if one)}.")
    table = _Table.read(path)
    names = COLUMNS | dict(columns or {})
    angle = _angle_in(units)
    responder = table.column(names["responder"])
    set_size = np.array(table.parsed(names["set_size"], _set_size), dtype=np.int64)
    target, response = (np.array(table.parsed(names[name], angle)) for name in ("target", "response"))
    others = [name for name in table.header if name.startswith(names["non_target"])]
    shown = [table.parsed(name, lambda text: np.nan if text.lower() in _EMPTY else angle(text)) for name in others]
    given = np.array(shown, dtype=np.float64).reshape(len(others), len(table.rows)).T
    note = ""
    if others:
        _check_counts(table, set_size, given, others)
        convention, note = _convention(set_size, target, response, given, convention)
        given = wrap(_absolute(given, target, response, convention))
    trial = np.arange(len(table.rows))
    of = [np.flatnonzero(np.array(responder) == name) for name in dict.fromkeys(responder)]
    responders = (
        Responses(responder[rows[0]], trial[rows], set_size[rows], target[rows], response[rows], given[rows])
        for rows in of
    )
    return ResponseFile(tuple(responders), convention if others and convention else "", note)


@dataclass(frozen=True)
class _Table:
    """The cells of a CSV file as text, with the line on which each row ends."""

    path: Path
    header: tuple[str, ...]
    rows: tuple[Sequence[str], ...]
    lines: tuple[int, ...]

    @classmethod
    def read(cls, path: Path) -> "_Table":
        rows, lines = [], []
        try:
            with open(path, encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file, strict=True, skipinitialspace=True)
                for row in reader:
                    if row:
                        rows.append([cell.strip() for cell in row])
                        lines.append(reader.line_num)
        except FileNotFoundError:
            raise UnreadableResponses(f"{path}: there is no such file.") from None
        except OSError as error:
            raise UnreadableResponses(f"{path}: cannot be read: {error.strerror}.") from None
        except UnicodeDecodeError:
            raise UnreadableResponses(f"{path}: this is no text in UTF-8; a CSV file was expected.") from None
        except csv.Error as error:
            raise UnreadableResponses(f"{path}: line {reader.line_num}: no CSV: {error}.") from None
        if len(rows) < 2:
            raise UnreadableResponses(f"{path}: a row of names of columns and rows of responses were expected.")
        header, *rest = rows
        for row, line in zip(rest, lines[1:], strict=True):
            if len(row) != len(header):
                expected = f"{len(header)} were expected, as in the first line"
                raise UnreadableResponses(f"{path}: line {line}: {len(row)} cells; {expected}.")
        twice = [name for name in header if header.count(name) > 1]
        if twice:
            raise UnreadableResponses(f"{path}: the column {twice[0]!r} is there twice.")
        return cls(path, tuple(header), tuple(rest), tuple(lines[1:]))

    def column(self, name: str) -> list[str]:
        """The cells of a column."""
        if name not in self.header:
            hint = f"found: {', '.join(map(repr, self.header))}. Say with --columns what it is called there"
            raise UnreadableResponses(f"{self.path}: the column {name!r} is missing; {hint}.")
        place = self.header.index(name)
        return [row[place] for row in self.rows]

    def parsed(self, name: str, parse: Callable[[str], float]) -> list[float]:
        """The values of a column; ``parse`` raises ValueError with what was expected."""
        values = []
        for line, text in zip(self.lines, self.column(name), strict=True):
            try:
                values.append(parse(text))
            except ValueError as error:
                raise UnreadableResponses(f"{self.path}: line {line}: {name} is {text!r}; {error}.") from None
        return values


def _set_size(text: str) -> int:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (value >= 1 and value.is_integer()):
        raise ValueError("a whole number of items from 1 on was expected")
    return int(value)


def _angle_in(units: str) -> Callable[[str], float]:
    """Reads an angle in these units as radians in [-π, π)."""
    most, factor = _MOST[units], _TO_RAD[units]
    expected = f"an angle between −{most:.4g} and {most:.4g} in {units} was expected (--units {', '.join(UNITS)})"

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ValueError(expected) from None
        if not abs(value) <= most * (1 + 1e-9):  # NaN, too, is no angle
            raise ValueError(expected)
        return float(wrap(value * factor))

    return parse


def _check_counts(table: _Table, set_size: IntArray, given: FloatArray, others: Sequence[str]) -> None:
    counts = np.sum(~np.isnan(given), axis=1)
    wrong = np.flatnonzero(counts != set_size - 1)
    if wrong.size:
        row = int(wrong[0])
        where = f"{table.path}: line {table.lines[row]}: {counts[row]} non-targets in {others[0]} … {others[-1]}"
        raise UnreadableResponses(f"{where}; {set_size[row] - 1} were expected at set size {set_size[row]}.")


def _absolute(given: FloatArray, target: FloatArray, response: FloatArray, convention: str) -> FloatArray:
    """[rows, places] the non-targets' own angles."""
    if convention == "absolute":
        return given
    return given + target[:, None] if convention == "relative to the target" else response[:, None] - given


def _convention(
    set_size: IntArray, target: FloatArray, response: FloatArray, given: FloatArray, asked: str | None
) -> tuple[str, str]:
    """The convention to read non-targets by, and how it was found.

    People sometimes report a non-target. Read by the right convention the non-targets explain these responses, read
    by a wrong one they are angles at random, so that the likelihood of the mixture with swaps tells which is right.
    """
    gains = {name: _log_likelihood(set_size, target, response, given, name) for name in CONVENTIONS}
    likely, next_best = sorted(gains, key=lambda name: -gains[name])[:2]
    ahead = gains[likely] - gains[next_best]
    compared = ", ".join(f"{name} {gain - gains[likely]:.1f}" for name, gain in gains.items())
    found = f"log-likelihood of the mixture with swaps, less the highest: {compared}"
    if asked is not None:
        against = gains[likely] - gains[asked] > _NOT_TOLD_APART
        doubt = f" The responses say {likely!r}: check the file." if against else ""
        return asked, f"Non-targets read as {asked!r}, as was asked for ({found}).{doubt}"
    if ahead < _NOT_TOLD_APART:
        tied = [name for name in CONVENTIONS if gains[likely] - gains[name] < _NOT_TOLD_APART]
        others = " and ".join(map(repr, tied[1:]))
        return tied[0], f"Non-targets read as {tied[0]!r}, which the responses do not tell from {others} ({found})."
    return likely, f"Non-targets read as {likely!r} ({found})."


def _log_likelihood(
    set_size: IntArray, target: FloatArray, response: FloatArray, given: FloatArray, convention: str
) -> float:
    """Sum over set sizes above 1 of the three-component mixture, fitted to all responders together."""
    errors = wrap(response - target)
    nontarget_errors = wrap(response[:, None] - _absolute(given, target, response, convention))
    rows = (set_size == n for n in np.unique(set_size) if n > 1)
    return sum(fit_three_component(errors[here], nontarget_errors[here]).log_likelihood for here in rows)
