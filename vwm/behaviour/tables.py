"""Tables of measures: one responder by set size, and the same over seeds with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import t as student_t

from vwm.behaviour import circular
from vwm.behaviour.mixture import fit_mixture
from vwm.behaviour.responses import Responses
from vwm.behaviour.swaps import swap_report

if TYPE_CHECKING:
    from pandas.api.typing import DataFrameGroupBy


@dataclass(frozen=True)
class Measure:
    """What a column holds: for people who read the table without the program."""

    meaning: str
    unit: str
    convention: str = ""
    latex: str = ""  # its heading in a LaTeX table, unit included; empty where the column's own name does


SWAP_SEED = 0  # of the permutations: the same responses always give the same table
SWAP_PERMUTATIONS = 39  # for each set size of each run, and so many for every seed

MEASURES = {
    "mean_abs_error": Measure("mean |error|", "rad", "chance is π/2", r"$\overline{|e|}$ (rad)"),
    "sd_abs_error": Measure("SD over trials of the trial's mean |error|", "rad", "divided by the number of trials"),
    "circular_sd": Measure("circular SD of the errors", "rad", "√(−2 ln R), R = |mean exp(ie)|", r"$\sigma$ (rad)"),
    "circular_variance": Measure(
        "circular variance of the errors", "rad²", "−2 ln R, not 1 − R", r"$\sigma^2$ (rad$^2$)"
    ),
    "circular_kurtosis": Measure(
        "kurtosis of the errors",
        "–",
        "(ρ₂ cos(μ₂ − 2μ₁) − R⁴)/(1 − R)², Fisher 1993; 0 for a wrapped normal",
        "kurtosis",
    ),
    "precision": Measure(
        "precision",
        "1/rad",
        "1/circular SD minus its expectation under uniform responding for as many responses, Bays et al. 2009; "
        "chance is 0",
        "precision (1/rad)",
    ),
    "w": Measure(
        "mixture weight: share of responses at the target",
        "–",
        "two-component mixture w·vonMises(0, κ) + (1 − w)/2π, maximum likelihood, Zhang & Luck 2008",
        "$w$",
    ),
    "kappa": Measure("concentration κ of the von Mises at the target", "–", "from the same fit as w", r"$\kappa$"),
    "capacity": Measure(
        "capacity K: items in memory", "items", "K = w · set size, from the same fit as w", "$K$ (items)"
    ),
    "sd": Measure(
        "circular SD of the von Mises at the target", "rad", "√(−2 ln(I₁(κ)/I₀(κ))), from the same fit as w", "SD (rad)"
    ),
    "information": Measure(
        "Fisher information J of a response from memory", "1/rad²", "κ·I₁(κ)/I₀(κ), from the same fit as w", "$J$"
    ),
    "p_t": Measure(
        "share of responses at the target",
        "–",
        "three-component mixture with one κ, maximum likelihood, Bays et al. 2009, one response a trial; empty "
        "at one item",
        "$p_t$",
    ),
    "p_n": Measure("swap rate: share of responses at a non-target", "–", "from the same fit as p_t", "$p_n$"),
    "p_u": Measure("share of uniform guesses", "–", "from the same fit as p_t", "$p_u$"),
    "swap_kappa": Measure("concentration κ of the three-component mixture", "–", "from the same fit as p_t"),
    "swap_null": Measure(
        "swap rate that chance alone gives",
        "–",
        "mean p_n when the non-targets, relative to the target, are reassigned between the responses of a set size",
        "$p_n$, null",
    ),
    "swap_null_95": Measure("95 % point of p_n when non-targets are reassigned", "–", "see `swap_null`"),
    "swap_p_value": Measure(
        "share of reassignments with a p_n as high as the one found",
        "–",
        f"one-sided permutation test of swaps, {SWAP_PERMUTATIONS} reassignments",
    ),
}
"""The measures of a responder at one set size, in the order of the tables."""

OF_THE_MIXTURE = ("w", "kappa", "capacity", "sd", "information")
OF_THE_SWAPS = ("p_t", "p_n", "p_u")

AGGREGATED = (
    *("mean_abs_error", "circular_sd", "circular_variance", "circular_kurtosis", "precision"),
    *OF_THE_MIXTURE,
    *OF_THE_SWAPS,
    "swap_null",
)
"""The measures that are averaged over seeds."""

COUNTS = {
    "set_size": Measure("items shown on a trial", "items", latex="$n$"),
    "n_trials": Measure("trials", "–"),
    "n_responses": Measure("responses, and so errors", "–", "a network answers for every item shown on a trial"),
    "mixture_flag": Measure("why w, κ, K, SD and J cannot be told from these errors; empty where they can", "–"),
    "swap_flag": Measure("why p_t, p_n and p_u cannot be told from these responses; empty where they can", "–"),
    "n_seeds": Measure("runs averaged over, one a seed", "–", latex="seeds"),
    "n_identified": Measure("those of n_seeds whose mixture_flag is empty", "–", "w, κ, K, SD, J average over these"),
    "n_swaps_identified": Measure(
        "those of n_seeds whose swap_flag is empty", "–", "p_t, p_n, p_u average over these; 0 at one item"
    ),
}

OF_PEOPLE = {
    "source": Measure("whom the networks are beside", "–", "references under People"),
    "measure": Measure("the measure compared, a column of `runs`", "–"),
    "network": Measure("mean over seeds of the measure", "that of the measure"),
    "human": Measure("mean over people of the measure", "that of the measure"),
    "human_se": Measure("its standard error", "that of the measure", "empty where not published"),
    "z": Measure("(network − human)/human_se", "–"),
    "n_set_sizes": Measure("set sizes that networks and people have in common", "–"),
    "variance_distance": Measure("distance in variance", "–", "RMS of ln(network variance/human variance)"),
    "kurtosis_distance": Measure("distance in kurtosis", "–", "RMS difference"),
    "exponent_distance": Measure("distance in the exponent of variance over set size", "–", "|difference|"),
    "rms_z": Measure("RMS of z over set sizes, of variance and kurtosis", "–"),
    "rank": Measure("place among the grid points by rms_z", "–", "1 is the closest"),
}
"""The columns of networks beside people, see ``human.compare`` and ``human.rank``."""

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
    table = pd.DataFrame(rows).merge(_swaps(responses), on="set_size", how="left")
    table["swap_flag"] = table["swap_flag"].fillna("")
    return table


def one_response_a_trial(responses: Responses, most: int | None = None) -> Responses:
    """One response of each trial, or of the first ``most`` trials of each set size: as many as a person gives.

    Responses of one trial share its noise, so they are not independent of each other. Of the first trial the first is
    taken, of the second the second, and so on around, so that all items are taken equally often.
    """
    trials, first, count = np.unique(responses.trial, return_index=True, return_counts=True)
    chosen = first + np.arange(trials.size) % count
    set_size = responses.set_size[first]
    chosen = np.sort(np.concatenate([chosen[set_size == n][:most] for n in responses.set_sizes()]))
    columns = {name: column for name, column in vars(responses).items() if isinstance(column, np.ndarray)}
    return replace(responses, **{name: column[chosen] for name, column in columns.items()})


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
        "sd": fit.sd,
        "information": fit.information,
        "mixture_flag": fit.flag,
    }


def _swaps(responses: Responses) -> pd.DataFrame:
    """The swap measures of every set size above 1, under the names of this module."""
    names = {"kappa": "swap_kappa", "null_mean": "swap_null", "null_95": "swap_null_95", "p_value": "swap_p_value"}
    found = swap_report(one_response_a_trial(responses), SWAP_SEED, SWAP_PERMUTATIONS).by_set_size.rename(columns=names)
    columns = ["set_size", *OF_THE_SWAPS, *names.values(), "swap_flag"]  # all of them also where there is no row
    return found.reindex(columns=columns).astype({"set_size": np.int64, "swap_flag": str})


def aggregate(runs: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Mean, SD and 95 % interval over runs of every measure in ``AGGREGATED``.

    Args:
        runs: rows of ``measures``, one per run and set size, with the columns of ``by`` added.
        by: the columns that say which runs belong together, ``set_size`` among them.

    Returns:
        One row per combination of ``by`` with ``n_seeds``, ``n_identified``, ``n_swaps_identified`` and, for every
        measure, the columns ``<measure>_mean``, ``_sd``, ``_ci_low`` and ``_ci_high``. The unit of the interval is the
        run: trials of one network are no sample of networks. Parameters of a mixture come from the runs whose mixture
        was identified.
    """
    counted = dict.fromkeys(OF_THE_MIXTURE, "mixture_flag") | dict.fromkeys(OF_THE_SWAPS, "swap_flag")
    identified = runs.assign(**{name: runs[name].where(runs[flag] == "") for name, flag in counted.items()})
    groups = identified.groupby(list(by), sort=False, dropna=False)
    columns: dict[str, pd.Series[Any]] = {
        "n_seeds": groups.size(),
        "n_identified": groups["w"].count(),
        "n_swaps_identified": groups["p_n"].count(),
    }
    for name in AGGREGATED:
        columns |= summaries(groups, name)
    return pd.DataFrame(columns).reset_index()


