"""The elementary functions against 200 bits, as numbers, as arrays and compiled.

Errors are in ulp: the distance between the float64 (or float32) numbers around the exact result.
"""

from __future__ import annotations

import hashlib
from fractions import Fraction

import mpmath
import numpy as np
import pytest

from partrain.kernels import elementary
from partrain.kernels.compiler.flags import kernel
from partrain.kernels.compiler.loading import load
from partrain.kernels.elementary_inlined import cos_sin_pi, exp, log
from partrain.kernels.randomness import uniforms

NUM = 1500
SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324, -5e-324, 1e-310, 2.0**-1022, 1.7e308, -1.7e308, 1, -1])


@kernel("void(float64[::1], float64[::1])")
def exp_kernel(x, y):
    for k in range(x.size):
        y[k] = exp(x[k])


@kernel("void(float64[::1], float64[::1])")
def log_kernel(x, y):
    for k in range(x.size):
        y[k] = log(x[k])


@kernel("void(float64[::1], float64[::1])")
def cosine_kernel(x, y):
    for k in range(x.size):
        y[k] = cos_sin_pi(x[k])[0]


@kernel("void(float64[::1], float64[::1])")
def sine_kernel(x, y):
    for k in range(x.size):
        y[k] = cos_sin_pi(x[k])[1]


FUNCTIONS = {
    "exp": (elementary.exp, exp_kernel, mpmath.exp, 1.0),
    "log": (elementary.log, log_kernel, mpmath.log, 1.0),
    "cosine": (lambda x: elementary.cos_sin_pi(x)[0], cosine_kernel, mpmath.cospi, 1.75),
    "sine": (lambda x: elementary.cos_sin_pi(x)[1], sine_kernel, mpmath.sinpi, 1.75),
}
NAMES = pytest.mark.parametrize("name", FUNCTIONS)


@pytest.fixture(autouse=True, scope="module")
def _loaded_kernels():
    load([compiled for _, compiled, _, _ in FUNCTIONS.values()], "float64")


def compiled(name, x):
    y = np.empty_like(x)
    FUNCTIONS[name][1](x, y)
    return y


def largest_error(name, x):
    """Return the largest error of the compiled function, in ulp of float64."""
    largest = 0
    with mpmath.workprec(200):
        for argument, result in zip(x.tolist(), compiled(name, x).tolist(), strict=True):
            exact = FUNCTIONS[name][2](mpmath.mpf(argument))
            largest = max(largest, abs(mpmath.mpf(result) - exact) / mpmath.mpf(float(np.spacing(abs(float(exact))))))
    return float(largest)


def near(centre, seed=0):
    """Draw numbers at distances of all sizes from `centre`, below and above it."""
    rng = np.random.default_rng(seed)
    return centre + rng.uniform(-1, 1, NUM) * 2.0 ** -rng.integers(0, 52, NUM)


def even(low, high):
    return np.random.default_rng(0).uniform(low, high, NUM)


ARGUMENTS = [
    ("exp", even(-708, 709.7)),
    ("exp", even(-745, -708)),  # the results are subnormal
    ("exp", even(-1, 1)),
    ("exp", near(0)),
    ("exp", np.log(2) * (np.arange(-1000, 1000) + 0.5)),  # where the reduced argument is largest
    ("log", np.ldexp(even(0.5, 1), np.random.default_rng(1).integers(-1073, 1024, NUM))),
    ("log", even(0, 1)),
    ("log", even(0.5, 2)),
    ("log", near(1)),
    ("log", np.abs(near(np.sqrt(0.5)))),
    ("log", 1 - np.arange(1, NUM) * 2.0**-53),
    ("log", np.array([2.0**-1022, np.nextafter(2.0**-1022, 0), 5e-324, np.finfo(float).max])),
    *((name, x) for name in ("cosine", "sine") for x in (even(-2, 2), even(-1e6, 1e6), even(-(2.0**50), 2.0**50))),
    *((name, near(centre)) for name in ("cosine", "sine") for centre in (0, 0.25, 0.5, 1, 1.5, 1000)),
]


@pytest.mark.parametrize(("name", "x"), ARGUMENTS)
def test_errors_are_within_the_bounds_of_the_docstrings(name, x):
    assert largest_error(name, x) < FUNCTIONS[name][3]


