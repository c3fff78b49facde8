"""(prediction, gold answer) pairs of the kinds that mathematics benchmarks have, as many as wanted."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

Pair = tuple[str, str]

# kind -> its share, about that of MATH-500; each kind gives (gold, another form of it, a near miss)
_Forms = tuple[str, str, str]


def _integer(rng: random.Random) -> _Forms:
    number = rng.randint(-9999, 9999)
    return f"{number}", rng.choice((f"{number}.0", f"${number}$", f"{2 * number}/2")), f"{number + rng.choice((-1, 1))}"


def _fraction(rng: random.Random) -> _Forms:
    top, bottom = rng.randint(1, 99), rng.randint(2, 99)
    return f"\\frac{{{top}}}{{{bottom}}}", f"{3 * top}/{3 * bottom}", f"\\frac{{{top}}}{{{bottom + 1}}}"


def _radical(rng: random.Random) -> _Forms:
    outer, inner = rng.sample((2, 3, 5, 6, 7), 2)
    added = rng.randint(1, 99)
    same = f"\\sqrt{{{outer * outer * inner}}}+{added}"
    return f"{added}+{outer}\\sqrt{{{inner}}}", same, f"{added}+{inner}\\sqrt{{{outer}}}"


def _pi(rng: random.Random) -> _Forms:
    top, bottom = rng.randint(1, 99), rng.randint(2, 99)
    return f"\\frac{{{top}\\pi}}{{{bottom}}}", f"{top}\\pi/{bottom}", f"\\frac{{{top + 1}\\pi}}{{{bottom}}}"


def _polynomial(rng: random.Random) -> _Forms:
    a, b = rng.randint(1, 30), rng.randint(1, 30)
    return f"x^2+{a + b}x+{a * b}", f"(x+{a})(x+{b})", f"x^2+{a + b + 1}x+{a * b}"


def _point(rng: random.Random) -> _Forms:
    a, b = rng.randint(-99, 99), rng.randint(1, 99)
    return f"({a},\\frac{{{b}}}{{2}})", f"\\left({a}, {b / 2}\\right)", f"(\\frac{{{b}}}{{2}},{a})"


def _interval(rng: random.Random) -> _Forms:
    a, b = sorted(rng.sample(range(-99, 99), 2))
    return f"[{a},{b})", f"\\left[{a}, {b}.0\\right)", f"({a},{b})"


def _roots(rng: random.Random) -> _Forms:
    a, b, c = rng.sample(range(-99, 99), 3)
    return f"{a},{b},{c}", f"{c}, {a}, {b}", f"{a},{b},{c + 100}"


def _letter(rng: random.Random) -> _Forms:
    gold, other = rng.sample("ABCDE", 2)
    number = rng.randint(0, 9999)
    return f"\\text{{({gold})}}", f"({gold}) since it is {number}", f"({other}) since it is {number}"


_KINDS: tuple[tuple[Callable[[random.Random], _Forms], int], ...] = (
    (_integer, 50), (_fraction, 12), (_radical, 10), (_pi, 6), (_polynomial, 8), (_point, 5), (_interval, 4), (_roots, 3),
    (_letter, 2),
)  # fmt: skip


def answer_pairs(count: int, seed: int = 0) -> list[tuple[Pair, bool]]:
    """`count` different pairs with what they are worth: half other forms of the gold answer, half near misses."""
    return list(_distinct(count, random.Random(seed)))


def _distinct(count: int, rng: random.Random) -> Iterator[tuple[Pair, bool]]:
    makers, shares = [kind for kind, _ in _KINDS], [share for _, share in _KINDS]
    seen: set[Pair] = set()
    while len(seen) < count:
        gold, same, other = rng.choices(makers, shares)[0](rng)
        right = len(seen) % 2 == 0
        pair = (same if right else other, gold)
        if pair not in seen and same != other:
            seen.add(pair)
            yield pair, right
