"""Tables of measures: one responder by set size, and the same over seeds with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student_t

from vwm.behaviour import circular
from vwm.behaviour.mixture import fit_mixture
from vwm.behaviour.responses import Responses


@dataclass(frozen=True)
class Measure:
    """What a column holds: for people who read the table without the program."""

    meaning: str
    unit: str
    convention: str = ""


MEASURES = {
    "mean_abs_error": Measure("mean |error|", "rad", "chance is π/2"),
    "sd_abs_error": Measure("SD over trials of the trial's mean |error|", "rad", "divided by the number of trials"),
    "circular_sd": Measure("circular SD of the errors", "rad", "√(−2 ln R), R = |mean exp(ie)|"),
    "circular_variance": Measure("circular variance of the errors", "rad²", "−2 ln R, not 1 − R"),
    "circular_kurtosis": Measure(
        "kurtosis of the errors", "–", "(ρ₂ cos(μ₂ − 2μ₁) − R⁴)/(1 − R)², Fisher 1993; 0 for a wrapped normal"
    ),
    "precision": Measure(
        "precision",
        "1/rad",
        "1/circular SD minus its expectation under uniform responding for as many responses, Bays et al. 2009; "
        "chance is 0",
    ),
    "w": Measure(
        "mixture weight: share of responses at the target",
        "–",
        "two-component mixture w·vonMises(0, κ) + (1 − w)/2π, maximum likelihood, Zhang & Luck 2008",
    ),
    "kappa": Measure("concentration κ of the von Mises at the target", "–", "from the same fit as w"),
    "capacity": Measure("capacity K: items in memory", "items", "K = w · set size, from the same fit as w"),
}
"""The measures of a responder at one set size, in the order of the tables."""

AGGREGATED = ("mean_abs_error", "circular_sd", "circular_variance", "precision", "w", "kappa", "capacity")
"""The measures that are averaged over seeds."""

OF_THE_MIXTURE = ("w", "kappa", "capacity")

COUNTS = {
    "set_size": Measure("items shown on a trial", "items"),
    "n_trials": Measure("trials", "–"),
    "n_responses": Measure("responses, and so errors", "–", "a network answers for every item shown on a trial"),
    "mixture_flag": Measure("why w, κ and K cannot be told from these errors; empty where they can", "–"),
    "n_seeds": Measure("runs averaged over, one a seed", "–"),
    "n_identified": Measure("those of n_seeds whose mixture_flag is empty", "–", "w, κ and K are averaged over these"),
}

SUMMARIES = {
    "mean": "mean over seeds",
    "sd": "SD over seeds (divided by n − 1; empty with one seed)",
    "ci_low": "lower end of the 95 % interval of the mean (Student t over seeds; empty with one seed)",
    "ci_high": "upper end of the 95 % interval of the mean (Student t over seeds; empty with one seed)",
}
"""Endings of the columns of an aggregated measure, such as ``precision_ci_low``."""


def measures(responses: Responses) -> pd.DataFrame:
    """All ``MEASURES`` of one responder, one row per set size, with ``COUNTS`` of what they rest on."""
    errors = responses.errors
    rows = []
    for set_size in responses.set_sizes():
        here = responses.set_size == set_size
        rows.append(_measures_of_one_set_size(set_size, errors[here], responses.trial[here]))
    return pd.DataFrame(rows)


def _measures_of_one_set_size(
    set_size: int, errors: circular.FloatArray, trial: np.ndarray
) -> dict[str, float | int | str]:
    _, trial_index = np.unique(trial, return_inverse=True)
    error_of_trial = np.bincount(trial_index, np.abs(errors)) / np.bincount(trial_index)
    fit = fit_mixture(errors)
    return {
        "set_size": set_size,
        "n_trials": error_of_trial.size,
        "n_responses": errors.size,
        "mean_abs_error": circular.mean_abs_error(errors),
        "sd_abs_error": float(np.std(error_of_trial)),
        "circular_sd": circular.circular_sd(errors),
        "circular_variance": circular.circular_variance(errors),
        "circular_kurtosis": circular.circular_kurtosis(errors),
        "precision": circular.precision(errors),
        "w": fit.w,
        "kappa": fit.kappa,
        "capacity": fit.capacity(set_size),
        "mixture_flag": fit.flag,
    }


def aggregate(runs: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Mean, SD and 95 % interval over runs of every measure in ``AGGREGATED``.

    Args:
        runs: rows of ``measures``, one per run and set size, with the columns of ``by`` added.
        by: the columns that say which runs belong together, ``set_size`` among them.

    Returns:
        One row per combination of ``by`` with ``n_seeds``, ``n_identified`` and, for every measure, the columns
        ``<measure>_mean``, ``_sd``, ``_ci_low`` and ``_ci_high``. The unit of the interval is the run: trials of one
        network are no sample of networks. w, κ and K come from the runs whose mixture was identified.
    """
    identified = runs.assign(**{name: runs[name].where(runs["mixture_flag"] == "") for name in OF_THE_MIXTURE})
    groups = identified.groupby(list(by), sort=False, dropna=False)
    columns: dict[str, pd.Series[Any]] = {"n_seeds": groups.size(), "n_identified": groups["w"].count()}
    for name in AGGREGATED:
        count, mean, sd = groups[name].count(), groups[name].mean(), groups[name].std()
        # With one seed there are no degrees of freedom and t is NaN, as the SD is.
        half_width: pd.Series[float] = sd * student_t.ppf(0.975, (count - 1).where(count > 1)) / np.sqrt(count)
        columns[f"{name}_mean"] = mean
        columns[f"{name}_sd"] = sd
        columns[f"{name}_ci_low"] = mean - half_width
        columns[f"{name}_ci_high"] = mean + half_width
    return pd.DataFrame(columns).reset_index()


