"""The products of the recurrence against the same in float64."""

import os
import shutil

import pytest
import torch
from torch import Tensor

from vwm.model import products
from vwm.model.compiled import is_compiling
from vwm.model.products import add_products, product_with

COMPILER = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")


def worst(found: Tensor, exact: Tensor) -> float:
    """The largest error as a share of the largest value."""
    return ((found.double() - exact).abs().max() / exact.abs().max()).item()


def two_factors(steps: int, members: int) -> tuple[Tensor, Tensor]:
    """As the read-out has them (trials of the left one lie last)."""
    random = torch.Generator().manual_seed(2)
    right = torch.randn(steps, members, 50, 33, generator=random)
    return torch.randn(steps, members, 20, 50, generator=random).transpose(2, 3), right


def error_of_the_sum(left: Tensor, right: Tensor, compile: bool) -> float:
    total = torch.ones(left.shape[1], left.shape[3], right.shape[3])
    add_products(total, left, right, compile)
    return worst(total, 1 + torch.einsum("smti,smtj->mij", left.double(), right.double()))


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="without MKL torch's own products are taken")
def test_onednn_is_taken_for_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a version of torch no longer has the operation, products go on at half the speed, and nobody would notice."""
    calls: list[torch.dtype] = []
    plain = products._linear

    def noted(left: Tensor, right: Tensor) -> Tensor:
        calls.append(left.dtype)
        return plain(left, right)

    monkeypatch.setattr(products, "_linear", noted)
    for dtype in (torch.float32, torch.float64):
        factor = torch.rand(1, 4, 4, dtype=dtype)
        product_with(factor)(factor)
        add_products(torch.zeros_like(factor), factor[None], factor[None], compile=False)
    assert calls == [torch.float32, torch.float32]


@pytest.mark.parametrize("takes_onednn", [True, False])
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("turned", [False, True])
def test_product(monkeypatch: pytest.MonkeyPatch, takes_onednn: bool, members: int, turned: bool) -> None:
    monkeypatch.setattr(products, "_TAKES_ONEDNN", takes_onednn)
    random = torch.Generator().manual_seed(1)
    left = torch.randn(members, 70, 33, generator=random)
    right = torch.randn(members, 33, 33, generator=random)
    right = right.transpose(1, 2) if turned else right
    found = product_with(right)(left)
    assert found.shape == (members, 70, 33)
    assert found.is_contiguous()
    assert worst(found, left.double() @ right.double()) < 1e-6


@pytest.mark.parametrize("takes_onednn", [True, False])
@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("steps", [1, 9])
def test_sum_of_products(monkeypatch: pytest.MonkeyPatch, takes_onednn: bool, members: int, steps: int) -> None:
    """Of nine steps four go into one product, and the last is one alone."""
    monkeypatch.setattr(products, "_TAKES_ONEDNN", takes_onednn)
    monkeypatch.setattr(products, "_AT_ONCE", 4 * 50 * 33)
    assert error_of_the_sum(*two_factors(steps, members), compile=False) < 2e-6


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler, so nothing can be compiled")
@pytest.mark.parametrize("members", [1, 2])
def test_sum_of_products_with_a_factor_turned(monkeypatch: pytest.MonkeyPatch, members: int) -> None:
    turned: list[tuple[int, ...]] = []
    plain = products._linear

    def noted(left: Tensor, right: Tensor) -> Tensor:
        if left.is_contiguous():
            turned.append(tuple(left.shape))
        return plain(left, right)

    monkeypatch.setattr(products, "_linear", noted)
    monkeypatch.setattr(products, "_AT_ONCE", 4 * 50 * 33)
    left, right = two_factors(9, members)
    assert error_of_the_sum(left.contiguous(), right, compile=True) < 2e-6
    assert turned == [(20, 200)] * 2 * members
    assert is_compiling()


def test_float64_stays_float64() -> None:
    left, right = torch.rand(1, 4, 3, dtype=torch.float64), torch.rand(1, 3, 3, dtype=torch.float64)
    assert torch.equal(product_with(right)(left), left @ right)
