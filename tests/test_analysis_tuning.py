"""Measures of tuning against populations for which they are known."""

import numpy as np
import pytest
from scipy.special import i0e, i1e

from vwm.analysis.dichotomies import SIDES, dichotomies
from vwm.analysis.tuning import (
    chance_floor,
    decoding_accuracy,
    inverse_participation_ratio,
    item_and_interaction,
    participation_ratio,
    squared_vector_strength,
    width_at_half_height,
)

KAPPA = np.array([0.0, 0.5, 2.0, 8.0])


def von_mises(angle: np.ndarray) -> np.ndarray:
    """Rates [angles, 4] in proportion to exp(κ cos θ), each unit with another preferred angle."""
    preferred = np.array([0.0, 1.0, -2.0, 3.0])
    rates: np.ndarray = 20 * np.exp(KAPPA * (np.cos(angle[:, None] - preferred) - 1))
    return rates


def test_vector_strength_of_few_trials_has_no_chance_floor():
    """25 trials of a unit that is not tuned, where the floor left in would be 1/25 in the square."""
    rng = np.random.default_rng(0)
    angles = rng.uniform(-np.pi, np.pi, (4000, 25))
    found = np.array([squared_vector_strength(rng.gamma(2, 5, (25, 1)), angle)[0] for angle in angles])
    assert np.abs(found.mean()) < 4 * found.std() / np.sqrt(len(found))
    floor = np.array([chance_floor(rng.gamma(2, 5, (25, 1)))[0] for _ in range(200)])
    assert np.mean(floor**2) > 0.04 > 10 * np.abs(found.mean())


def test_vector_strength_of_von_mises_tuning():
    """I1(κ)/I0(κ), on average over samples of 400 trials; the ratio of two sums is biased by less than 1/400."""
    rng = np.random.default_rng(1)
    found = [squared_vector_strength(von_mises(angle), angle) for angle in rng.uniform(-np.pi, np.pi, (1000, 400))]
    np.testing.assert_allclose(np.mean(found, axis=0), (i1e(KAPPA) / i0e(KAPPA)) ** 2, atol=1 / 200)


def test_vector_strength_of_many_trials_is_that_of_the_tuning():
    angle = np.random.default_rng(1).uniform(-np.pi, np.pi, 200_000)
    np.testing.assert_allclose(
        squared_vector_strength(von_mises(angle), angle), (i1e(KAPPA) / i0e(KAPPA)) ** 2, atol=0.005
    )
    assert np.isnan(squared_vector_strength(np.zeros((10, 1)), angle[:10])).all()


def test_chance_floor_is_what_untuned_units_have():
    rng = np.random.default_rng(2)
    rates = rng.gamma(2, 3, (30, 3))
    seen = [np.abs(np.exp(1j * rng.uniform(-np.pi, np.pi, 30)) @ rates / rates.sum(axis=0)) ** 2 for _ in range(20_000)]
    np.testing.assert_allclose(np.sqrt(np.mean(seen, axis=0)), chance_floor(rates), rtol=0.02)


def test_inverse_participation_ratio():
    weights = np.array([[1.0, 0, 0, 0], [2, 2, 2, 2], [3, 3, 0, 0], [0, 0, 0, 0], [3, 1, 0, 0], [1, -0.1, 0, 0]])
    np.testing.assert_allclose(inverse_participation_ratio(weights), [1, 0.25, 0.5, np.nan, 10 / 16, 1])


def test_width_at_half_height():
    angle = np.arange(48) * 2 * np.pi / 48 - np.pi
    curves = von_mises(angle).T[1:]
    # Half way between e^κ and e^−κ: κ cos θ = ln cosh κ.
    expected = 2 * np.arccos(np.log(np.cosh(KAPPA[1:])) / KAPPA[1:])
    np.testing.assert_allclose(width_at_half_height(curves), expected, atol=0.03)
    np.testing.assert_allclose(width_at_half_height(3 + np.cos(angle - 2.5)), np.pi, atol=1e-6)
    assert np.isnan(width_at_half_height(np.full(48, 7.0)))


