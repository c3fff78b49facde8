"""Numbers as answers have them: rational and Gaussian numbers exactly, all others to a thousand digits.

A value of an expression in letters is what it is at fixed points. Two expressions with equal values at all of them are
equal (Schwartz–Zippel: a difference that is not zero everywhere is zero at a random point with probability nearly 0).
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from fractions import Fraction
from math import comb, factorial, isqrt
from typing import Any, NamedTuple

import mpmath

WORKING_DIGITS = 1050
"""Decimal digits that irrational numbers are computed with."""
COMPARED_DIGITS = 900
"""Leading decimal digits that tell irrational numbers apart."""

_ZERO_BELOW = 1000  # a sum that is 10^-1000 of its largest term is zero: no other number is so small by chance
_LOST_BELOW = 120  # one that is smaller than 10^-120 of it has too few digits left
_POLE = 900  # decimal exponent of a value that is a pole with rounding errors
_LARGEST = 100  # decimal exponent of an argument of sin or exp
_EXACT_BITS = 1 << 18  # of an exact number
_MOST_COST = 1500  # elementary functions that one expression may evaluate
_GAMMA_COST, _GAMMA_SHIFT = 90, 1500  # Γ(x) from Γ(x + 1500), where its asymptotic series is short
_HEIGHT = 10**80  # denominators of rational numbers that are recognized among computed ones


class UnreadError(Exception):
    """A text is no expression that has one value here."""


class LimitError(UnreadError):
    """A text may be an expression, and takes too much here."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        _LOCAL.limited = True


def was_limited() -> bool:
    """Whether a `LimitError` was raised in this thread since `forget_limits`."""
    return getattr(_LOCAL, "limited", False)


def forget_limits() -> None:
    """See `was_limited`."""
    _LOCAL.limited = False


class Gauss(NamedTuple):
    """re + im·i, exactly."""

    re: Fraction
    im: Fraction = Fraction(0)


Value = Any  # Gauss, or mpmath's complex number of this thread's context
ZERO, ONE, IMAGINARY = Gauss(Fraction(0)), Gauss(Fraction(1)), Gauss(Fraction(0), Fraction(1))
_LOCAL = threading.local()


def context() -> Any:
    """This thread's mpmath context of `WORKING_DIGITS`: the digits of a context are changed while it computes."""
    found = getattr(_LOCAL, "context", None)
    if found is None:
        found = _LOCAL.context = mpmath.MPContext()
        found.dps = WORKING_DIGITS
        _LOCAL.tiny = found.mpf(10) ** -_ZERO_BELOW
        _LOCAL.lost = found.mpf(10) ** -_LOST_BELOW
        _LOCAL.huge = found.mpf(10) ** _LARGEST
        _LOCAL.pole = found.mpf(10) ** _POLE
    return found


def begin() -> None:
    """Start to count what one expression costs: `UnreadError` ends one that would take seconds."""
    _LOCAL.spent = 0


def _spend(cost: int) -> None:
    _LOCAL.spent = getattr(_LOCAL, "spent", 0) + cost
    if _LOCAL.spent > _MOST_COST:
        raise LimitError("too much to compute")


def real(value: Fraction | int) -> Gauss:
    """A rational number."""
    return Gauss(Fraction(value))


def computed(value: Value) -> Any:
    """`value` as an mpmath number."""
    if not isinstance(value, Gauss):
        return value
    mp = context()
    parts = [mp.mpf(part.numerator) / part.denominator for part in value]
    return mp.mpc(*parts)


def add(terms: Sequence[Value]) -> Value:
    """Sum; what cancels down to rounding errors is zero."""
    if all(isinstance(term, Gauss) for term in terms):
        return _checked(Gauss(sum((t.re for t in terms), Fraction(0)), sum((t.im for t in terms), Fraction(0))))
    values = [computed(term) for term in terms]
    total, largest = sum(values[1:], values[0]), max(map(abs, values))
    if abs(total) <= largest * _LOCAL.tiny:
        return ZERO
    if abs(total) < largest * _LOCAL.lost:
        raise LimitError("too much cancels")
    return total


def negate(value: Value) -> Value:
    """-value."""
    return Gauss(-value.re, -value.im) if isinstance(value, Gauss) else -value


def multiply(a: Value, b: Value) -> Value:
    """Product."""
    if isinstance(a, Gauss) and isinstance(b, Gauss):
        return _checked(Gauss(a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re))
    if a == ZERO or b == ZERO:
        return ZERO
    return computed(a) * computed(b)


