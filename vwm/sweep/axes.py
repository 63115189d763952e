"""The values of one axis: a list, or a formula that stands for one. Plain Python, so that planning loads no numpy."""

import math
from collections.abc import Callable
from typing import Any

from vwm.config_file import Problem, show_value
from vwm.files import nearest

MOST_RUNS = 200_000  # A slip such as {range: [0, 1, 1e-9]} is refused instead of filling the memory.


def axis_values(given: object, name: str, place: str) -> list[Any]:
    """The values of the axis ``name``, written as a list or as a formula such as ``{linspace: [0, 1, 5]}``.

    Raises:
        AxisError: what was given stands for no values.
    """
    if isinstance(given, list):
        if not given:
            raise AxisError(Problem(place, name, "no values", "at least one value"))
        return given
    if isinstance(given, dict) and len(given) == 1:
        formula, arguments = next(iter(given.items()))
        if formula in _FORMULAS:
            return _from_formula(formula, arguments, name, place)
    expected = "a list of values, {linspace: [a, b, n]}, {geomspace: [a, b, n]} or {range: [a, b, step]}"
    hint = "a value for all runs belongs under set:"
    if isinstance(given, dict):
        hint = nearest(str(next(iter(given), "")), _FORMULAS)
    raise AxisError(Problem(place, name, show_value(given), expected, hint))


class AxisError(Exception):
    """An axis that stands for no values; ``problem`` is the line, the value and the expectation."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(str(problem))


def _from_formula(formula: str, arguments: object, name: str, place: str) -> list[Any]:
    function, expected, is_allowed = _FORMULAS[formula]
    numbers = arguments if isinstance(arguments, list) else []
    if len(numbers) != 3 or not all(_is_number(number) for number in numbers) or not is_allowed(*numbers):
        raise AxisError(Problem(place, f"{name}: {formula}", show_value(arguments), expected))
    return [_tidy(value) for value in function(*numbers)]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e300


def _tidy(value: float) -> float:
    """Twelve significant digits: 0.1 + 0.2 is 0.3, and a run's identity does not hang on the last bit."""
    return value if isinstance(value, int) else float(f"{value:.12g}")


def _linspace(first: float, last: float, count: float) -> list[float]:
    """``count`` evenly spaced values, both ends included."""
    gaps = max(int(count) - 1, 1)
    return [first + (last - first) * index / gaps for index in range(int(count))]


def _geomspace(first: float, last: float, count: float) -> list[float]:
    """``count`` values with a constant ratio, both ends included."""
    gaps = max(int(count) - 1, 1)
    return [first * (last / first) ** (index / gaps) for index in range(int(count))]


def _range(first: float, last: float, step: float) -> list[float]:
    """From ``first`` in steps of ``step`` up to and including ``last``, as far as rounding lets it be reached."""
    return [first + step * index for index in range(_steps(first, last, step) + 1)]


def _steps(first: float, last: float, step: float) -> int:
    return math.floor(min((last - first) / step, 1e15) + 1e-9)


def _is_count(count: float) -> bool:
    return float(count).is_integer() and 1 <= count <= MOST_RUNS


_Formula = Callable[[float, float, float], list[float]]
_Check = Callable[[float, float, float], bool]
_FORMULAS: dict[str, tuple[_Formula, str, _Check]] = {
    "linspace": (
        _linspace,
        f"[first, last, n] with a whole n from 1 to {MOST_RUNS}",
        lambda first, last, count: _is_count(count),
    ),
    "geomspace": (
        _geomspace,
        f"[first, last, n], both ends > 0, with a whole n from 1 to {MOST_RUNS}",
        lambda first, last, count: first > 0 and last > 0 and _is_count(count),
    ),
    "range": (
        _range,
        f"[first, last, step] with a step that leads from first to last in at most {MOST_RUNS} values",
        lambda first, last, step: step != 0 and 0 <= _steps(first, last, step) < MOST_RUNS,
    ),
}
