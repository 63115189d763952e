"""Matrix products of the recurrence: in float32 on a CPU by oneDNN, all others by what torch takes itself.

torch brings two libraries for products on a CPU, oneDNN and Intel's MKL, and takes MKL unless it is asked for the
other one. On AMD's processors with AVX-512 MKL uses half of their width.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vwm.model.compiled import compiled

# Where there is no MKL, torch's own products are made for the processor; not all builds have oneDNN.
_HAS_MKL: bool = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]  # torch gives it no types.
_TAKES_ONEDNN = _HAS_MKL and hasattr(torch.ops.mkldnn, "_linear_pointwise")
_AT_ONCE = 2**18  # numbers of the right factor that one product sums over, to stay in a cache


def product_with(right: Tensor) -> Callable[[Tensor], Tensor]:
    """The function that takes a tensor left to left @ right, all of them [members, …, …]."""
    if not _by_onednn(right):
        return lambda left: torch.bmm(left, right)
    turned = [matrix.T for matrix in right]
    if len(turned) == 1:
        return lambda left: _linear(left, turned[0])
    return lambda left: torch.stack([_linear(one, other) for one, other in zip(left, turned, strict=True)])


def add_products(total: Tensor, left: Tensor, right: Tensor, compile: bool) -> None:
    """Add Σ leftᵀ right over steps and trials to the total.

    Args:
        total: [members, …, …].
        left, right: [steps, members, trials, …].
        compile: whether a compiled function turns the left factor, which is worth it where it has many columns.
    """
    if total.is_cuda:
        # A small product with a sum this long keeps a few multiprocessors busy, and one for each step all of them.
        total += torch.matmul(left.transpose(2, 3), right).sum(0)
    elif _by_onednn(total):
        length = max(1, _AT_ONCE // right[0, 0].numel())
        for member, sum_of_member in enumerate(total):
            for first in range(0, len(left), length):
                steps = slice(first, first + length)
                # The last steps may be fewer, and a function is compiled for one number of them.
                turned = _turned(left[steps, member].flatten(0, 1), compile and first + length <= len(left))
                sum_of_member += _linear(turned, right[steps, member].flatten(0, 1).T)
    else:
        total.baddbmm_(_by_member(left).transpose(1, 2), _by_member(right))


def _turned(matrix: Tensor, compile: bool) -> Tensor:
    """The transposed matrix; copied by a compiled function where asked for, since torch copies it otherwise, slowly."""
    if not compile:
        return matrix.T
    rows = matrix.new_empty(matrix.shape[1], matrix.shape[0])
    compiled(_turn, (), (matrix, rows), True)(matrix, rows)
    return rows


def _turn(matrix: Tensor, rows: Tensor) -> None:
    rows.copy_(matrix.T)


def _by_onednn(like: Tensor) -> bool:
    return _TAKES_ONEDNN and like.is_cpu and like.dtype is torch.float32


def _linear(left: Tensor, right: Tensor) -> Tensor:
    """left rightᵀ; the left one may have further dimensions before, and is copied where numbers of a row lie apart."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")
    return result


def _by_member(buffer: Tensor) -> Tensor:
    """[members, steps × trials, …] from [steps, members, trials, …]; a view where there is one member."""
    return buffer.transpose(0, 1).flatten(1, 2)
