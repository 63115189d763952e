"""All steps of a stretch of a trial in one kernel of a GPU, forward and backward: how `kernel_code` is launched.

It computes what `recurrence` computes step by step, with the same random words and in float32.
"""

import os
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from vwm.model import kernel_code

MOST_UNITS = 256
"""Above, a few kernels for each step are faster (benchmarks/bench_gpu.py): one program would read all weights at every
step, and only as many multiprocessors have work as there are programs."""

_TRIALS = 16  # of a program; the fewest that a matrix product of Triton takes, and more would leave cores idle
_WHOLE = 64  # weights of up to so many units are kept by a program for all steps; of more, they are read in parts
_PART = 32  # sending units of a part
# Warps of a program with few units and with many: measured on an H100. The way forward has the random numbers.
_FORWARD_WARPS, _WARPS_FROM = (8, 16), 128
_BACKWARD_WARPS = (4, 8)
_PRECISION = {"highest": "tf32x3", "high": "tf32", "medium": "tf32"}  # of products, by torch's name for it


@dataclass(frozen=True)
class Steps:
    """Which steps a kernel takes.

    Attributes:
        first, stop: of a trial, as everything here.
        first_decode: the first of them or later that is read out.
        stimulus: those that receive the input.
        first_heard_key: where in the keys the draw of the read-out of ``first_decode`` lies.
    """

    first: int
    stop: int
    first_decode: int
    stimulus: range
    first_heard_key: int


def probe() -> None:
    """Compile and run a kernel that does next to nothing.

    Raises:
        Exception: of many types, where there is no GPU or something is missing that Triton compiles with.
    """
    place = torch.zeros(1, device="cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda")
    kernel_code.probe[(1,)](place)
    if place.item() != 1:
        raise RuntimeError("a kernel did not do what it was to do")


def forward(
    steps: Steps,
    kind: str | None,
    *,
    weights: Tensor,
    input_drive: Tensor,
    rates: Tensor,
    total: Tensor,
    keys: Tensor,
    strength: Tensor,
    leak: Tensor,
    saturation: Tensor | None,
    sent: Tensor,
    slope: Tensor,
    gain: Tensor,
    heard: Tensor,
    heard_slope: Tensor,
) -> None:
    """Take the steps and fill what they leave for the way back; all tensors are contiguous.

    Args:
        steps: which.
        kind: of the noise, or None.
        weights: [members, sending N, receiving N].
        input_drive: [members, trials, N].
        rates, total: r and the sum of r over steps, [members, trials, N]; changed in place.
        keys: [draws, members, 2] int32, for every step of the trial and then for every step of the read-out.
        strength: one number a member.
        leak: dt/τ, [members, 1, N].
        saturation: r_max in Hz, one number a member, or None for the power law.
        sent, slope, gain: s, D and P, [steps, members, trials, N]; filled (D only with noise).
        heard, heard_slope: the transmitted rates of the read-out and their slopes, [decode steps, members, trials, N].
    """
    members, trials, units = input_drive.shape
    kernel_code.forward[(triton.cdiv(trials, _TRIALS), members)](
        *(weights, input_drive, rates, total, keys, strength, leak, leak if saturation is None else saturation),
        *(sent, slope, gain, heard, heard_slope),
        *(members, trials, units, steps.first, steps.stop, steps.stimulus.start, steps.stimulus.stop),
        *(steps.first_decode, steps.first_heard_key),
        KIND=kind or "none",
        SATURATES=saturation is not None,
        **_layout(units, forward=True),
    )


def backward(
    steps: Steps,
    *,
    weights: Tensor,
    gain: Tensor,
    slope: Tensor | None,
    next_slope: Tensor | None,
    by_readout: Tensor,
    by_rate: Tensor,
    leak: Tensor,
    adjoint: Tensor,
    back: Tensor,
) -> None:
    """Go back over the steps; all tensors are contiguous.

    Args:
        steps: which.
        weights: [members, receiving N, sending N].
        gain: P of the steps, which becomes δ in place.
        slope: D of the steps, or None without noise.
        next_slope: D of the step after the last of these, [members, trials, N], or None without noise.
        by_readout: what the read-out adds to λ, [decode steps, members, trials, N].
        by_rate: what the mean rate adds to λ, [members, trials, 1].
        leak: dt/τ, [members, 1, N].
        adjoint, back: λ and Wᵀδ of the step after these, [members, trials, N]; changed in place.
    """
    _, members, trials, units = gain.shape
    kernel_code.backward[(triton.cdiv(trials, _TRIALS), members)](
        *(weights, gain, gain if slope is None else slope, back if next_slope is None else next_slope),
        *(by_readout, by_rate, leak, adjoint, back),
        *(members, trials, units, steps.first, steps.stop, steps.first_decode),
        NOISY=slope is not None,
        **_layout(units, forward=False),
    )


def _layout(units: int, forward: bool) -> dict[str, int | str]:
    padded = max(16, triton.next_power_of_2(units))
    return {
        "TRIALS": _TRIALS,
        "UNITS": padded,
        "PART": padded if padded <= _WHOLE else _PART,
        "PRECISION": _PRECISION[torch.get_float32_matmul_precision()],
        "num_warps": _FORWARD_WARPS[padded > _WARPS_FROM] if forward else _BACKWARD_WARPS[padded > _WHOLE],
    }
