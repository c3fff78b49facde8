"""Values of expressions that have been read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from lapha.evaluation.grading.exact import (
    IMAGINARY,
    ONE,
    POINTS,
    UnreadError,
    Value,
    absolute,
    add,
    begin,
    binomial,
    computed,
    context,
    divide,
    function,
    gamma_factorial,
    integer_at,
    is_real,
    multiply,
    negate,
    power,
    real,
    rounded,
    settled,
    value_at,
    value_key,
)

Node = tuple  # ("number", Fraction) | ("symbol", name) | (operation, *nodes)


@dataclass(frozen=True)
class Expression:
    """An expression.

    Attributes:
        node: what was read.
        symbols: its letters.
    """

    node: Node
    symbols: frozenset[str]

    def evaluated(self) -> tuple[tuple, Value | None]:
        """(key, value): what equal expressions share and no others, from the value or from those at `POINTS` points.

        Raises:
            UnreadError: it has no value.
        """
        if not self.symbols:
            begin()
            value = evaluate(self.node, {})
            return ("number", value_key(value)), value
        if _counts(self.node):
            try:
                return ("function of integers", *map(value_key, self.values(integer_at))), None
            except UnreadError:  # such as (n - p)! where n < p: by the gamma function
                pass
        values = self.values()
        keys = [value_key(value) for value in values]
        if len(set(keys)) == 1:
            return ("number", keys[0]), values[0]
        complex_ = _has_i(self.node)
        marked = (
            _at_mixed_signs(value, key, complex_ or place < POINTS - 2)
            for place, (value, key) in enumerate(zip(values, keys))
        )
        return ("function", *marked), None

    def values(self, at: Callable[[str, int], Value] = value_at) -> list[Value]:
        """Values at the points, where `at` says what the letters are.

        Raises:
            UnreadError: there is none at one of them.
        """
        begin()
        return [evaluate(self.node, {name: at(name, point) for name in self.symbols}) for point in range(POINTS)]


def _at_mixed_signs(value: Value, key: str, exact: bool) -> str:
    """Roots of negative letters have several values; there it only counts that there is no real one."""
    return key if exact or is_real(value) else "not real"


def _counts(node: Node) -> bool:
    """Whether there are factorials or binomial coefficients, whose letters are integers."""
    return node[0] in ("factorial", "binomial") or any(_counts(part) for part in node[1:] if isinstance(part, tuple))


def _has_i(node: Node) -> bool:
    return node[0] == "i" or any(_has_i(part) for part in node[1:] if isinstance(part, tuple))


_UNKNOWN_BASE = Fraction(2718281, 1314159)  # log without a base is ln times a number that nobody knows


def evaluate(node: Node, letters: Mapping[str, Value]) -> Value:
    """The value of an expression with its letters' values.

    Raises:
        UnreadError: there is none.
    """
    kind = node[0]
    if kind == "number":
        return real(node[1])
    if kind == "symbol":
        return letters[node[1]]
    if kind == "i":
        return IMAGINARY
    if kind == "e":
        return context().mpc(context().e)
    if kind == "pi":
        return context().mpc(context().pi)
    if kind == "call":
        return function(node[1])(evaluate(node[2], letters))
    return _OPERATIONS[kind](*(evaluate(part, letters) for part in node[1:]))


def _logarithm(value: Value) -> Value:
    if value == real(0):
        raise UnreadError("log 0")
    return function("log")(value)


def _root_of(value: Value, degree: Value) -> Value:
    value, degree = settled(value), settled(degree)
    odd = isinstance(degree, type(ONE)) and degree.im == 0 and degree.re.denominator == 1 and degree.re % 2 == 1
    if odd and is_real(value) and computed(value).real < 0:
        return negate(power(negate(value), divide(ONE, degree)))
    return power(value, divide(ONE, degree))


def _degrees(value: Value) -> Value:
    return multiply(value, divide(context().mpc(context().pi), real(180)))


_OPERATIONS: dict[str, Callable[..., Value]] = {
    "add": lambda *terms: add(terms),
    "negate": negate,
    "multiply": multiply,
    "divide": divide,
    "power": power,
    "root": _root_of,
    "factorial": gamma_factorial,
    "binomial": binomial,
    "absolute": absolute,
    "floor": lambda value: rounded(value, up=False),
    "ceiling": lambda value: rounded(value, up=True),
    "degrees": _degrees,
    "ln": _logarithm,
    "log": lambda value: multiply(_logarithm(value), real(_UNKNOWN_BASE)),
}
