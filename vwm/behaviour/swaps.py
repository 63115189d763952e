"""Swaps: responses about another item of the trial, beside what chance alone makes look like swaps.

Some responses lie near a non-target by accident. How many is known from the same responses with the non-targets of
other trials: as angles relative to the target, so that items keep the distances at which they are shown.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from vwm.behaviour.circular import FloatArray, wrap
from vwm.behaviour.mixture import ThreeComponentFit, fit_three_component
from vwm.behaviour.mixture_likelihood import one_minus_cos, relative_density
from vwm.behaviour.responses import IntArray, Responses

ANGLE_EDGES = np.linspace(0, np.pi, 7)  # rad; bins of 30° for the distance between non-target and target


@dataclass(frozen=True)
class SwapReport:
    """Swap rates of one responder, and which items the swaps go to."""

    by_set_size: pd.DataFrame
    by_angle: pd.DataFrame
    by_location: pd.DataFrame  # without rows where the places of the items are not known


def swap_report(responses: Responses, seed: int, permutations: int = 199) -> SwapReport:
    """Swap rates at each set size above 1 with a permutation null.

    The null reassigns the non-targets, as angles relative to the target, between the responses of one set size.

    Args:
        responses: of one responder.
        seed: of the permutations.
        permutations: how many; the smallest p-value is 1/(permutations + 1).

    Returns:
        ``by_set_size``: ``set_size``, ``n_responses``, ``p_t``, ``p_n``, ``p_u``, ``kappa``, ``swap_flag``,
        ``null_mean`` and ``null_95`` (mean and 95 % point of p_n under the null), ``p_value`` (one-sided).
        ``by_angle``: ``set_size``, ``distance_low``, ``distance_high`` (rad, |non-target − target|),
        ``n_non_targets``, ``swap_rate`` (expected swaps to a non-target at that distance, per non-target shown),
        ``null_rate``.
        ``by_location``: the same with ``distance`` (|column − column| for a network).
    """
    rng = np.random.default_rng(seed)
    by_set_size, by_angle, by_location = [], [], []
    for set_size in responses.set_sizes():
        here = _Cell.of(responses, set_size)
        if here is None:
            continue
        fit = fit_three_component(here.errors, here.nontarget_errors(here.offsets))
        swaps = here.swaps(fit, here.offsets)
        null_rates, null_by_angle, null_by_location = [], [], []
        angle = np.digitize(np.abs(here.offsets), ANGLE_EDGES[1:-1])
        for _ in range(permutations):
            order = rng.permutation(here.errors.size)
            null = fit_three_component(here.errors, here.nontarget_errors(here.offsets[order]), start=fit)
            null_swaps = here.swaps(null, here.offsets[order])
            null_rates.append(null.p_n)
            null_by_angle.append(_sums(angle[order], null_swaps))
            if here.distances is not None:
                null_by_location.append(_sums(here.distances[order], null_swaps))
        by_set_size.append(
            {
                "set_size": set_size,
                "n_responses": fit.n,
                "p_t": fit.p_t,
                "p_n": fit.p_n,
                "p_u": fit.p_u,
                "kappa": fit.kappa,
                "swap_flag": fit.flag,
                "null_mean": np.mean(null_rates),
                "null_95": np.quantile(null_rates, 0.95),
                "p_value": (1 + np.sum(np.array(null_rates) >= fit.p_n)) / (1 + permutations),
            }
        )
        edges = {"distance_low": ANGLE_EDGES[:-1], "distance_high": ANGLE_EDGES[1:]}
        by_angle.append(_rates(set_size, edges, angle, swaps, null_by_angle))
        if here.distances is not None:
            every = {"distance": np.arange(here.distances.max() + 1)}
            by_location.append(_rates(set_size, every, here.distances, swaps, null_by_location))
    return SwapReport(pd.DataFrame(by_set_size), _joined(by_angle), _joined(by_location))


@dataclass(frozen=True)
class _Cell:
    """The responses at one set size n."""

    errors: FloatArray  # [N] response − target
    offsets: FloatArray  # [N, n − 1] non-target − target
    distances: IntArray | None  # [N, n − 1] |place of the non-target − place of the target|

    @classmethod
    def of(cls, responses: Responses, set_size: int) -> "_Cell | None":
        """None where there are no non-targets."""
        here = responses.set_size == set_size
        non_targets = responses.non_targets[here]
        shown = ~np.isnan(non_targets)
        if set_size < 2 or not shown.any():
            return None
        offsets = wrap(non_targets - responses.target[here][:, None])[shown].reshape(len(non_targets), -1)
        distances = None
        if responses.location is not None and responses.non_target_locations is not None:
            apart = np.abs(responses.non_target_locations[here] - responses.location[here][:, None])
            distances = apart[shown].reshape(offsets.shape)
        return cls(responses.errors[here], offsets, distances)

    def nontarget_errors(self, offsets: FloatArray) -> FloatArray:
        """[N, n − 1] response − non-target, not wrapped."""
        return self.errors[:, None] - offsets

    def swaps(self, fit: ThreeComponentFit, offsets: FloatArray) -> FloatArray:
        """[N, n − 1] probability that a response was about this non-target, by Bayes' rule under the fit."""
        at_target = fit.p_t * relative_density(one_minus_cos(self.errors), fit.kappa)
        density = relative_density(one_minus_cos(self.nontarget_errors(offsets)), fit.kappa)
        at_others = fit.p_n / offsets.shape[1] * density
        of_all = at_target + at_others.sum(axis=1) + fit.p_u
        # Without guesses an error far from all items can have no likelihood left in floating point.
        shares: FloatArray = at_others / np.maximum(of_all, np.finfo(np.float64).tiny)[:, None]
        return shares


def _sums(group: IntArray, values: FloatArray) -> FloatArray:
    sums: FloatArray = np.bincount(group.ravel(), values.ravel()).astype(np.float64)
    return sums


def _rates(
    set_size: int, labels: dict[str, FloatArray], group: IntArray, swaps: FloatArray, null: list[FloatArray]
) -> pd.DataFrame:
    """Swaps per non-target in every group that has any, observed and under the null."""
    groups = len(next(iter(labels.values())))
    counts = np.bincount(group.ravel(), minlength=groups)
    table = pd.DataFrame({"set_size": set_size, **labels, "n_non_targets": counts})
    rates = {"swap_rate": _sums(group, swaps), "null_rate": np.mean(null, axis=0)}
    for name, sums in rates.items():
        table[name] = np.append(sums, np.zeros(groups - sums.size)) / np.maximum(counts, 1)
    return table[table["n_non_targets"] > 0].reset_index(drop=True)


def _joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
