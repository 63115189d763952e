"""All steps of a batch of trials, forward and backward; several networks at once along a leading member dimension.

One autograd function covers the whole trial. With a = dt/τ, W_e = W·sign and s_t = noise(r_t), D_t = ∂s_t/∂r_t,

    x_t = W_e s_t + [stimulus on] B u        r_{t+1} = r_t + a (φ(x_t) − r_t)        P_t = a φ'(x_t).

Going back, with λ_t = ∂L/∂r_t, g_t what read-out and rate penalty add to it, and δ_t = P_t λ_{t+1},

    λ_t = g_t + (1 − a) λ_{t+1} + (W_eᵀ δ_t) D_t        ∂L/∂W_e = Σ_t δ_t s_tᵀ        ∂L/∂(B u) = Σ_on δ_t,

the sum over steps and trials being a few large matrix products. s, D and P are kept from the way forward, in buffers
that the next iteration uses again; where they would be too large, they are computed again a stretch of steps at a time.
On a GPU a stretch is one kernel, forward and backward, see `kernel`.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from vwm.config import SpikeNoiseType
from vwm.model.compiled import compiled
from vwm.model.noise import transmitted, transmitted_by_torch
from vwm.model.products import add_products, product_with

KEPT_BYTES = 2 * 2**30
"""What a member may keep of a trial for the way back; beyond, steps are computed twice. A function of the
configuration alone, so that a run does not depend on the machine it is on."""


@dataclass(frozen=True)
class Spikes:
    """The spike noise of some members.

    Attributes:
        kind: None where rates are transmitted as they are.
        strength: [members, 1, 1], see `noise.strength`.
        keys: the random words of each draw, one for each step and then one for each step of the read-out,
            int32 [draws, members, 2].
        by_torch: whether gamma variates come from torch's sampler.
        generators: the source of each member's draws, where torch's sampler makes them.
    """

    kind: SpikeNoiseType | None
    strength: Tensor
    keys: Tensor
    by_torch: bool
    generators: Sequence[torch.Generator]


@dataclass(frozen=True)
class Trial:
    """What a trial is apart from weights and input.

    Attributes:
        steps, decode_steps: Euler steps, and how many of them, the last ones, are read out.
        stimulus_steps: indices of the steps that receive the input.
        leak: [members, 1, N], dt/τ.
        saturation: [members, 1, 1] r_max in Hz, or None for the power law.
        spikes: the noise.
        compile: whether the element-wise parts are compiled.
    """

    steps: int
    decode_steps: int
    stimulus_steps: range
    leak: Tensor
    saturation: Tensor | None
    spikes: Spikes
    compile: bool


def run_trial(trial: Trial, weights: Tensor, input_drive: Tensor, readout_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Integrate τ dr/dt = −r + φ(W r̃ + B u) from r = 0 by Euler's method, and read out.

    Args:
        trial: sizes, constants and noise.
        weights: [members, N, N], W_ij s_j: receiving unit first, the sign of the sending unit applied.
        input_drive: [members, trials, N], B·u while the stimulus is on.
        readout_weights: [members, 2 M, N].

    Returns:
        Mean rate over steps and units, Hz, [members, trials], and the read-out [decode steps, members, trials, 2 M].
        Both are differentiable in the three tensors.
    """
    # torch gives apply no types.
    mean_rate, readout = _Run.apply(trial, weights, input_drive, readout_weights)  # type: ignore[no-untyped-call]
    return mean_rate, readout


