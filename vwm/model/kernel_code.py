"""The kernels of `kernel`, in Triton.

One program takes some trials of one network through all steps: trials do not depend on each other, so nothing is
launched and nobody waited for between two steps. A block is [trials of the program, units], padded to powers of 2, and
the padding is kept at 0 where it is summed. The formulas of `noise`, `gamma`, `variates` and `recurrence` stand here
once more, since a kernel cannot call them; tests compare the two, in Triton's interpreter where there is no GPU.
"""

import triton
import triton.language as tl

from vwm.model.gamma import COEFFICIENTS, DEGREE
from vwm.model.noise import FLOOR_HZ
from vwm.model.variates import DENOMINATOR, NUMERATOR

_ROWS = tl.constexpr(COEFFICIENTS)
_DEGREE = tl.constexpr(DEGREE)
_FLOOR = tl.constexpr(FLOOR_HZ)
_NUMERATOR = tl.constexpr(NUMERATOR)
_DENOMINATOR = tl.constexpr(DENOMINATOR)
_UPPER = tl.constexpr(len(NUMERATOR))
_LOWER = tl.constexpr(len(DENOMINATOR))


# ---------------------------------------------------------------------------------------------------------------
# Kernels
# ---------------------------------------------------------------------------------------------------------------


@triton.jit
def probe(place):
    """Write a 1."""
    tl.store(place, 1.0)


