"""What a linear read-out can tell from noisy responses: ways to divide the combinations of two items' angles."""

from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray

from vwm.analysis.mean_rates import mean_rates, phases_from_stimulus
from vwm.analysis.tuning import decoding_accuracy
from vwm.behaviour.circular import FloatArray
from vwm.model.network import Network
from vwm.model.task import Trials, draw_trials, wrap

SIDES = 4  # angles of each item, evenly spaced
REPEATS = 30  # noisy trials of each combination to fit a classifier, and as many to test it
RANDOM = 100
_PLACES = 4  # pairs of locations, each with other angles


def dichotomies() -> dict[str, NDArray[np.int64]]:
    """Balanced ways to divide the combinations of two items' angles, [dichotomies, combinations] of ±1, by kind."""
    halves = np.array([[1 if side in chosen else -1 for side in range(SIDES)] for chosen in _halves()])
    ones = np.ones(SIDES, dtype=np.int64)
    random = np.array([np.random.default_rng(seed).permutation(SIDES**2) for seed in range(RANDOM)])
    return {
        "item": np.array([np.kron(half, ones) for half in halves] + [np.kron(ones, half) for half in halves]),
        "combination": np.array([np.kron(one, other) for one in halves for other in halves]),
        "random": np.where(random < SIDES**2 // 2, 1, -1),
    }


def _halves() -> list[tuple[int, ...]]:
    """The ways to choose half of the angles, the first always among them."""
    return [chosen for chosen in combinations(range(SIDES), SIDES // 2) if 0 in chosen]


@torch.no_grad()
def accuracies(
    network: Network, n: int, groups: dict[str, slice], generator: torch.Generator
) -> dict[str, dict[str, dict[str, FloatArray]]]:
    """By phase, group and kind, how well each dichotomy is decoded, averaged over pairs of locations."""
    params = network.params
    kinds = dichotomies()
    sums: dict[str, dict[str, dict[str, FloatArray]]] = {
        phase: {group: {kind: np.zeros(len(labels)) for kind, labels in kinds.items()} for group in groups}
        for phase in phases_from_stimulus(params)
    }
    repeats = 2 * REPEATS
    sides = torch.arange(SIDES, device=generator.device).to(network.tau) * (2 * np.pi / SIDES)
    combined = torch.cartesian_prod(sides, sides).repeat_interleave(repeats, dim=0)
    for _ in range(_PLACES):
        drawn = draw_trials(params, torch.full((len(combined),), n), generator, network.tau.dtype)
        offset = 2 * np.pi * torch.rand(2, generator=generator, device=generator.device, dtype=combined.dtype)
        present = drawn.present[:1].expand_as(drawn.present)
        places = present[0].nonzero()[:2, 0]
        angle = drawn.angle.clone()
        angle[:, places] = wrap(combined + offset)
        encoded = wrap(angle + drawn.encoded - drawn.angle)
        trials = Trials(drawn.set_size, present, angle, encoded)
        for phase, rates in mean_rates(network, trials, generator).items():
            by_condition = rates.reshape(SIDES**2, repeats, -1)
            for group, units in groups.items():
                train, test = by_condition[:, :REPEATS, units], by_condition[:, REPEATS:, units]
                for kind, labels in kinds.items():
                    sums[phase][group][kind] += decoding_accuracy(train, test, labels) / _PLACES
    return sums
