"""The counter-based random numbers: their laws, and that nothing in one tells anything of another."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import chi2, kstest

from vwm.model.variates import draw_keys, minus_log, random_words, standard_normal, uniform

COUNT = 200_000


def keys(number: int, seed: int = 0) -> torch.Tensor:
    return draw_keys(number, torch.Generator().manual_seed(seed))


def variates(key: torch.Tensor, count: int = COUNT) -> tuple[np.ndarray, np.ndarray]:
    """The normal and the uniform variates of a member with `count` elements."""
    words = random_words(torch.empty(1, count), key[None])
    return standard_normal(words[0], torch.float64)[0].numpy(), uniform(words[1], torch.float64)[0].numpy()


def test_the_laws() -> None:
    for key in keys(5):
        normal, flat = variates(key)
        assert kstest(normal, "norm").pvalue > 1e-4
        assert kstest(flat, "uniform").pvalue > 1e-4
        assert flat.min() > 0
        assert flat.max() < 1


def test_the_logarithm_in_single_precision() -> None:
    """Over all that it is asked for: 31-bit fractions, the smallest one, those next to 1, and far smaller numbers."""
    rng = torch.Generator().manual_seed(0)
    fractions = torch.rand(1_000_000, generator=rng) + 2.0**-32
    next_to_one = 1 - torch.arange(5000) * 2.0**-24
    small = torch.exp(-87 * torch.rand(100_000, generator=rng))
    x = torch.cat([fractions.clamp_max(1.0), next_to_one, small, torch.tensor([2.0**-32, 2.0**-25, 0.5**0.5])])
    exact = -torch.log(x.double())
    assert ((minus_log(x).double() - exact).abs() <= 1.5e-7 * exact).all()
    assert torch.equal(minus_log(x.double()), exact)


def test_single_and_double_precision_make_the_same_normal_variates() -> None:
    (key,) = keys(1)
    word, _ = random_words(torch.empty(1, COUNT), key[None])
    single, double = standard_normal(word, torch.float32), standard_normal(word, torch.float64)
    torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=1e-6)


def test_the_tails_of_the_normal() -> None:
    normal = np.concatenate([variates(key, 2_000_000)[0] for key in keys(4)])
    for beyond in (3.0, 4.0, 4.5):
        expected = len(normal) * math.erfc(beyond / math.sqrt(2)) / 2
        for side in (normal, -normal):
            assert abs((side > beyond).sum() - expected) < 5 * math.sqrt(expected)


def test_the_normal_is_the_quantile_of_its_word() -> None:
    from scipy.special import ndtri

    word = torch.cat([torch.arange(0, 2**31 - 1, 1 << 17), torch.tensor([1, 2, 3, 100, 2**31 - 2])]).to(torch.int32)
    ours = standard_normal(word, torch.float64).numpy()
    exact = -ndtri((word.numpy().astype(float) + 0.5) / 2**32)
    assert np.abs(ours - exact).max() < 1.2e-5
    assert np.abs(ours - exact)[exact < 4].max() < 2e-6
    np.testing.assert_array_equal(standard_normal(word | -(2**31), torch.float64).numpy(), -ours)


@pytest.mark.parametrize("lag", [1, 2, 64, 256, 512 * 64])
def test_neighbours_are_independent(lag: int) -> None:
    normal, flat = variates(keys(1, seed=3)[0])
    for first, second in ((normal, normal), (flat, flat), (normal, flat), (normal**2, flat)):
        r = np.corrcoef(first[:-lag], second[lag:])[0, 1]
        assert abs(r) < 5 / math.sqrt(len(first) - lag)


def test_the_two_variates_of_an_element_are_independent() -> None:
    normal, flat = variates(keys(1, seed=4)[0], 1_000_000)
    table, _, _ = np.histogram2d(normal.argsort().argsort(), flat, bins=(16, 16))
    statistic = ((table - table.mean()) ** 2 / table.mean()).sum()
    assert 1e-4 < chi2.sf(statistic, 15 * 15) < 1 - 1e-4


def test_steps_and_keys_that_differ_in_one_bit_are_independent() -> None:
    key = keys(1, seed=5)[0]
    normal, flat = variates(key)
    for word in range(2):
        for bit in (0, 1, 16, 31):
            other = key.clone()
            other[word] ^= -(2**31) if bit == 31 else 1 << bit
            theirs = variates(other)
            for mine, yours in ((normal, theirs[0]), (flat, theirs[1])):
                assert abs(np.corrcoef(mine, yours)[0, 1]) < 5 / math.sqrt(COUNT)


def test_members_are_what_they_are_alone() -> None:
    both = keys(2, seed=6)
    together = random_words(torch.empty(2, 30, 7), both)
    for member in range(2):
        alone = random_words(torch.empty(1, 30, 7), both[member : member + 1])
        for pack, own in zip(together, alone, strict=True):
            assert torch.equal(pack[member], own[0])