@triton.jit(do_not_specialize=["members"])
def forward(
    weights,
    input_drive,
    rates,
    total,
    keys,
    strength,
    leak,
    saturation,
    sent,
    slope,
    gain,
    heard,
    heard_slope,
    members,
    trials,
    units,
    first,
    stop,
    stimulus_start,
    stimulus_stop,
    first_decode,
    first_heard_key,
    KIND: tl.constexpr,
    SATURATES: tl.constexpr,
    TRIALS: tl.constexpr,
    UNITS: tl.constexpr,
    PART: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """As `kernel.forward`, which says what the arguments are."""
    member = tl.program_id(1)
    rows = tl.program_id(0) * TRIALS + tl.arange(0, TRIALS)[:, None]
    columns = tl.arange(0, UNITS)[None, :]
    inside = (rows < trials) & (columns < units)
    counter = rows * units + columns
    here = member * trials * units + counter
    a_step = members.to(tl.int64) * trials * units

    a = tl.load(leak + member * units + columns, columns < units, other=0)
    spread = tl.load(strength + member)
    highest = tl.load(saturation + member) if SATURATES else 0.0
    r = tl.load(rates + here, inside, other=0)
    summed = tl.load(total + here, inside, other=0)
    matrix = weights + member * units * units
    if UNITS == PART:
        kept = _part_of_matrix(matrix, 0, units, UNITS, PART)

    for step in range(first, stop):
        at = (step - first) * a_step
        s, d = _transmitted(r, counter, keys + 2 * (step * members + member), spread, KIND)
        s = tl.where(inside, s, 0)
        tl.store(sent + at + here, s, inside)
        if KIND != "none":
            tl.store(slope + at + here, d, inside)
        if UNITS == PART:
            x = tl.dot(s, kept, input_precision=PRECISION)
        else:
            x = _product(
                sent + at + member * trials * units, matrix, rows, trials, units, TRIALS, UNITS, PART, PRECISION
            )
        if (step >= stimulus_start) & (step < stimulus_stop):
            x += tl.load(input_drive + here, inside, other=0)
        value, steepness = _activation(x, highest, SATURATES)
        tl.store(gain + at + here, a * steepness, inside)
        r += a * (value - r)
        summed += r
        if step >= first_decode:
            late = step - first_decode
            key = keys + 2 * ((first_heard_key + late) * members + member)
            h, h_slope = _transmitted(r, counter, key, spread, KIND)
            tl.store(heard + late * a_step + here, h, inside)
            if KIND != "none":
                tl.store(heard_slope + late * a_step + here, h_slope, inside)

    tl.store(rates + here, r, inside)
    tl.store(total + here, summed, inside)


@triton.jit(do_not_specialize=["members"])
def backward(
    weights,
    gain,
    slope,
    next_slope,
    by_readout,
    by_rate,
    leak,
    adjoint,
    back,
    members,
    trials,
    units,
    first,
    stop,
    first_decode,
    NOISY: tl.constexpr,
    TRIALS: tl.constexpr,
    UNITS: tl.constexpr,
    PART: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """As `kernel.backward`, which says what the arguments are."""
    member = tl.program_id(1)
    rows = tl.program_id(0) * TRIALS + tl.arange(0, TRIALS)[:, None]
    columns = tl.arange(0, UNITS)[None, :]
    inside = (rows < trials) & (columns < units)
    here = member * trials * units + rows * units + columns
    a_step = members.to(tl.int64) * trials * units

    a = tl.load(leak + member * units + columns, columns < units, other=0)
    always = tl.load(by_rate + member * trials + rows, rows < trials, other=0)
    lam = tl.load(adjoint + here, inside, other=0)
    through = tl.load(back + here, inside, other=0)
    d = tl.load(next_slope + here, inside, other=0)
    matrix = weights + member * units * units
    if UNITS == PART:
        kept = _part_of_matrix(matrix, 0, units, UNITS, PART)

    for count in range(0, stop - first):
        step = stop - 1 - count
        at = (step - first) * a_step
        if NOISY:
            through *= d
            d = tl.load(slope + at + here, inside, other=0)
        lam = (1 - a) * lam + through
        if step >= first_decode:
            lam += tl.load(by_readout + (step - first_decode) * a_step + here, inside, other=0)
        else:
            lam += always
        delta = tl.where(inside, lam * tl.load(gain + at + here, inside, other=0), 0)
        tl.store(gain + at + here, delta, inside)
        if UNITS == PART:
            through = tl.dot(delta, kept, input_precision=PRECISION)
        else:
            start = gain + at + member * trials * units
            through = _product(start, matrix, rows, trials, units, TRIALS, UNITS, PART, PRECISION)

    tl.store(adjoint + here, lam, inside)
    tl.store(back + here, through, inside)


@triton.jit
def _part_of_matrix(matrix, begin, units, UNITS: tl.constexpr, PART: tl.constexpr):
    """Rows begin … begin + PART − 1 of a matrix, [PART, UNITS]."""
    rows, columns = begin + tl.arange(0, PART)[:, None], tl.arange(0, UNITS)[None, :]
    return tl.load(matrix + rows * units + columns, (rows < units) & (columns < units), other=0)


@triton.jit
def _product(
    left,
    matrix,
    rows,
    trials,
    units,
    TRIALS: tl.constexpr,
    UNITS: tl.constexpr,
    PART: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The rows of this program times a matrix, part by part; the rows are what it has just stored at ``left``."""
    tl.debug_barrier()  # Other threads of this program have stored what this one reads.
    result = tl.zeros((TRIALS, UNITS), tl.float32)
    for begin in range(0, units, PART):
        columns = begin + tl.arange(0, PART)[None, :]
        some = tl.load(left + rows * units + columns, (rows < trials) & (columns < units), other=0)
        result = tl.dot(some, _part_of_matrix(matrix, begin, units, UNITS, PART), result, input_precision=PRECISION)
    return result


# ---------------------------------------------------------------------------------------------------------------
# Formulas; sources and meaning where they stand first
# ---------------------------------------------------------------------------------------------------------------


@triton.jit
def _activation(x, highest, SATURATES: tl.constexpr):
    """As `recurrence.activation`."""
    if SATURATES:
        share = 1 / (1 + tl.exp(8.4 - 0.28 * x))
        value = highest * share
        steepness = 0.28 * value * (1 - share)
    else:
        logarithm = tl.log2(tl.maximum(x - 10, 1e-10))
        value = 0.18 * tl.exp2(1.7 * logarithm)
        steepness = tl.where(x > 10, 0.18 * 1.7 * tl.exp2(0.7 * logarithm), 0.0)
    return value, steepness


@triton.jit
def _transmitted(r, counter, key, spread, KIND: tl.constexpr):
    """As `noise.transmitted`."""
    if KIND == "none":
        value = r
        slope = r
    else:
        one, other = _random_words(counter, key)
        normal = _standard_normal(one)
        if KIND == "gamma":
            z, slope = _gamma_quantile(normal, other, tl.maximum(r, _FLOOR) * spread)
            value = z / spread
        elif KIND == "csnr":
            z, _ = _gamma_quantile(normal, other, tl.zeros_like(r) + spread)
            value = r * z / spread
            slope = z / spread
        elif KIND == "gauss":
            root = tl.sqrt(tl.maximum(r, _FLOOR))
            value = r + spread * root * normal
            slope = 1 + tl.where(r > _FLOOR, spread * normal / (2 * root), 0.0)
            slope = tl.where(value > 0, slope, 0.0)
            value = tl.maximum(value, 0.0)
        else:
            value = r + spread * normal
            slope = tl.where(value > 0, 1.0, 0.0)
            value = tl.maximum(value, 0.0)
    return value, slope


@triton.jit
def _random_words(counter, key):
    """As `variates.random_words`."""
    first = tl.load(key).to(tl.uint32, bitcast=True)
    second = tl.load(key + 1).to(tl.uint32, bitcast=True)
    one = _mixed(_mixed(counter.to(tl.uint32, bitcast=True) ^ first) ^ second)
    return one, _mixed(one ^ first)


@triton.jit
def _mixed(word):
    word = word ^ (word >> 16)
    word = word * 0x7FEB352D
    word = word ^ (word >> 15)
    word = word * 0x846CA68B
    return word ^ (word >> 16)


@triton.jit
def _standard_normal(word):
    """As `variates.standard_normal`."""
    twice = ((word & 0x7FFFFFFF).to(tl.float32) + 0.5) * 4.656612873077393e-10  # 2^-31
    exponent = -tl.log(tl.minimum(twice, 1.0))
    y = tl.sqrt(exponent)
    numerator, denominator = tl.zeros_like(y), tl.zeros_like(y)
    for place in tl.static_range(_UPPER):
        numerator = numerator * y + _NUMERATOR[_UPPER - 1 - place]
    for place in tl.static_range(_LOWER):
        denominator = denominator * y + _DENOMINATOR[_LOWER - 1 - place]
    magnitude = exponent * numerator / denominator
    return tl.where(word >= 0x80000000, -magnitude, magnitude)


@triton.jit
def _gamma_quantile(normal, word, shape):
    """As `gamma.gamma_quantile`, with the uniform variate of a random word."""
    small = shape < 1
    alpha = tl.where(small, shape + 1, shape)
    s = tl.rsqrt(alpha)
    log_ratio, by_s = tl.zeros_like(s), tl.zeros_like(s)
    for degree in tl.static_range(_DEGREE):
        term = tl.zeros_like(s)
        for place in tl.static_range(_DEGREE + 1 - degree):
            term = term * normal + _ROWS[_DEGREE - 1 - degree][_DEGREE - degree - place]
        by_s = by_s * s + log_ratio
        log_ratio = log_ratio * s + term
    by_s = by_s * s + log_ratio
    log_ratio = log_ratio * s
    inverse = 1 / shape
    uniform = ((word >> 8).to(tl.float32) + 0.5) * 5.960464477539063e-08  # 2^-24
    exponent = tl.where(small, -tl.log(uniform) * inverse, 0.0)
    z = alpha * tl.exp(log_ratio - exponent)
    slope = z * (s * s * (1 - by_s * s / 2) + tl.where(small, exponent * inverse, 0.0))
    return z, slope