def has_kernel(like: Tensor, units: int) -> bool:
    """Whether all steps are one kernel: on a GPU (or in Triton's interpreter), in float32, for networks that fit."""
    if like.dtype != torch.float32 or not (like.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"):
        return False
    return _kernel() is not None and units <= _kernel().MOST_UNITS


@cache
def _kernel() -> Any:
    """The module of the kernels, or None where Triton is not installed or cannot compile, which is then said once."""
    try:
        from vwm.model import kernel
    except ImportError:  # torch for GPUs brings it along where it exists.
        return None
    try:
        kernel.probe()
    except Exception as error:  # Triton raises half a dozen types for what is missing.
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        print(
            f"The steps of a trial are computed one by one, more slowly: Triton cannot compile here ({reason}). "
            "Install a C compiler such as gcc, and Python's headers.",
            file=sys.stderr,
        )
        return None
    return kernel


# ---------------------------------------------------------------------------------------------------------------
# Element-wise parts
# ---------------------------------------------------------------------------------------------------------------


def activation(drive: Tensor, saturation: Tensor | None) -> tuple[Tensor, Tensor]:
    """φ and φ' in Hz: (r_max / 2)·(1 + tanh(0.14 x − 4.2)), or without saturation 0.18·max(x − 10, 1e-10)^1.7."""
    if saturation is not None:
        # (1 + tanh y)/2 is the logistic function at 2y, which is cheaper.
        share = torch.sigmoid(0.28 * drive - 8.4)
        return saturation * share, saturation * 0.28 * share * (1 - share)
    above = (drive - 10).clamp_min(1e-10)
    slope = torch.where(drive > 10, 0.18 * 1.7 * above**0.7, 0)
    return 0.18 * above**1.7, slope


def _step(
    kind: SpikeNoiseType | None,
    saturates: bool,
    drive: Tensor,
    rates: Tensor,
    total: Tensor,
    gain: Tensor,
    leak: Tensor,
    saturation: Tensor,
    key: Tensor,
    strength: Tensor,
    sent: Tensor,
    slope: Tensor,
) -> None:
    """r ← r + a (φ(x) − r), add r to the total, P ← a φ'(x); then s ← noise(r) and D ← ∂s/∂r for the next step."""
    value, steepness = activation(drive, saturation if saturates else None)
    following = rates + leak * (value - rates)
    gain.copy_(leak * steepness)
    rates.copy_(following)
    total.add_(following)
    _transmit(kind, following, key, strength, sent, slope)


def _transmit(
    kind: SpikeNoiseType | None,
    rates: Tensor,
    key: Tensor,
    strength: Tensor,
    sent: Tensor,
    slope: Tensor,
) -> None:
    """s ← noise(r), D ← ∂s/∂r."""
    if kind is None:
        sent.copy_(rates)
        return
    value, steepness = transmitted(kind, rates, key, strength)
    sent.copy_(value)
    slope.copy_(steepness)


def _go_back(
    is_noisy: bool, adjoint: Tensor, back: Tensor, slope: Tensor, extra: Tensor, leak: Tensor, delta: Tensor
) -> None:
    """λ ← g + (1 − a) λ + (W_eᵀ δ) D, then δ ← P λ in the place of P; D is 1 without noise."""
    through = back * slope if is_noisy else back
    following = extra + (1 - leak) * adjoint + through
    adjoint.copy_(following)
    delta.mul_(following)


# ---------------------------------------------------------------------------------------------------------------
# The function
# ---------------------------------------------------------------------------------------------------------------


class _Pool:
    """Buffers that one iteration leaves to the next: allocating hundreds of MB afresh costs more than filling them."""

    def __init__(self) -> None:
        self._free: dict[tuple[Any, ...], list[Tensor]] = {}

    def take(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """A buffer of this shape; its content is what the last user left."""
        key = (*shape, like.dtype, like.device)
        free = self._free.get(key, [])
        return free.pop() if free else torch.empty(*shape, dtype=like.dtype, device=like.device)

    def give_back(self, *buffers: Tensor) -> None:
        """These will not be read any more."""
        for buffer in buffers:
            self._free.setdefault((*buffer.shape, buffer.dtype, buffer.device), []).append(buffer)

    def clear(self) -> None:
        """Free what no iteration uses just now."""
        self._free.clear()


POOL = _Pool()


class _Stretch:
    """Steps first … stop − 1 of a trial: what they leave for the way back, each [steps, members, trials, N].

    All stretches of a trial take buffers of `length` steps, also the shorter last one, so that each has what another
    gave back.
    """

    def __init__(self, trial: Trial, length: int, first: int, stop: int, like: Tensor) -> None:
        self.first, self.stop, self.stimulus = first, stop, trial.stimulus_steps
        self.first_decode = max(first, trial.steps - trial.decode_steps)
        self.first_heard_key = trial.steps + 1 + self.first_decode - (trial.steps - trial.decode_steps)
        self.is_noisy = trial.spikes.kind is not None
        steps, decode = stop - first, max(0, stop - self.first_decode)
        most, most_decode = length, min(length, trial.decode_steps)
        self._buffers: list[Tensor] = []

        def buffer(most: int, wanted: int) -> Tensor:
            self._buffers.append(POOL.take((most, *like.shape), like))
            return self._buffers[-1][:wanted]

        self.sent = buffer(most, steps)  # s
        self.gain = buffer(most, steps)  # P, and on the way back δ
        self.heard = buffer(most_decode, decode)  # r̃ of the read-out
        self.slope = buffer(most, steps) if self.is_noisy else buffer(1, 1)  # D; without noise not used
        self.heard_slope = buffer(most_decode, decode) if self.is_noisy else buffer(1, 1)

    @property
    def steps(self) -> Any:
        """These steps as the kernels are told of them."""
        return _kernel().Steps(self.first, self.stop, self.first_decode, self.stimulus, self.first_heard_key)

    def give_back(self) -> None:
        """The buffers to the next user."""
        POOL.give_back(*self._buffers)


class _Batch:
    """The state of a batch of trials on its way through the steps."""

    def __init__(self, trial: Trial, weights: Tensor, input_drive: Tensor) -> None:
        self.trial, self.weights, self.input_drive = trial, weights.transpose(1, 2), input_drive
        self.keys = trial.spikes.keys.unbind(0)
        self.product = product_with(self.weights)
        self.rates, self.total = torch.zeros_like(input_drive), torch.zeros_like(input_drive)
        spikes = trial.spikes
        self.kind = None if spikes.by_torch else spikes.kind  # the noise of the compiled parts
        arrays = (self.rates, trial.spikes.keys[0], spikes.strength, self.rates, self.rates)
        self.transmit = compiled(_transmit, (self.kind,), arrays, trial.compile and not spikes.by_torch)

    def run(self, stretch: _Stretch) -> None:
        """Take the steps of a stretch and fill it."""
        if _in_kernel(self.trial, self.input_drive):
            self._run_in_kernel(stretch)
            return
        trial, noisy, keys = self.trial, stretch.is_noisy, self.keys
        saturation = trial.spikes.strength if trial.saturation is None else trial.saturation
        unused = torch.empty_like(self.rates), torch.empty_like(self.rates)
        sents, gains, slopes = stretch.sent.unbind(0), stretch.gain.unbind(0), stretch.slope.unbind(0)
        state = (self.rates, self.total)
        constants = (trial.leak, saturation)
        like = (self.rates, *state, gains[0], *constants, keys[0], trial.spikes.strength, *unused)
        step_on = compiled(_step, (self.kind, trial.saturation is not None), like, trial.compile)
        self._transmit(stretch.first, sents[0], slopes[0])
        for step in range(stretch.first, stretch.stop):
            at, late = step - stretch.first, step - stretch.first_decode
            drive = self.product(sents[at])
            if step in trial.stimulus_steps:
                drive += self.input_drive
            sent, slope = unused
            if step + 1 < stretch.stop:
                sent, slope = sents[at + 1], slopes[at + 1 if noisy else 0]
            step_on(drive, *state, gains[at], *constants, keys[step + 1], trial.spikes.strength, sent, slope)
            if late >= 0:
                heard_slope = stretch.heard_slope[late if noisy else 0]
                self._transmit(stretch.first_heard_key + late, stretch.heard[late], heard_slope)
            if trial.spikes.by_torch and step + 1 < stretch.stop:
                self._transmit_by_torch(sent, slope)

    def _run_in_kernel(self, stretch: _Stretch) -> None:
        _kernel().forward(
            stretch.steps,
            self.kind,
            weights=self.weights.contiguous(),
            input_drive=self.input_drive,
            rates=self.rates,
            total=self.total,
            keys=self.trial.spikes.keys,
            strength=self.trial.spikes.strength,
            leak=self.trial.leak,
            saturation=self.trial.saturation,
            sent=stretch.sent,
            slope=stretch.slope,
            gain=stretch.gain,
            heard=stretch.heard,
            heard_slope=stretch.heard_slope,
        )

    def _transmit(self, key: int, sent: Tensor, slope: Tensor) -> None:
        """Transmitted rates, with their slopes."""
        spikes = self.trial.spikes
        if spikes.by_torch:
            self._transmit_by_torch(sent, slope)
        else:
            self.transmit(self.rates, self.keys[key], spikes.strength, sent, slope)

    def _transmit_by_torch(self, sent: Tensor, slope: Tensor) -> None:
        spikes = self.trial.spikes
        assert spikes.kind is not None
        for member, generator in enumerate(spikes.generators):
            sent[member], slope[member] = transmitted_by_torch(
                spikes.kind, self.rates[member], spikes.strength[member], generator
            )


@contextmanager
def _tiny_is_0() -> Iterator[None]:
    """Numbers below 1e-38 are 0 on this thread: gamma noise draws them of units that are nearly silent, and processors
    are slow with them. Afterwards they are numbers again, whatever was set before: torch does not tell."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


class _Run(Function):
    @staticmethod
    @_tiny_is_0()
    def forward(
        ctx: Any, trial: Trial, weights: Tensor, input_drive: Tensor, readout_weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        members, trials, _ = input_drive.shape
        first_decode = trial.steps - trial.decode_steps
        # Trials last: what the loss does to every estimate then goes through long rows.
        readout = input_drive.new_empty(trial.decode_steps, members, readout_weights.shape[1], trials)
        batch = _Batch(trial, weights, input_drive)
        is_training = any(ctx.needs_input_grad)
        # Without a way back nothing is kept: a few steps at a time go through the same buffers.
        length = _steps_that_fit(trial, input_drive) if is_training else min(trial.steps, 16)
        starts: list[_Start] = []
        stretch = None
        for first in range(0, trial.steps, length):
            if stretch is not None:
                stretch.give_back()
            generators = [generator.get_state() for generator in trial.spikes.generators]
            starts.append(_Start(first, min(first + length, trial.steps), batch.rates.clone(), generators))
            stretch = _Stretch(trial, length, starts[-1].first, starts[-1].stop, input_drive)
            batch.run(stretch)
            decoded = range(stretch.first_decode - first_decode, stretch.stop - first_decode)
            if decoded:
                heard = stretch.heard.transpose(2, 3)
                torch.matmul(readout_weights, heard, out=readout[decoded.start : decoded.stop])
        assert stretch is not None
        if is_training:
            ctx.trial, ctx.length, ctx.starts, ctx.last = trial, length, starts, stretch
            ctx.save_for_backward(weights, input_drive, readout_weights)
        else:
            stretch.give_back()
        return batch.total.mean(2) / trial.steps, readout.transpose(2, 3)

    @staticmethod
    @once_differentiable
    @_tiny_is_0()
    def backward(ctx: Any, grad_rate: Tensor, grad_readout: Tensor) -> tuple[None, Tensor, Tensor, Tensor]:
        trial: Trial = ctx.trial
        weights, input_drive, readout_weights = ctx.saved_tensors
        stretch: _Stretch | None = ctx.last
        ctx.last = None
        by_rate = (grad_rate / (trial.steps * weights.shape[1]))[:, :, None].contiguous()
        everywhere = by_rate.expand_as(input_drive).contiguous()
        grad_weights, grad_readout_weights = torch.zeros_like(weights), torch.zeros_like(readout_weights)
        grad_drive, adjoint, back = (torch.zeros_like(input_drive) for _ in range(3))
        product = product_with(weights)
        slope: Tensor | None = None
        for start in reversed(ctx.starts):
            if stretch is None:
                stretch = _again(trial, ctx.length, start, weights, input_drive)
            if slope is None and stretch.is_noisy:
                slope = stretch.slope[-1]  # The last state goes to no further step: what comes back is 0 there.
            by_readout = _through_readout(trial, stretch, grad_readout, readout_weights, grad_readout_weights)
            by_readout += by_rate
            if _in_kernel(trial, input_drive):
                _kernel().backward(
                    stretch.steps,
                    weights=weights,
                    gain=stretch.gain,
                    slope=stretch.slope if stretch.is_noisy else None,
                    next_slope=slope,
                    by_readout=by_readout,
                    by_rate=by_rate,
                    leak=trial.leak,
                    adjoint=adjoint,
                    back=back,
                )
                slope = stretch.slope[0] if stretch.is_noisy else None
            else:
                gains, slopes = stretch.gain.unbind(0), stretch.slope.unbind(0)
                like = (adjoint, back, back, everywhere, trial.leak, gains[0])
                go_back = compiled(_go_back, (stretch.is_noisy,), like, trial.compile)
                for step in reversed(range(start.first, start.stop)):
                    at, late = step - start.first, step - stretch.first_decode
                    extra = by_readout[late] if late >= 0 else everywhere
                    go_back(adjoint, back, back if slope is None else slope, extra, trial.leak, gains[at])
                    back = product(gains[at])
                    slope = slopes[at] if stretch.is_noisy else None
            add_products(grad_weights, stretch.gain, stretch.sent, trial.compile)
            on = range(max(start.first, trial.stimulus_steps.start), min(start.stop, trial.stimulus_steps.stop))
            if on:
                grad_drive += stretch.gain[on.start - start.first : on.stop - start.first].sum(0)
            if slope is not None and start.first > 0:
                slope = slope.clone()  # The buffer goes to the stretch before.
            stretch.give_back()
            stretch = None
        return None, grad_weights, grad_drive, grad_readout_weights


@dataclass(frozen=True)
class _Start:
    """Where a stretch of steps begins, so that it can be computed again."""

    first: int
    stop: int
    rates: Tensor
    generators: list[Tensor]  # their states


def _in_kernel(trial: Trial, input_drive: Tensor) -> bool:
    """Whether this trial's steps are one kernel."""
    return not trial.spikes.by_torch and has_kernel(input_drive, input_drive.shape[-1])


def _steps_that_fit(trial: Trial, input_drive: Tensor) -> int:
    """Steps that a stretch may have for what it leaves to stay below `KEPT_BYTES` a member."""
    of_a_step, of_the_readout = (2, 1) if trial.spikes.kind is None else (3, 2)  # s, P, D, and r̃ with its slope
    arrays = KEPT_BYTES // (input_drive[0].numel() * input_drive.element_size())
    if of_a_step * trial.steps + of_the_readout * trial.decode_steps <= arrays:
        return trial.steps
    return max(1, arrays // (of_a_step + of_the_readout))


def _again(trial: Trial, length: int, start: _Start, weights: Tensor, input_drive: Tensor) -> _Stretch:
    """Take the steps of a stretch once more, with the random numbers they had."""
    generators = [torch.Generator(device=input_drive.device) for _ in start.generators]
    for generator, state in zip(generators, start.generators, strict=True):
        generator.set_state(state)
    batch = _Batch(replace(trial, spikes=replace(trial.spikes, generators=generators)), weights, input_drive)
    batch.rates.copy_(start.rates)
    stretch = _Stretch(trial, length, start.first, start.stop, input_drive)
    batch.run(stretch)
    return stretch


def _through_readout(
    trial: Trial, stretch: _Stretch, grad_readout: Tensor, readout_weights: Tensor, grad_readout_weights: Tensor
) -> Tensor:
    """Add ∂L/∂F and return ∂L/∂r by way of the read-out, [decode steps of the stretch, members, trials, N].

    The result lies in the buffer of the transmitted rates, which are not needed any more.
    """
    heard = stretch.heard
    if len(heard):
        late = stretch.first_decode - (trial.steps - trial.decode_steps)
        add_products(grad_readout_weights, grad_readout[late : late + len(heard)], heard, compile=False)
        torch.matmul(grad_readout[late : late + len(heard)], readout_weights, out=heard)
        if stretch.is_noisy:
            heard.mul_(stretch.heard_slope)
    return heard