@NAMES
def test_bits_are_the_same_as_a_number_in_an_array_and_compiled(name):
    x = np.concatenate([*(x for of, x in ARGUMENTS if of == name), SPECIAL])
    function = FUNCTIONS[name][0]
    with np.errstate(all="ignore"):
        expected = function(x)
        numbers = [function(number) for number in x[::7]]
    assert {type(number) for number in numbers} == {np.float64}
    np.testing.assert_array_equal(compiled(name, x), expected)
    np.testing.assert_array_equal(numbers, expected[::7])
    assert np.array_equal(np.signbit(compiled(name, x))[expected == 0], np.signbit(expected)[expected == 0])


def test_python_numbers_have_a_cosine_and_a_sine_with_the_same_bits():
    x = even(-3, 3)
    assert [elementary.cos_sin_pi(number) for number in x.tolist()] == list(
        zip(*(values.tolist() for values in elementary.cos_sin_pi(x)), strict=True)
    )


def test_special_values_are_those_of_numpy():
    with np.errstate(all="ignore"):
        limits = np.array([709.78, 709.79, 745.1, -745.1, -745.14, -1e308, 1e308])
        for name, numpy_function in (("exp", np.exp), ("log", np.log)):
            x = np.concatenate((SPECIAL, limits))
            np.testing.assert_allclose(compiled(name, x), numpy_function(x), rtol=1e-15)
    assert np.isnan([compiled(name, np.array([np.inf, -np.inf, np.nan])) for name in ("cosine", "sine")]).all()


def test_multiples_of_a_quarter_turn_are_exact():
    quarters = np.arange(-9.0, 10.0)
    assert compiled("cosine", quarters / 2).tolist() == [[1, 0, -1, 0][int(q) % 4] for q in quarters]
    assert compiled("sine", quarters / 2).tolist() == [[0, 1, 0, -1][int(q) % 4] for q in quarters]


def error_in_float32(x):
    """Return the largest error of exp after rounding to float32, in ulp of float32."""
    rounded, nearly_exact = compiled("exp", x).astype(np.float32), np.exp(x)
    ulp = np.spacing(nearly_exact.astype(np.float32)).astype(np.float64)
    return (np.abs(rounded - nearly_exact) / ulp).max()


# The bits of 104, beyond which exp overflows in float32, and exp of the negative number is 0.
BITS_OF_104 = 0x42D00000


def float32_numbers(first, last):
    return np.arange(first, last, dtype=np.uint32).view(np.float32).astype(np.float64)


@pytest.mark.parametrize("sign", [-1, 1])
def test_exp_of_some_float32_numbers_is_correct_to_half_an_ulp(sign):
    bits = np.random.default_rng(0).integers(0, BITS_OF_104, 100_000, dtype=np.uint32)
    x = sign * bits.view(np.float32).astype(np.float64)
    assert error_in_float32(x[x < 88.7]) < 0.5 + 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("sign", [-1, 1])
def test_exp_of_all_float32_numbers_is_correct_to_half_an_ulp(sign):
    for first in range(0, BITS_OF_104, 2**19):
        x = sign * float32_numbers(first, min(first + 2**19, BITS_OF_104))
        x = x[x < 88.7]  # beyond, the result may overflow
        assert x.size == 0 or error_in_float32(x) < 0.5 + 1e-6, first


@pytest.mark.parametrize("base", [0.9, 0.999, 0.1, 1.0, 0.0, 0.5, 1.5])
def test_powers_are_those_of_exact_arithmetic(base):
    for exponent in (*range(40), 100, 1000, 1023):
        exact = Fraction(base) ** exponent
        result = elementary.power(base, exponent)
        if exact == 0 or exact > 2.0**-1022:
            assert abs(Fraction(result) - exact) <= exact * exponent / 2**53
        else:
            assert result <= 2.0**-1022


def test_bits_never_change():
    """Checkpoints of today are resumed tomorrow, and on other processors."""
    u = uniforms(4000, seed=0, purpose="test").reshape(4, 1000)
    results = (
        *(elementary.exp(1400 * u[0] - 700), elementary.log(u[1]), *elementary.cos_sin_pi(4 * u[2])),
        np.array([elementary.power(base, exponent) for exponent, base in enumerate(u[3].tolist())]),
    )
    digest = hashlib.sha256(np.concatenate(results).astype("<f8").tobytes()).hexdigest()
    assert digest[:16] == "238b3db3918e0895"
