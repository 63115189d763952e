"""The task: delayed estimation of the angles shown at some of M locations."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vwm.config import ModelParams


def wrap(angle: Tensor) -> Tensor:
    """The same angle in [-π, π)."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


@dataclass(frozen=True)
class Trials:
    """A batch of trials; M = max_item_num locations, of which a trial uses as many as its set size.

    The batches of several networks have the members as another, leading dimension.

    Attributes:
        set_size: [trials], items shown on each trial.
        present: [trials, M] bool, the locations that show an item.
        angle: [trials, M], the angles shown, radians in [-π, π); meaningless where no item is present.
        encoded: [trials, M], the angles after encoding noise, which the network receives.
    """

    set_size: Tensor
    present: Tensor
    angle: Tensor
    encoded: Tensor

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> "Trials":
        """The same trials on a device, their angles in another type where one is given."""
        angle, encoded = (angles.to(device, dtype) for angles in (self.angle, self.encoded))
        return Trials(self.set_size.to(device), self.present.to(device), angle, encoded)

    def of(self, members: Sequence[int]) -> "Trials":
        """The trials of some members only."""
        return stacked([Trials(self.set_size[i], self.present[i], self.angle[i], self.encoded[i]) for i in members])

    @property
    def target(self) -> Tensor:
        """(cos θ, sin θ) of every location, [trials, M, 2], without the encoding noise."""
        return torch.stack([self.angle.cos(), self.angle.sin()], dim=-1)


def equal_shares(item_num: tuple[int, ...], num_trials: int) -> Tensor:
    """Set sizes of a batch, [num_trials]: equal shares, left-over trials to the first set sizes."""
    share, left_over = divmod(num_trials, len(item_num))
    counts = [share + (index < left_over) for index in range(len(item_num))]
    return torch.repeat_interleave(torch.tensor(item_num), torch.tensor(counts))


def stacked(batches: Sequence[Trials]) -> Trials:
    """The batches of several members as one, with the members as its first dimension."""
    names = ("set_size", "present", "angle", "encoded")
    return Trials(*(torch.stack([getattr(batch, name) for batch in batches]) for name in names))


def draw_trials(
    params: ModelParams, set_size: Tensor, generator: torch.Generator, dtype: torch.dtype = torch.float32
) -> Trials:
    """Draw locations, angles and encoding noise for trials of the given set sizes.

    Args:
        params: the task.
        set_size: [trials], each between 1 and max_item_num.
        generator: the source of all randomness; the trials live on its device.
        dtype: of the angles.
    """
    numbers = draw_numbers(params, len(set_size), generator, dtype)
    return trials_from(set_size.to(generator.device), numbers, params.ILC_noise)


def draw_numbers(
    params: ModelParams, trials: int, generator: torch.Generator, dtype: torch.dtype = torch.float32
) -> Tensor:
    """The random numbers that trials are made from, [3, trials, M]: two uniform ones and a normal one."""
    shape, device = (trials, params.max_item_num), generator.device
    order = torch.rand(shape, generator=generator, device=device).to(dtype)
    uniform = torch.rand(shape, generator=generator, device=device, dtype=dtype)
    return torch.stack([order, uniform, torch.randn(shape, generator=generator, device=device, dtype=dtype)])


def trials_from(set_size: Tensor, numbers: Tensor, encoding_noise: float | Tensor) -> Trials:
    """The trials that some random numbers make.

    Args:
        set_size: [(members,) trials].
        numbers: see `draw_numbers`, [3, (members,) trials, M].
        encoding_noise: `ILC_noise`, radians, one number or one a member.
    """
    order, uniform, normal = numbers.unbind(0)
    # The locations with the n smallest of M uniform numbers are n locations drawn without replacement.
    present = order.argsort(dim=-1).argsort(dim=-1) < set_size[..., None]
    angle = wrap(2 * math.pi * uniform - math.pi)
    return Trials(set_size, present, angle, wrap(angle + encoding_noise * normal))


def input_code(params: ModelParams, trials: Trials) -> Tensor:
    """What the locations send while the stimulus is on, [trials, channels × M], the channels of a location adjacent.

    With `positive_input` an angle is three channels, its projections on axes 120° apart shifted by 1, so that none is
    negative; otherwise it is (cos, sin). Locations without an item are 0, the offset included.
    """
    return unit_code(params.positive_input, trials) * input_gain(params)


def input_gain(params: ModelParams) -> float:
    """What the channels of an item are multiplied by."""
    return params.input_strength / params.max_item_num


def unit_code(positive: bool, trials: Trials) -> Tensor:
    """`input_code` before its gain, [(members,) trials, channels × M]."""
    cos, sin = trials.encoded.cos(), trials.encoded.sin()
    if positive:
        channels = [
            1 + cos / math.sqrt(2) + sin / math.sqrt(6),
            1 - cos / math.sqrt(2) + sin / math.sqrt(6),
            1 - 2 * sin / math.sqrt(6),
        ]
    else:
        channels = [cos, sin]
    return (torch.stack(channels, dim=-1) * trials.present[..., None]).flatten(-2)