def divide(a: Value, b: Value) -> Value:
    """Quotient.

    Raises:
        UnreadError: division by zero.
    """
    if b == ZERO:
        raise UnreadError("division by zero")
    if isinstance(b, Gauss):
        norm = b.re * b.re + b.im * b.im
        return multiply(a, Gauss(b.re / norm, -b.im / norm))
    return ZERO if a == ZERO else computed(a) / computed(b)


def power(base: Value, exponent: Value) -> Value:
    """base^exponent; odd roots of negative numbers are real.

    Raises:
        UnreadError: 0 to a negative power, or a number too large to be written.
    """
    base, exponent = settled(base), settled(exponent)
    if exponent == ZERO:
        return ONE
    if base == ZERO:
        if isinstance(exponent, Gauss) and exponent.im == 0 and exponent.re > 0:
            return ZERO
        raise UnreadError("a power of zero")
    if isinstance(exponent, Gauss) and exponent.im == 0:
        if isinstance(base, Gauss) and exponent.re.denominator == 1:
            return _integer_power(base, exponent.re.numerator)
        if isinstance(base, Gauss) and base.im == 0:
            return _root(base.re, exponent.re)
    _spend(2)
    magnitude = abs(computed(exponent)) * (abs(context().log(abs(computed(base)))) + 4)
    if magnitude > 10**6:
        raise LimitError("a power too large")
    return context().power(computed(base), computed(exponent))


def _integer_power(base: Gauss, exponent: int) -> Value:
    if base in (ONE, IMAGINARY, negate(ONE), negate(IMAGINARY)):
        exponent %= 4
    bits = max(part.bit_length() for f in base for part in (f.numerator, f.denominator))
    if bits * abs(exponent) > _EXACT_BITS:
        raise LimitError("a power too large")
    if exponent < 0:
        return divide(ONE, _integer_power(base, -exponent))
    if base.im == 0:
        return Gauss(base.re**exponent)
    out = ONE
    while exponent:
        if exponent % 2:
            out = multiply(out, base)
        base, exponent = multiply(base, base), exponent // 2
    return out


def _root(base: Fraction, exponent: Fraction) -> Value:
    """base^exponent for a rational exponent that is no integer."""
    degree = exponent.denominator
    if base < 0 and degree % 2 == 1:
        root = _root(-base, Fraction(1, degree))
        return power(negate(root), real(exponent.numerator))
    if base > 0 and degree <= 64:
        top, bottom = _exact_root(base.numerator, degree), _exact_root(base.denominator, degree)
        if top is not None and bottom is not None:
            return _integer_power(real(Fraction(top, bottom)), exponent.numerator)
    if base < 0 and degree == 2:
        return multiply(power(IMAGINARY, real(exponent.numerator)), power(real(-base), Gauss(exponent)))
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if bits * abs(exponent) > _EXACT_BITS:
        raise LimitError("a power too large")
    _spend(1)
    mp = context()
    return mp.power(computed(real(base)), mp.mpf(exponent.numerator) / exponent.denominator)


def _exact_root(number: int, degree: int) -> int | None:
    if degree == 2:
        root = isqrt(number)
    elif number.bit_length() > 4096:
        return None
    else:
        root = round(number ** (1 / degree)) if number < 1 << 52 else _newton_root(number, degree)
    return root if root**degree == number else None


