"""Swap rates beside their permutation null, and which items swaps go to."""

from pathlib import Path

import numpy as np
import pytest

from tests.simulated import swapping
from vwm.behaviour.circular import FloatArray, wrap
from vwm.behaviour.responses import Responses, read_run
from vwm.behaviour.swaps import swap_report


def responder(p_t: float, p_n: float, count: int, rng: np.random.Generator, set_size: int = 4) -> Responses:
    """Targets anywhere; errors and distances to the non-targets from ``swapping``."""
    errors, nontarget_errors = swapping(p_t, p_n, 10.0, set_size, count, rng)
    return of_offsets(errors, wrap(errors[:, None] - nontarget_errors), rng)


def of_offsets(errors: FloatArray, offsets: FloatArray, rng: np.random.Generator) -> Responses:
    target = rng.uniform(-np.pi, np.pi, errors.size)
    set_size = np.full(errors.size, offsets.shape[1] + 1)
    non_targets = wrap(target[:, None] + offsets)
    return Responses("r", np.arange(errors.size), set_size, target, wrap(target + errors), non_targets)


def test_swaps_are_found_beyond_chance() -> None:
    rows = swap_report(responder(0.6, 0.25, 300, np.random.default_rng(0)), seed=0, permutations=99).by_set_size
    assert rows["p_value"].tolist() == [0.01]
    assert rows["p_n"].item() == pytest.approx(0.25, abs=0.08)
    assert rows["null_mean"].item() < 0.1
    assert rows["null_mean"].item() < rows["null_95"].item() < rows["p_n"].item()


def test_p_values_without_swaps_are_as_often_small_as_they_say() -> None:
    rng = np.random.default_rng(1)
    p_values = np.array(
        [
            swap_report(responder(0.7, 0.0, 120, rng), seed, permutations=39).by_set_size["p_value"].item()
            for seed in range(80)
        ]
    )
    # A rate of 0 in most permutations and in the data as well is a p-value of 1; small ones are no more than uniform.
    assert np.mean(p_values <= 0.1) <= 0.1 + 3 * np.sqrt(0.09 / 80)
    assert np.mean(p_values <= 0.5) <= 0.5 + 3 * np.sqrt(0.25 / 80)
    assert p_values.min() < 0.2


def test_swaps_to_similar_items_are_seen_at_small_angles() -> None:
    rng = np.random.default_rng(2)
    offsets = rng.uniform(-np.pi, np.pi, (3000, 3))
    errors = rng.vonmises(0, 30, 3000)
    near = np.abs(offsets) < np.pi / 3
    row, column = np.nonzero(near & (near.cumsum(axis=1) == 1))  # the first near item of a row
    chosen = rng.random(row.size) < 0.3
    errors[row[chosen]] = wrap(offsets[row[chosen], column[chosen]] + rng.vonmises(0, 30, int(chosen.sum())))
    report = swap_report(of_offsets(errors, offsets, rng), seed=0, permutations=19)
    by_angle = report.by_angle
    assert by_angle["distance_high"].iloc[0] == pytest.approx(np.pi / 6)
    assert by_angle["n_non_targets"].sum() == 9000
    beyond = (by_angle["swap_rate"] - by_angle["null_rate"]).to_numpy()
    assert beyond[1] > 0.1
    assert np.all(np.abs(beyond[2:]) < 0.02)
    # At the most likely p_n the mean probability of a swap is p_n itself.
    swaps = (by_angle["swap_rate"] * by_angle["n_non_targets"]).sum()
    assert swaps / 3000 == pytest.approx(report.by_set_size["p_n"].item(), abs=1e-3)
    assert report.by_location.empty


def test_swaps_to_neighbouring_places_of_a_network_are_seen(tmp_path: Path) -> None:
    """Five columns of which four show items; a fifth of the responses is about the item one column to the right."""
    rng = np.random.default_rng(3)
    target = rng.uniform(-np.pi, np.pi, (1500, 5))
    target[np.arange(1500), rng.integers(5, size=1500)] = np.nan
    response = wrap(target + rng.vonmises(0, 20, target.shape))
    right = np.roll(response, -1, axis=1)
    swapped = (rng.random(target.shape) < 0.2) & ~np.isnan(right) & ~np.isnan(target)
    swapped[:, -1] = False
    response[swapped] = right[swapped]
    path = tmp_path / "responses.npz"
    np.savez(path, set_size=np.full(1500, 4), target=target.astype(np.float32), response=response.astype(np.float32))

    report = swap_report(read_run(path, "net"), seed=0, permutations=19)

    by_location = report.by_location.set_index("distance")
    shown = ~np.isnan(target)
    pairs = [int(2 * np.sum(shown[:, distance:] & shown[:, : 5 - distance])) for distance in (1, 2, 3, 4)]
    assert by_location["n_non_targets"].tolist() == pairs
    # Of the two neighbours at distance 1 only one is swapped with. The model holds all items for equally likely, so
    # it gives a response near two of them in part to the wrong one.
    assert by_location.loc[1, "swap_rate"] == pytest.approx(swapped.sum() / pairs[0], rel=0.2)
    assert by_location.loc[2:, "swap_rate"].max() < 0.02
    assert by_location["null_rate"].max() < 0.02
    assert report.by_set_size["p_value"].item() == 0.05


def test_set_sizes_of_one_and_responders_without_non_targets_have_no_swaps() -> None:
    rng = np.random.default_rng(4)
    one = of_offsets(rng.normal(0, 0.2, 50), np.empty((50, 0)), rng)
    assert swap_report(one, seed=0).by_set_size.empty
    unknown = Responses("r", np.arange(50), np.full(50, 3), np.zeros(50), np.zeros(50), np.empty((50, 0)))
    assert swap_report(unknown, seed=0).by_set_size.empty


def test_a_seed_makes_the_report() -> None:
    responses = responder(0.7, 0.1, 150, np.random.default_rng(5))
    first, again, other = (swap_report(responses, seed, permutations=9).by_set_size for seed in (0, 0, 1))
    assert first.equals(again)
    assert not first.equals(other)