# ---------------------------------------------------------------------------------------------------------------
# For people to read
# ---------------------------------------------------------------------------------------------------------------


def data_dictionary(columns: Sequence[str]) -> dict[str, Measure]:
    """Meaning, unit and convention of those of ``columns`` that this module makes, in their order."""
    known = dict(COUNTS) | dict(MEASURES)
    for name in AGGREGATED:
        for ending, meaning in SUMMARIES.items():
            measure = MEASURES[name]
            known[f"{name}_{ending}"] = Measure(f"{measure.meaning}: {meaning}", measure.unit, f"see `{name}`")
    return {name: known[name] for name in columns if name in known}


def describe(columns: Mapping[str, Measure]) -> str:
    """A data dictionary as a Markdown table."""
    rows = [(f"`{name}`", column.meaning, column.unit, column.convention) for name, column in columns.items()]
    return _pipe_table(pd.DataFrame(rows, columns=["column", "meaning", "unit", "convention"]))


def rounded(value: float) -> str:
    """``value`` to three significant digits, whole from 1000 on; – for a hole."""
    if not np.isfinite(value):
        return "–" if np.isnan(value) else str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def markdown(table: pd.DataFrame) -> str:
    """``table`` in Markdown with measures rounded; an aggregated one as ``mean [95 % interval]``."""
    text = pd.DataFrame(index=table.index)
    for name in table.columns:
        measure, _, ending = name.rpartition("_")
        if measure in AGGREGATED and ending == "mean":
            parts = (table[name], table[f"{measure}_ci_low"], table[f"{measure}_ci_high"])
            text[measure] = [_with_interval(*cell) for cell in zip(*parts, strict=True)]
        elif name in MEASURES:
            text[name] = [rounded(value) for value in table[name]]
        elif not any(name == f"{known}_{ending}" for known in AGGREGATED for ending in SUMMARIES):
            text[name] = [f"{value:g}" if isinstance(value, float) else str(value) for value in table[name]]
    return _pipe_table(text)


def _with_interval(mean: float, low: float, high: float) -> str:
    return rounded(mean) if np.isnan(low) else f"{rounded(mean)} [{rounded(low)}, {rounded(high)}]"


def _pipe_table(text: pd.DataFrame) -> str:
    # A bar would end the cell, and a line break the row.
    safe = text.map(lambda cell: " ".join(cell.replace("|", "\\|").split()))
    return safe.to_markdown(index=False, disable_numparse=True) + "\n"