@pytest.mark.parametrize("dimensions", [1, 3, 8])
def test_participation_ratio_counts_dimensions(dimensions: int):
    """Sources with exactly equal variance and no correlation, turned into 20 units."""
    rng = np.random.default_rng(3)
    sources = np.linalg.qr(rng.normal(size=(500, dimensions)) - 0)[0]
    sources = np.linalg.qr(sources - sources.mean(axis=0))[0]
    turned = sources @ np.linalg.qr(rng.normal(size=(20, dimensions)))[0].T
    assert participation_ratio(5 + turned) == pytest.approx(dimensions)
    assert np.isnan(participation_ratio(np.ones((10, 4))))


def variances(response, items: int, pairs: int = 200_000) -> tuple[np.ndarray, np.ndarray]:
    """The partition for the first item of a unit's response to [pairs, items] angles."""
    rng = np.random.default_rng(4)
    first, second = rng.uniform(-np.pi, np.pi, (2, pairs, items))
    item_changed, others_changed = first.copy(), second.copy()
    item_changed[:, 0], others_changed[:, 0] = second[:, 0], first[:, 0]
    rates = [response(angle)[:, None] for angle in (first, item_changed, others_changed, second)]
    return item_and_interaction(*rates)


@pytest.mark.parametrize("items", [1, 2, 5])
def test_additive_tuning_has_no_interaction_in_any_trial(items: int):
    item, interaction = variances(lambda angle: 10 + 3 * np.cos(angle).sum(axis=1), items)
    assert item.mean() == pytest.approx(4.5, rel=0.02)  # the variance of 3 cos θ
    np.testing.assert_allclose(interaction, 0, atol=1e-20)


def test_multiplicative_tuning_has_the_interaction_of_its_product():
    """(1 + a cos θ)(1 + b cos θ′): the main effect has variance a²/2, the interaction a² b²/4."""
    a, b = 0.8, 0.6
    item, interaction = variances(lambda angle: (1 + a * np.cos(angle[:, 0])) * (1 + b * np.cos(angle[:, 1])), 2)
    assert item.mean() == pytest.approx(a**2 / 2, rel=0.02)
    assert interaction.mean() == pytest.approx(a**2 * b**2 / 4, rel=0.02)


def test_a_pure_product_is_all_interaction():
    item, interaction = variances(lambda angle: np.cos(angle).prod(axis=1), 3)
    assert item.mean() == pytest.approx(0, abs=2e-3)
    assert interaction.mean() == pytest.approx(1 / 8, rel=0.02)


def population(is_mixed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Noisy responses [combinations, 30, units] to two items: units of one item each, or of one combination each."""
    rng = np.random.default_rng(5)
    one = np.eye(SIDES)
    if is_mixed:
        means = np.eye(SIDES**2)
    else:
        means = np.concatenate([np.kron(one, np.ones((SIDES, 1))), np.kron(np.ones((SIDES, 1)), one)], axis=1)
    noisy = [means[:, None] + 0.1 * rng.normal(size=(SIDES**2, 30, means.shape[1])) for _ in range(2)]
    return noisy[0], noisy[1]


def test_only_mixed_units_let_a_linear_classifier_tell_products():
    kinds = dichotomies()
    assert {kind: len(labels) for kind, labels in kinds.items()} == {"item": 6, "combination": 9, "random": 100}
    for labels in kinds.values():
        assert (np.abs(labels) == 1).all()
        assert (labels.sum(axis=1) == 0).all()
    pure = {kind: decoding_accuracy(*population(False), labels).mean() for kind, labels in kinds.items()}
    mixed = {kind: decoding_accuracy(*population(True), labels).mean() for kind, labels in kinds.items()}
    assert pure["item"] > 0.99
    assert pure["combination"] == pytest.approx(0.5, abs=0.03)
    assert 0.6 < pure["random"] < 0.85
    assert min(mixed.values()) > 0.99
