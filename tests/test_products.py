"""The products of the recurrence against the same in float64."""

import pytest
import torch
from torch import Tensor

from vwm.model import products
from vwm.model.products import add_products, product_with


def worst(found: Tensor, exact: Tensor) -> float:
    """The largest error as a share of the largest value."""
    return ((found.double() - exact).abs().max() / exact.abs().max()).item()


def test_torch_has_onednn() -> None:
    """If a version of torch no longer has the operation, products go on at half the speed, and nobody would notice."""
    assert products._HAS_ONEDNN


@pytest.mark.parametrize("has_onednn", [True, False])
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("turned", [False, True])
def test_product(monkeypatch: pytest.MonkeyPatch, has_onednn: bool, members: int, turned: bool) -> None:
    monkeypatch.setattr(products, "_HAS_ONEDNN", has_onednn)
    random = torch.Generator().manual_seed(1)
    left = torch.randn(members, 70, 33, generator=random)
    right = torch.randn(members, 33, 33, generator=random)
    right = right.transpose(1, 2) if turned else right
    found = product_with(right)(left)
    assert found.shape == (members, 70, 33)
    assert found.is_contiguous()
    assert worst(found, left.double() @ right.double()) < 1e-6


@pytest.mark.parametrize("has_onednn", [True, False])
@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("steps", [1, 9])
@pytest.mark.parametrize("compile", [False, True])
def test_sum_of_products(
    monkeypatch: pytest.MonkeyPatch, has_onednn: bool, members: int, steps: int, compile: bool
) -> None:
    """Nine steps, of which four go into one product, and the last is one alone."""
    monkeypatch.setattr(products, "_HAS_ONEDNN", has_onednn)
    monkeypatch.setattr(products, "_AT_ONCE", 4 * 50 * 33)
    random = torch.Generator().manual_seed(2)
    right = torch.randn(steps, members, 50, 33, generator=random)
    left = torch.randn(steps, members, 20, 50, generator=random).transpose(2, 3)
    total = torch.ones(members, 20, 33)
    add_products(total, left, right, compile)
    exact = 1 + torch.einsum("smti,smtj->mij", left.double(), right.double())
    assert worst(total, exact) < 2e-6


def test_float64_stays_float64() -> None:
    left, right = torch.rand(1, 4, 3, dtype=torch.float64), torch.rand(1, 3, 3, dtype=torch.float64)
    assert torch.equal(product_with(right)(left), left @ right)
