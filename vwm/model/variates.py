"""Random numbers that an element-wise function makes for itself, from a counter and a key.

The variate of an element depends on its place in the batch and on the key of its step, and on nothing that was drawn
before: no state is carried along, a step can be computed again, and a GPU needs no separate pass for random numbers.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# Numerator and denominator of w/y² in y = √(−log 2p), where p ≤ 1/2 is the probability beyond w; the error of w is
# below 1.2e-5 up to w = 6.3 and below 2e-6 up to w = 4. Least squares, reweighted towards the smallest maximum.
NUMERATOR = (1.25359003, 1.89447423, 2.20487003, 1.0697098)
DENOMINATOR = (1.0, 1.51419872, 2.2497175, 1.61434547, 0.754422396)

# (log(1 + m) − m + m²/2)/m³ for √½ − 1 ≤ m < √2 − 1; the logarithm is within 3.2e-8 of its value. Fitted likewise.
LOGARITHM = (0.33333910, -0.25001338, 0.19963063, -0.16577584, 0.14914767, -0.14267491, 0.08700440)


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
    """A uniform variate in (0, 1), the upper 24 bits and half a step; float32 rounds the last one to 1."""
    return (((word >> 8) & 0xFFFFFF).to(dtype) + 0.5) * 2.0**-24


def standard_normal(word: Tensor, dtype: torch.dtype) -> Tensor:
    """A standard normal variate, |w| < 6.3: one bit for the sign, the others for the probability beyond w."""
    twice = ((word & 0x7FFFFFFF).to(dtype) + 0.5) * 2.0**-31
    exponent = minus_log(twice.clamp_max(1.0))
    y = torch.sqrt(exponent)
    sign = (1 + 2 * (word >> 31)).to(dtype)
    return sign * exponent * polynomial(NUMERATOR, y) / polynomial(DENOMINATOR, y)


def minus_log(x: Tensor) -> Tensor:
    """−log x for normal numbers x > 0, in float32 to two units in the last place.

    Compiled for a CPU it is in line with the arithmetic around it, where torch's own is a call to a library.
    """
    if x.dtype != torch.float32:
        return -torch.log(x)
    bits = x.view(torch.int32)
    power = (bits - 0x3F3504F3) >> 23  # of two, such that what remains of x lies between √½ and √2
    m = (bits - (power << 23)).view(torch.float32) - 1
    series = polynomial(LOGARITHM, m) * m
    return -(power.to(torch.float32) * math.log(2) + (m + m * m * (series - 0.5)))


def polynomial(factors: Sequence[float], x: Tensor) -> Tensor:
    """The sum of factors[i]·xⁱ, of degree 1 at least, by Horner's rule."""
    *rest, before_last, last = factors
    total = last * x + before_last
    for factor in reversed(rest):
        total = total * x + factor
    return total