def _newton_root(number: int, degree: int) -> int:
    root = 1 << -(-number.bit_length() // degree)
    while True:
        better = ((degree - 1) * root + number // root ** (degree - 1)) // degree
        if better >= root:
            return root
        root = better


def gamma_factorial(value: Value) -> Value:
    """value!, exactly for integers; by the gamma function for other numbers."""
    value = settled(value)
    if isinstance(value, Gauss) and value.im == 0 and value.re.denominator == 1:
        if not 0 <= value.re <= 5000:
            raise LimitError("a factorial out of range")
        return real(factorial(int(value.re)))
    number, mp = computed(value), context()
    if abs(number) > 500:
        raise LimitError("a factorial out of range")
    _spend(_GAMMA_COST)
    below = mp.mpc(1)
    for step in range(1, _GAMMA_SHIFT + 1):
        below *= number + step
    return mp.gamma(number + 1 + _GAMMA_SHIFT) / below


def binomial(n: Value, k: Value) -> Value:
    """n over k."""
    n, k = settled(n), settled(k)
    integers = all(isinstance(v, Gauss) and v.im == 0 and v.re.denominator == 1 for v in (n, k))
    if integers and 0 <= n.re <= 20_000 and k.re >= 0:
        return real(comb(int(n.re), int(k.re)))
    return divide(gamma_factorial(n), multiply(gamma_factorial(k), gamma_factorial(add([n, negate(k)]))))


def function(name: str) -> Callable[[Value], Value]:
    """An elementary function, by mpmath's name for it."""

    def apply(value: Value) -> Value:
        argument = computed(value)
        _spend(1)
        if abs(argument) > _LOCAL.huge or (name == "exp" and abs(argument) > 10**6):
            raise LimitError("an argument too large")
        try:
            found = context().mpc(getattr(context(), name)(argument))
        except (ValueError, ZeroDivisionError) as error:
            raise UnreadError(f"no {name} there") from error
        if not context().isfinite(found) or (name != "exp" and abs(found) > _LOCAL.pole):
            raise UnreadError(f"no {name} there")
        parts = [context().mpf(0) if abs(part) < _LOCAL.tiny else part for part in (found.real, found.imag)]
        return ZERO if not any(parts) else context().mpc(*parts)

    return apply


def absolute(value: Value) -> Value:
    """|value|."""
    value = settled(value)
    if isinstance(value, Gauss):
        return real(abs(value.re)) if value.im == 0 else power(real(value.re**2 + value.im**2), real(Fraction(1, 2)))
    return context().mpc(abs(value))


def rounded(value: Value, up: bool) -> Value:
    """⌊value⌋, or ⌈value⌉.

    Raises:
        UnreadError: not a real number.
    """
    value = settled(value)
    if isinstance(value, Gauss) and value.im == 0:
        return real(-(-value.re // 1) if up else value.re // 1)
    if isinstance(value, Gauss) or value.imag:
        raise UnreadError("no real number to round")
    return real(int(context().ceil(value.real) if up else context().floor(value.real)))


def settled(value: Value) -> Value:
    """`value`, exact where a computed number is a rational one to all its digits; parts that are rounding errors are 0."""
    if isinstance(value, Gauss):
        return value
    size = abs(value)
    parts = [context().mpf(0) if abs(part) <= size * _LOCAL.tiny else part for part in (value.real, value.imag)]
    found = [_recognized(part) for part in parts]
    if found[0] is not None and found[1] is not None:
        return Gauss(found[0], found[1])
    return context().mpc(*parts)


def _recognized(number: Any) -> Fraction | None:
    """The rational number that a computed one is, or None. Powers of two are no part of its height."""
    sign, mantissa, exponent, bits = number._mpf_
    if not mantissa:
        return Fraction(0)
    if abs(exponent) + bits > _EXACT_BITS:
        return None
    scaled = Fraction(mantissa, 1 << bits)  # in [1/2, 1)
    near = scaled.limit_denominator(_HEIGHT)
    if abs(near - scaled) * 10**_ZERO_BELOW > scaled:
        return None
    return (-1 if sign else 1) * near * Fraction(2) ** (exponent + bits)


def value_key(value: Value) -> str:
    """A text that equal values share and no others: ``p/q`` for rational numbers, leading digits for the others."""
    value = settled(value)
    if isinstance(value, Gauss):
        return _rational(value.re) if value.im == 0 else f"{_rational(value.re)}+{_rational(value.im)}i"
    parts = [context().nstr(part, COMPARED_DIGITS) for part in (value.real, value.imag)]
    return "~" + (parts[0] if value.imag == 0 else "+".join(parts) + "i")


def _rational(value: Fraction) -> str:
    """As decimal digits; as hexadecimal ones where Python refuses to write so many."""
    if max(value.numerator.bit_length(), value.denominator.bit_length()) < 10_000:
        return str(value)
    return f"{value.numerator:x}/{value.denominator:x}h"


def is_real(value: Value) -> bool:
    """Whether the imaginary part is zero."""
    value = settled(value)
    return bool(value.im == 0 if isinstance(value, Gauss) else value.imag == 0)


def _checked(value: Gauss) -> Gauss:
    if max(part.bit_length() for f in value for part in (f.numerator, f.denominator)) > 4 * _EXACT_BITS:
        raise LimitError("a number too large")
    return value


POINTS = 5
"""Points at which letters are given values: every letter is negative at one of the last two."""


def integer_at(name: str, point: int) -> Gauss:
    """What the letter `name` is at a point where letters are integers: one in 5..34."""
    digest = hashlib.blake2b(f"integer {point}:{name}".encode(), digest_size=4).digest()
    return real(5 + int.from_bytes(digest, "big") % 30)


def value_at(name: str, point: int) -> Gauss:
    """What the letter `name` is at a point: a rational number with |value| in (1, 3)."""
    digest = hashlib.blake2b(f"{point}:{name}".encode(), digest_size=12).digest()
    size = 1 + Fraction(1 + int.from_bytes(digest[:4], "big") % 1993, 997)
    negative = point >= POINTS - 2 and (digest[5] + point) % 2 == 0
    return real(-size if negative else size)
