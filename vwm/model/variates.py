"""Random numbers that an element-wise function makes for itself, from a counter and a key.

The variate of an element depends on its place in the batch and on the key of its step, and on nothing that was drawn
before: no state is carried along, a step can be computed again, and a GPU needs no separate pass for random numbers.
"""

import torch
from torch import Tensor

# Numerator and denominator of w/y² in y = √(−log 2p), where p ≤ 1/2 is the probability beyond w; the error of w is
# below 1.2e-5 up to w = 6.3 and below 2e-6 up to w = 4. Least squares, reweighted towards the smallest maximum.
NUMERATOR = (1.25359003, 1.89447423, 2.20487003, 1.0697098)
DENOMINATOR = (1.0, 1.51419872, 2.2497175, 1.61434547, 0.754422396)


def draw_keys(steps: int, generator: torch.Generator) -> Tensor:
    """Two random words of 32 bits for each of some steps, int32 [steps, 2]."""
    return torch.randint(-(2**31), 2**31, (steps, 2), dtype=torch.int32, generator=generator, device=generator.device)


def random_words(like: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """Two random words of 32 bits for every element.

    Args:
        like: [members, …]; elements at one place of different members have the same counter.
        key: [members, 2] int32, the words that tell members and steps apart.
    """
    counter = torch.arange(like[0].numel(), dtype=torch.int32, device=like.device).view(like.shape[1:])
    first, second = (word.view(-1, *[1] * (like.dim() - 1)) for word in key.unbind(-1))
    one = _mixed(_mixed(counter ^ first) ^ second)
    return one, _mixed(one ^ first)


def _mixed(word: Tensor) -> Tensor:
    """A permutation of the 32-bit words in which every bit of the input moves half of the bits of the output.

    Two multiplications and three shifts, with the factors found by Wellons (2018, "lowbias32", public domain).
    """
    word = word ^ ((word >> 16) & 0xFFFF)
    word = word * 0x7FEB352D
    word = word ^ ((word >> 15) & 0x1FFFF)
    word = word * -0x7B935975
    return word ^ ((word >> 16) & 0xFFFF)


def uniform(word: Tensor, dtype: torch.dtype) -> Tensor:
    """A uniform variate in (0, 1): the upper 24 bits, and half a step."""
    return (((word >> 8) & 0xFFFFFF).to(dtype) + 0.5) * 2.0**-24


def standard_normal(word: Tensor, dtype: torch.dtype) -> Tensor:
    """A standard normal variate, |w| < 6.3: one bit for the sign, the others for the probability beyond w."""
    twice = ((word & 0x7FFFFFFF).to(dtype) + 0.5) * 2.0**-31
    exponent = -torch.log(twice.clamp_max(1.0))
    y = torch.sqrt(exponent)
    numerator, denominator = torch.zeros_like(y), torch.zeros_like(y)
    for factor in reversed(NUMERATOR):
        numerator = numerator * y + factor
    for factor in reversed(DENOMINATOR):
        denominator = denominator * y + factor
    sign = (1 + 2 * (word >> 31)).to(dtype)
    return sign * exponent * numerator / denominator
