"""To what units respond: the angle of one item, of several added up, or of items in combination.

All is said of excitatory and of inhibitory units apart, and of the mean rates over a phase without spike noise; only
what can be decoded is asked of noisy responses. Units with a mean rate below 1 Hz are left out as silent.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from vwm.analysis import dichotomies, mixed_selectivity_figures
from vwm.analysis.mean_rates import groups_of, mean_rates
from vwm.analysis.results import Column, Progress, refuse_bad_weights, unwatched
from vwm.analysis.tuning import (
    chance_floor,
    inverse_participation_ratio,
    item_and_interaction,
    participation_ratio,
    squared_vector_strength,
    width_at_half_height,
)
from vwm.behaviour.circular import FloatArray
from vwm.config import Configuration
from vwm.errors import UserError
from vwm.model.network import Network
from vwm.model.task import Trials, draw_trials

SEED = 0
_TRIALS_OF_A_LOCATION = 1000  # for vector strength, of each set size
_PAIRS = 500  # of stimulus sets that share locations, of each set size, for the variance partition
_ANGLES = 48  # of a tuning curve
_RESAMPLES = 2000
_SILENT_HZ = 1.0
_STILL = 1e-8  # of the squared mean rate: a variance below is rounding
_SEVERAL = 1.5  # effective items from which on a unit is mixed
_TOGETHER = 0.1  # share of interactions from which on mixed selectivity is non-linear

_COLUMNS = {  # of tables of many runs, with their units
    **{"vector_strength": "–", "effective_items": "locations", "interaction_share": "–", "nonlinear_mixed_share": "–"},
    **{"participation_ratio": "dimensions", "tuning_width": "rad", "accuracy_item": "–", "accuracy_combination": "–"},
}


@dataclass(frozen=True)
class Responses:
    """The units of a network in one phase at one set size.

    Attributes:
        mean: [N], Hz.
        squared_strength, floor: [N, M], squared vector strength without its chance floor, and the floor of the vector
            strength, of the angle at each location.
        item, interaction: [pairs, N], what each pair of stimulus sets adds to the variance, Hz², summed over items.
        dimension: by group, participation ratio of the responses to random stimulus sets.
    """

    mean: FloatArray
    squared_strength: FloatArray
    floor: FloatArray
    item: FloatArray
    interaction: FloatArray
    dimension: dict[str, float]

    @property
    def vector_strength(self) -> FloatArray:
        """[N] at the location of the strongest tuning, not below 0."""
        strength: FloatArray = np.sqrt(np.clip(self.squared_strength.max(axis=1), 0, None))
        return strength

    @property
    def effective_items(self) -> FloatArray:
        """[N] 1/IPR of the squared vector strength over locations, from 1 to M."""
        items: FloatArray = 1 / inverse_participation_ratio(self.squared_strength)
        return items

    @property
    def interaction_share(self) -> FloatArray:
        """[N] of the variance that an item causes, what depends on the other items; NaN where angles do nothing."""
        item, interaction = self.item.mean(axis=0), self.interaction.mean(axis=0)
        total = np.maximum(item, 0) + interaction
        is_moved = total > _STILL * self.mean**2
        share: FloatArray = np.divide(interaction, total, out=np.full_like(total, np.nan), where=is_moved)
        return share

    @property
    def is_selective(self) -> NDArray[np.bool_]:
        """[N] neither silent nor the same at all angles."""
        is_tuned: NDArray[np.bool_] = np.isfinite(self.interaction_share) & np.isfinite(self.effective_items)
        return is_tuned & (self.mean >= _SILENT_HZ)


@dataclass(frozen=True)
class Result:
    """What was measured.

    Attributes:
        set_size: [K], the trained ones.
        groups: the units of each group by its name.
        phases: by name, K each.
        curves: by phase, [N, M, angles], rates with one item at each location, Hz.
        accuracy: by phase, group and kind of dichotomy, the share of right decisions for each of them.
    """

    set_size: list[int]
    groups: dict[str, slice]
    phases: dict[str, list[Responses]]
    curves: dict[str, FloatArray]
    accuracy: dict[str, dict[str, dict[str, FloatArray]]]

    def width(self, phase: str) -> FloatArray:
        """[N] of each unit at the location where one item moves its rate most, radians; NaN for a silent unit."""
        curves = self.curves[phase]
        best = np.ptp(curves, axis=2).argmax(axis=1)
        width = width_at_half_height(curves[np.arange(len(curves)), best])
        return np.where(curves.mean(axis=(1, 2)) >= _SILENT_HZ, width, np.nan)

    def of_group(self, phase: str, group: str, measure: str) -> list[float]:
        """A measure of ``Responses`` a set size, the median over the units that are not silent; None without them."""
        units = self.groups[group]
        return [median(getattr(one, measure)[units][one.mean[units] >= _SILENT_HZ]) for one in self.phases[phase]]

    def interaction_of_group(self, phase: str, group: str) -> FloatArray:
        """[K, 3]: the share of interactions in the variance summed over units, and its 95 % bootstrap interval."""
        units = self.groups[group]
        return np.array([_share(one.item[:, units], one.interaction[:, units]) for one in self.phases[phase]])

    def kinds(self, phase: str, group: str) -> dict[str, list[float]]:
        """Shares of the units of a group that are unselective, pure, linear and non-linear mixed, a set size.

        With one item on a trial there is nothing to mix, and all but the first are NaN.
        """
        kinds: dict[str, list[float]] = {"unselective": [], "pure": [], "linear_mixed": [], "nonlinear_mixed": []}
        units = self.groups[group]
        for n, one in zip(self.set_size, self.phases[phase], strict=True):
            is_selective = one.is_selective[units]
            is_together = is_selective & (one.interaction_share[units] >= _TOGETHER)
            is_several = is_selective & ~is_together & (one.effective_items[units] >= _SEVERAL)
            shares = (is_selective & ~is_together & ~is_several, is_several, is_together)
            kinds["unselective"].append(float((~is_selective).mean()))
            for kind, units_of_it in zip(("pure", "linear_mixed", "nonlinear_mixed"), shares, strict=True):
                kinds[kind].append(float(units_of_it.mean()) if n > 1 else float("nan"))
        return kinds

    def summary(self) -> dict[str, Any]:
        """The measures of ``DEFINITIONS``, a value a set size where they differ between them."""
        shown: dict[str, Any] = {"set_size": self.set_size, "phases": {}}
        for phase, found in self.phases.items():
            shown["phases"][phase] = {}
            for group, units in self.groups.items():
                shares = self.interaction_of_group(phase, group)
                accuracy = self.accuracy[phase][group]
                shown["phases"][phase][group] = {
                    "vector_strength": self.of_group(phase, group, "vector_strength"),
                    "chance_floor": [median(one.floor[units]) for one in found],
                    "effective_items": self.of_group(phase, group, "effective_items"),
                    "interaction_share": shares[:, 0],
                    "interaction_share_interval": shares[:, 1:],
                    **{f"{kind}_share": values for kind, values in self.kinds(phase, group).items()},
                    "participation_ratio": [one.dimension[group] for one in found],
                    "tuning_width": median(self.width(phase)[units]),
                    **{f"accuracy_{kind}": float(values.mean()) for kind, values in accuracy.items()},
                }
        return shown

    def columns(self) -> dict[str, Column]:
        """Of the delay, or the last phase there is, the measures of each group."""
        phase = "delay" if "delay" in self.phases else list(self.phases)[-1]
        columns = {}
        for group, shown in self.summary()["phases"][phase].items():
            for name, unit in _COLUMNS.items():
                is_by_size = not isinstance(shown[name], float)
                values = dict(zip(self.set_size, shown[name], strict=True)) if is_by_size else shown[name]
                columns[f"{name}_{group}"] = Column(f"{group} units, {phase}: {DEFINITIONS[name]}", unit, values)
        return columns

    def arrays(self) -> dict[str, NDArray[Any]]:
        """``<phase>_<n>_`` with what `Responses` tells of units; ``<phase>_curves``, ``_accuracy_<group>_<kind>``."""
        names = ("mean", "squared_strength", "floor", "interaction_share", "effective_items")
        arrays: dict[str, NDArray[Any]] = {
            f"{phase}_{n}_{name}": getattr(one, name)
            for phase, found in self.phases.items()
            for n, one in zip(self.set_size, found, strict=True)
            for name in names
        }
        for phase, groups in self.accuracy.items():
            arrays[f"{phase}_curves"] = self.curves[phase]
            for group, kinds in groups.items():
                arrays |= {f"{phase}_accuracy_{group}_{kind}": values for kind, values in kinds.items()}
        return arrays


DEFINITIONS = {
    "set_size": "items shown on a trial",
    "vector_strength": "|E(r e^{iθ})|/E(r) of a unit's rate r and the angle θ at the location where this is greatest, "
    f"over random stimulus sets ({_TRIALS_OF_A_LOCATION} with an item there), the chance floor of so many trials "
    "removed (Vinck et al. 2010); median over units. 0 untuned; I₁(κ)/I₀(κ) for tuning in proportion to exp(κ cos θ)",
    "chance_floor": "the vector strength that as many trials would give to an untuned unit of these rates, median over "
    "units and locations",
    "effective_items": "1/IPR, IPR = Σ v⁴/(Σ v²)² over the vector strengths v at all locations: 1 if tuned at "
    "one of them alone, max_item_num if at all alike; median over units",
    "interaction_share": "of the variance that an item's angle causes in the rates, all other angles held, the part "
    f"that depends on what these are (Sobol' partition from {_PAIRS} pairs of stimulus sets; sums over items and "
    "units): 0 if items add up",
    "interaction_share_interval": "95 % percentile bootstrap interval over pairs of stimulus sets",
    "unselective_share": "share of units with a mean rate below 1 Hz, or whose rate no angle moves; medians leave out "
    "those below 1 Hz",
    "pure_share": f"from two items on: share of units with effective_items < {_SEVERAL} and interaction_share below "
    f"{_TOGETHER}",
    "linear_mixed_share": f"share of units with effective_items ≥ {_SEVERAL} and interaction_share < {_TOGETHER}",
    "nonlinear_mixed_share": f"share of units with interaction_share ≥ {_TOGETHER}",
    "participation_ratio": "(Σλ)²/Σλ² of the eigenvalues of the rates' covariance over random stimulus sets: in how "
    "many dimensions the group's responses vary",
    "tuning_width": "full width of the tuning curve halfway between its least and greatest rate, radians, one item at "
    "the location where it moves the rate most, median over units; π for a cosine",
    "accuracy_item": "dichotomies of the combinations of two items' angles that depend on one item alone: "
    f"{dichotomies.SIDES} angles of each, told apart by a linear classifier from noisy responses averaged over the "
    f"phase, {dichotomies.REPEATS} trials each to fit and to test, at the smallest trained set size from 2 on. 0.5 "
    "chance",
    "accuracy_combination": "those that are products of a dichotomy of one item and one of the other, which no linear "
    "classifier can tell if the items add up; 0.5 chance",
    "accuracy_random": f"{dichotomies.RANDOM} random halves of all {dichotomies.SIDES**2} combinations; 0.5 chance",
}


def analyse(network: Network, configuration: Configuration, progress: Progress = unwatched) -> Result:
    """Measure the selectivity of every unit at the trained set sizes.

    Raises:
        UserError: a weight is not finite, or the network was trained on no more than one item.
    """
    refuse_bad_weights(network)
    sizes = sorted(configuration.model_params.item_num)
    if sizes[-1] < 2:
        raise UserError(
            f"mixed_selectivity: this network was trained with item_num {sizes}; two items or more on a trial are "
            "needed. Choose other analyses with --only."
        )
    generator = torch.Generator(network.tau.device).manual_seed(SEED)
    groups = groups_of(network)
    by_size = []
    for done, n in enumerate(sizes):
        progress(done, len(sizes) + 1)
        by_size.append(responses_at(network, n, groups, generator))
    progress(len(sizes), len(sizes) + 1)
    return Result(
        set_size=sizes,
        groups=groups,
        phases={phase: [found[phase] for found in by_size] for phase in by_size[0]},
        curves=tuning_curves(network),
        accuracy=dichotomies.accuracies(network, min(n for n in sizes if n >= 2), groups, generator),
    )


def responses_at(
    network: Network, n: int, groups: dict[str, slice], generator: torch.Generator
) -> dict[str, Responses]:
    """What units do at set size n, by phase."""
    params = network.params
    count = _TRIALS_OF_A_LOCATION * params.max_item_num // n
    trials = draw_trials(params, torch.full((count,), n), generator, network.tau.dtype)
    present, angle = trials.present.cpu().numpy(), trials.angle.double().cpu().numpy()
    variances = _variances(network, n, generator)
    found = {}
    for phase, rates in mean_rates(network, trials).items():
        item, interaction = variances[phase]
        by_location = [(rates[shown], angle[shown, m]) for m, shown in enumerate(present.T)]
        found[phase] = Responses(
            mean=rates.mean(axis=0),
            squared_strength=np.stack([squared_vector_strength(r, shown) for r, shown in by_location], axis=1),
            floor=np.stack([chance_floor(r) for r, _ in by_location], axis=1),
            item=item,
            interaction=interaction,
            dimension={group: participation_ratio(rates[:, units]) for group, units in groups.items()},
        )
    return found


def _variances(network: Network, n: int, generator: torch.Generator) -> dict[str, tuple[FloatArray, FloatArray]]:
    """`item_and_interaction` of each phase, summed over the items of a set, [pairs, N] each."""
    first, second = (
        draw_trials(network.params, torch.full((_PAIRS,), n), generator, network.tau.dtype) for _ in range(2)
    )
    second = Trials(first.set_size, first.present, second.angle, second.encoded)
    places = first.present.nonzero()[:, 1].view(_PAIRS, n)
    of_first, of_second = mean_rates(network, first), mean_rates(network, second)
    sums = {phase: (np.zeros_like(rates), np.zeros_like(rates)) for phase, rates in of_first.items()}
    for place in places.T:
        is_item = torch.nn.functional.one_hot(place, network.params.max_item_num).bool()
        item_changed = mean_rates(network, _mixed(is_item, second, first))
        others_changed = mean_rates(network, _mixed(is_item, first, second))
        for phase, (item, interaction) in sums.items():
            one, together = item_and_interaction(
                of_first[phase], item_changed[phase], others_changed[phase], of_second[phase]
            )
            item += one
            interaction += together
    return sums


def _mixed(is_item: Tensor, item: Trials, others: Trials) -> Trials:
    """Trials with the angle of one item from ``item``, and the rest from ``others``."""
    angle, encoded = (torch.where(is_item, getattr(item, name), getattr(others, name)) for name in ("angle", "encoded"))
    return Trials(others.set_size, others.present, angle, encoded)


def tuning_curves(network: Network) -> dict[str, FloatArray]:
    """Rates [N, M, angles], Hz, of each phase with one item at each location, without any noise."""
    places = network.params.max_item_num
    shown = torch.arange(_ANGLES).to(network.tau) * (2 * np.pi / _ANGLES) - np.pi
    angle = shown.repeat(places)[:, None].expand(-1, places)
    is_place = torch.eye(places, device=network.tau.device).bool().repeat_interleave(_ANGLES, dim=0)
    trials = Trials(torch.ones(len(angle), dtype=torch.long, device=angle.device), is_place, angle, angle)
    curves = mean_rates(network, trials)
    return {phase: rates.T.reshape(-1, places, _ANGLES) for phase, rates in curves.items()}


def median(values: FloatArray) -> float:
    """Over the values that are numbers; NaN where none is."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")


def _share(item: FloatArray, interaction: FloatArray) -> tuple[float, float, float]:
    """The share of interactions in the variance summed over units [pairs, N], and its interval over pairs."""
    rng = np.random.default_rng(SEED)
    one, together = item.sum(axis=1), interaction.sum(axis=1)
    drawn = rng.integers(0, len(one), (_RESAMPLES, len(one)))
    sums = np.array([[together[rows].sum(), one[rows].sum()] for rows in (np.arange(len(one)), *drawn)])
    with np.errstate(invalid="ignore"):
        shares = sums[:, 0] / (np.maximum(sums[:, 1], 0) + sums[:, 0])
    low, high = np.quantile(shares[1:], [0.025, 0.975])
    return float(shares[0]), float(low), float(high)


def plot(result: Result) -> dict[str, Figure]:
    """Two figures: selectivity against set size, and tuning curves with what can be decoded."""
    return {
        "": mixed_selectivity_figures.set_size_figure(result),
        "tuning": mixed_selectivity_figures.tuning_figure(result),
    }