def summaries(groups: "DataFrameGroupBy[Any, Any]", name: str) -> dict[str, "pd.Series[Any]"]:
    """Mean, SD and 95 % interval over the runs of each group, under the names of ``SUMMARIES``."""
    count, mean, sd = groups[name].count(), groups[name].mean(), groups[name].std()
    # With one seed there are no degrees of freedom and t is NaN, as the SD is.
    half_width: pd.Series[float] = sd * student_t.ppf(0.975, (count - 1).where(count > 1)) / np.sqrt(count)
    return {
        f"{name}_mean": mean,
        f"{name}_sd": sd,
        f"{name}_ci_low": mean - half_width,
        f"{name}_ci_high": mean + half_width,
    }


def data_dictionary(columns: Sequence[str]) -> dict[str, Measure]:
    """Meaning, unit and convention of those of ``columns`` that this module makes, in their order."""
    known = COUNTS | MEASURES | OF_PEOPLE
    for name in AGGREGATED:
        known |= summarised(name, MEASURES[name])
    return {name: known[name] for name in columns if name in known}


def summarised(name: str, measure: Measure) -> dict[str, Measure]:
    """The entries of a data dictionary for the columns of `summaries`."""
    return {
        f"{name}_{ending}": Measure(f"{measure.meaning}: {meaning}", measure.unit, f"see `{name}`")
        for ending, meaning in SUMMARIES.items()
    }
