"""Models of errors across set sizes, fitted to one responder by maximum likelihood and compared by AIC, AICc, BIC.

An item in memory is answered by vonMises(κ(J)) with the Fisher information J, one that is not by a guess.

- slots: K items in memory, all with J1.
- slots + averaging (Zhang & Luck 2008): K slots of J1 shared out among the items as evenly as can be; J adds up.
- slots + resources (Zhang & Luck 2008): at most K items in memory, among which J is shared: J1·min(n, K)^−α.
- equal precision (Palmer 1990): all items in memory, J1·n^−α each.
- variable precision (van den Berg et al. 2012): J ~ Gamma with the mean J1·n^−α and the scale τ.
- variable precision + capacity (van den Berg, Awh & Ma 2014): the same for at most K items, mean J1·min(n, K)^−α.

K is a whole number, as slots are; it counts as a parameter.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from vwm.behaviour.circular import FloatArray
from vwm.behaviour.memory_density import Excess, GammaMixture, fixed
from vwm.behaviour.mixture import fit_mixture
from vwm.behaviour.mixture_likelihood import one_minus_cos
from vwm.behaviour.responses import Responses

CRITERIA = ("aic", "aicc", "bic")
PARAMETERS = ("capacity", "J1", "alpha", "tau")

# Bounds of J1 and τ (1/rad²) and of α. The gamma law's upper tail has to lie within the nodes of its quadrature.
_J1, _ALPHA, _TAU = (1e-2, 5e4), (-1.0, 6.0), (1e-3, 2e4)
_ROWS = 1000  # a set size with more errors is climbed on as many groups of neighbours
_START_ALPHA = (0.5, 1.3)
_START_TAU = (0.2, 1.0)  # in units of the J1 to start from


@dataclass(frozen=True)
class _Model:
    """Which of the parameters a model has."""

    capacity: bool = False
    shared: bool = False  # J falls with the items in memory, by α
    variable: bool = False  # J varies, by τ
    averaging: bool = False

    @property
    def parameters(self) -> tuple[str, ...]:
        has = {"capacity": self.capacity, "J1": True, "alpha": self.shared, "tau": self.variable}
        return tuple(name for name in PARAMETERS if has[name])


_MODELS = {
    "slots": _Model(capacity=True),
    "slots + averaging": _Model(capacity=True, averaging=True),
    "slots + resources": _Model(capacity=True, shared=True),
    "equal precision": _Model(shared=True),
    "variable precision": _Model(shared=True, variable=True),
    "variable precision + capacity": _Model(capacity=True, shared=True, variable=True),
}
MODELS = tuple(_MODELS)


@dataclass(frozen=True)
class _Cell:
    """The errors at one set size."""

    set_size: int
    d: FloatArray  # [rows] 1 − cos(error)
    weight: FloatArray  # [rows] errors that a row stands for

    @cached_property
    def gamma(self) -> GammaMixture:
        return GammaMixture.at(self.d)


def fit_all(responses: Responses) -> pd.DataFrame:
    """Fit every one of ``MODELS`` to the errors of one responder, all set sizes together.

    Returns:
        One row per model: ``responder``, ``model``, ``k`` (free parameters), ``n`` (errors), ``log_likelihood``
        (natural, errors in radians), ``aic``, ``aicc``, ``bic``, and the parameters, NaN where a model has none:
        ``capacity`` (K, items, a whole number), ``J1`` (Fisher information at one item, 1/rad²), ``alpha`` (exponent
        of J over set size), ``tau`` (scale of J's gamma law, 1/rad²).
    """
    errors = responses.errors
    by_size = [(n, one_minus_cos(errors[responses.set_size == n])) for n in responses.set_sizes()]
    cells = [_grouped(n, d) for n, d in by_size]
    first = responses.set_sizes()[0]
    start_information = fit_mixture(errors[responses.set_size == first]).information * first
    n = errors.size
    rows = []
    for name, model in _MODELS.items():
        parameters = _fit(model, cells, start_information)
        gain = sum(_exact_gain(model, set_size, d, parameters) for set_size, d in by_size)
        k, log_likelihood = len(model.parameters), gain - n * np.log(2 * np.pi)
        aic = 2 * k - 2 * log_likelihood
        row = {"responder": responses.responder, "model": name, "k": k, "n": n, "log_likelihood": log_likelihood}
        row |= {"aic": aic, "aicc": aic + 2 * k * (k + 1) / (n - k - 1), "bic": k * np.log(n) - 2 * log_likelihood}
        rows.append(row | {name: parameters.get(name, np.nan) for name in PARAMETERS})
    return pd.DataFrame(rows)


def compare(fits: pd.DataFrame) -> pd.DataFrame:
    """The rows of ``fit_all`` of several responders, one row per model in the order of ``MODELS``.

    Returns:
        ``model``, ``k``, ``n_responders``, and for each criterion c of aic, aicc, bic: ``<c>_sum`` over responders of
        the criterion less that of the responder's best model, and ``<c>_wins``, the responders whose best it is.
    """
    by_model = fits.groupby("model", sort=False)
    columns = {"k": by_model["k"].first(), "n_responders": by_model["responder"].nunique()}
    for criterion in CRITERIA:
        above_best = fits[criterion] - fits.groupby("responder")[criterion].transform("min")
        columns[f"{criterion}_sum"] = above_best.groupby(fits["model"]).sum()
        columns[f"{criterion}_wins"] = (above_best == 0).groupby(fits["model"]).sum()
    return pd.DataFrame(columns).loc[[name for name in MODELS if name in by_model.groups]].reset_index()


def log_likelihood(model: str, responses: Responses, **parameters: float) -> float:
    """Log-likelihood of all errors of a responder under one of ``MODELS`` with these ``PARAMETERS``."""
    chosen, errors = _MODELS[model], responses.errors
    gains = (
        _exact_gain(chosen, n, one_minus_cos(errors[responses.set_size == n]), parameters)
        for n in responses.set_sizes()
    )
    return float(sum(gains) - errors.size * np.log(2 * np.pi))


def _grouped(set_size: int, d: FloatArray) -> _Cell:
    """All errors if they are few, or else the means of groups of neighbours in sorted d.

    The groups grow smaller towards the largest errors, down to one, because there the density changes most.
    """
    part = np.arange(_ROWS) / _ROWS
    edges = np.arange(d.size) if d.size <= _ROWS else np.unique((d.size * part * (2 - part)).astype(np.int64))
    sizes = np.diff(np.append(edges, d.size)).astype(np.float64)
    return _Cell(set_size, np.add.reduceat(np.sort(d), edges) / sizes, sizes)


def _exact_gain(model: _Model, set_size: int, d: FloatArray, parameters: dict[str, float]) -> float:
    """Log-likelihood over uniform responding at one set size, error by error."""
    parts = (d[start : start + 4 * _ROWS] for start in range(0, d.size, 4 * _ROWS))
    cells = (_Cell(set_size, part, np.ones(part.size)) for part in parts)
    return float(sum(cell.weight @ np.log1p(_excess(model, cell, parameters)[0]) for cell in cells))


def _fit(model: _Model, cells: list[_Cell], start_information: float) -> dict[str, float]:
    """The most likely parameters: a climb from several starts, for every K by itself."""
    starts = [
        {"J1": start_information, "alpha": alpha, "tau": tau * start_information}
        for alpha in (_START_ALPHA if model.shared else (0.0,))
        for tau in (_START_TAU if model.variable else (0.0,))
    ]
    if not model.capacity:
        return max((_climb(model, cells, start) for start in starts), key=lambda found: found[0])[1]
    most = max(cell.set_size for cell in cells)
    found: list[tuple[float, dict[str, float]]] = []
    for capacity in range(1, (2 * most if model.averaging else most) + 1):
        # The neighbour's parameters are the best start of all but the first.
        tried: Iterable[dict[str, float]] = [starts[-1], found[-1][1]] if found else starts
        climbed = [_climb(model, cells, start | {"capacity": capacity}) for start in tried]
        found.append(max(climbed, key=lambda one: one[0]))
    return max(found, key=lambda one: one[0])[1]


def _climb(model: _Model, cells: list[_Cell], start: dict[str, float]) -> tuple[float, dict[str, float]]:
    """The maximum above ``start`` at its K: the log-likelihood over uniform responding, and all parameters."""
    capacity = {"capacity": start["capacity"]} if model.capacity else {}
    total = sum(cell.weight.sum() for cell in cells)
    bounds = {"J1": np.log(_J1), "alpha": np.array(_ALPHA), "tau": np.log(_TAU)}
    free = [name for name in model.parameters if name != "capacity"]

    def parameters_at(point: FloatArray) -> dict[str, float]:
        values = zip(free, point, strict=True)
        return capacity | {name: float(value if name == "alpha" else np.exp(value)) for name, value in values}

    def downhill(point: FloatArray) -> tuple[float, FloatArray]:
        parameters = parameters_at(point)
        gain, gradient = 0.0, {"J1": 0.0, "alpha": 0.0, "tau": 0.0}
        for cell in cells:
            excess, by_information, by_tau = _excess(model, cell, parameters)
            share = cell.weight / (1 + excess)
            slope = float(share @ by_information)
            gain += float(cell.weight @ np.log1p(excess))
            gradient["J1"] += slope
            gradient["alpha"] -= slope * math.log(_in_memory(cell.set_size, parameters))
            gradient["tau"] += float(share @ by_tau)
        return -gain / total, -np.array([gradient[name] for name in free]) / total

    x0 = np.array([start[name] if name == "alpha" else np.log(start[name]) for name in free])
    limits = [tuple(bounds[name]) for name in free]
    x0 = np.clip(x0, *np.transpose(limits))
    result = minimize(downhill, x0, jac=True, method="L-BFGS-B", bounds=limits, options={"ftol": 1e-12, "gtol": 1e-7})
    return -float(result.fun) * float(total), parameters_at(result.x)


def _in_memory(set_size: int, parameters: dict[str, float]) -> float:
    return min(set_size, parameters.get("capacity", set_size))


def _excess(model: _Model, cell: _Cell, parameters: dict[str, float]) -> Excess:
    """The relative density less 1 at one set size, and its derivatives by ln J1 and ln τ."""
    n, J1 = cell.set_size, parameters["J1"]
    if model.averaging:
        slots, rest = divmod(round(parameters["capacity"]), n)
        shares = [(rest / n, slots + 1), (1 - rest / n, slots)]
        parts = [(share, fixed(cell.d, count * J1)) for share, count in shares if share > 0 and count > 0]
    else:
        items = _in_memory(n, parameters)
        information = J1 * items ** -parameters.get("alpha", 0.0)
        of_one = cell.gamma.excess(information, parameters["tau"]) if model.variable else fixed(cell.d, information)
        parts = [(items / n, of_one)]
    excess, by_information, by_tau = (
        sum((share * part[i] for share, part in parts), np.zeros_like(cell.d)) for i in range(3)
    )
    # Without guesses an error far off would have the likelihood 0 in floating point; so there is a guess in 10⁹.
    return np.maximum(excess, -1 + 1e-9), by_information, by_tau
