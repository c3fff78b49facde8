"""Mathematics that is not read exactly, by math-verify's parser. For worker processes: a call may hang, and is killed then.

The parser is lenient, for people. It is asked only about whole expressions, sets and intervals, never about an equation, of
which it would take the last side, and what it finds is compared like everything else: by its value.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from lapha.evaluation.grading.exact import (
    POINTS,
    Gauss,
    UnreadError,
    context,
    is_real,
    real,
    value_at,
    value_key,
)
from lapha.evaluation.grading.extraction import core
from lapha.evaluation.grading.forms import LONGEST, read_form
from lapha.evaluation.grading.meaning import Reading
from lapha.evaluation.grading.spelling import plain_latex, visible

_COMMANDS = (
    "frac|sqrt|pi|cdot|times|div|infty|cup|cap|pm|sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|sinh|cosh|tanh|ln|exp|log|"
    "begin|end|theta|alpha|beta|gamma|lambda|mu|phi|omega|binom|int|sum|prod|lim|to|setminus|max|min|gcd|lcm|mod|bmod|det"
)
# all that the parser is given: what it knows, so that nothing is left out of what it reads
_MATHEMATICS = re.compile(
    rf"(?:\\(?:{_COMMANDS})(?![A-Za-z])|\\[{{}},]|\{{[pbv]?matrix\}}|\\\\|[\d\s+*/^_{{}}()\[\]|!&,.=-]|d?[a-z](?![A-Za-z]))+",
    re.ASCII,
)
_MISREAD = re.compile(r"(?<![_^])\d\s+\d|\de[+-]?\d|\.\.")  # a list of numbers, a decimal exponent
_DECIMAL = re.compile(r"(?<![\d.])(\d+)\.(\d+)(?![\d.])", re.ASCII)
_BEYOND = re.compile(r"\\(?:int|sum|prod|lim|setminus|cap|max|min|gcd|lcm|mod|bmod|det|begin)(?![A-Za-z])")
_BOUND = re.compile(r"(\\(?:log|int|sum|prod|lim)\s*)_\s*(?:\{[^{}]*\}|[A-Za-z0-9])")  # k=1 below a sum is no equation


def parsable(answer: str) -> str | None:
    """What to give to the parser, or None where it would guess: it knows sums and integrals, and has more time."""
    seen = visible(core(answer)) if len(answer) <= LONGEST else None
    if seen is None:
        return None
    text = plain_latex(core(seen)).removesuffix(".")
    if not text or not (_BEYOND.search(text) or read_form(answer).limited):
        return None
    plain = _BOUND.sub(r"\1", text)
    if not _MATHEMATICS.fullmatch(text) or _MISREAD.search(text) or re.search(r"[=_]|[+*/^-]\s*$|\|", plain):
        return None
    return _DECIMAL.sub(lambda m: f"\\frac{{{int(m[1] + m[2])}}}{{1{'0' * len(m[2])}}}", text)


@lru_cache(maxsize=4096)
def parsed_reading(text: str) -> Reading | None:
    """What math-verify reads in `text`, as a value; None where it reads nothing, or nothing that means one."""
    import sympy

    found = [value for value in parse_mathematics(text) if not isinstance(value, str)]
    if len(found) != 1:
        return None
    try:
        return _reading(found[0], sympy)
    except UnreadError:
        return None


@lru_cache(maxsize=4096)
def parse_mathematics(text: str) -> tuple:
    """What math-verify reads in `text`; empty where it reads nothing."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse

    spelling = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=False, boxed="none", equations=False
    )
    config = LatexExtractionConfig(normalization_config=spelling)
    return tuple(parse(f"${text}$", [config], fallback_mode="no_fallback", parsing_timeout=None))  # type: ignore[arg-type]


def _reading(value: Any, sympy: Any) -> Reading:
    if isinstance(value, (sympy.MatrixBase, sympy.MatrixExpr)):
        return _of_matrix(sympy.Matrix(value.doit()), sympy)
    if isinstance(value, sympy.Expr) and not isinstance(value, sympy.MatrixBase):
        return _of_expression(value, sympy)
    if isinstance(value, sympy.Interval):
        ends = [_end(value.start, sympy), _end(value.end, sympy)]
        brackets = ("(" if value.left_open else "[") + (")" if value.right_open else "]")
        return Reading(("tuple", brackets, *ends))
    if isinstance(value, sympy.Union):
        return Reading(("union", *sorted({_reading(part, sympy).key for part in value.args}, key=repr)))
    if isinstance(value, sympy.FiniteSet):
        return Reading(("set", *sorted({_reading(part, sympy).key for part in value.args}, key=repr)))
    if isinstance(value, sympy.Tuple):
        return Reading(("tuple", "()", *(_reading(part, sympy).key for part in value.args)))
    raise UnreadError(type(value).__name__)


def _of_matrix(value: Any, sympy: Any) -> Reading:
    rows, columns = value.shape
    cells = [[_of_expression(value[row, column], sympy).key for column in range(columns)] for row in range(rows)]
    if columns == 1:
        return Reading(("tuple", "()", *(row[0] for row in cells)))
    return Reading(("matrix", False, *map(tuple, cells)))


def _end(value: Any, sympy: Any) -> Any:
    if value in (sympy.oo, -sympy.oo):
        return "inf" if value == sympy.oo else "-inf"
    return _of_expression(value, sympy).key


def _of_expression(value: Any, sympy: Any) -> Reading:
    i, e = sympy.Symbol("i"), sympy.Symbol("e")
    value = value.doit()
    value = value.subs(
        {symbol: {"i": sympy.I, "e": sympy.E}[symbol.name] for symbol in value.free_symbols if symbol.name in "ie"}
    )
    if value.has(sympy.nan, sympy.zoo, sympy.oo, i, e):
        raise UnreadError("no value")
    names = {symbol: _name(symbol.name) for symbol in value.free_symbols}
    if not names:
        number = _number(value, sympy)
        return Reading(("number", value_key(number)), value=number)
    keys = []
    for point in range(POINTS):
        at = {symbol: _rational(value_at(name, point), sympy) for symbol, name in names.items()}
        number = _number(value.subs(at), sympy)
        exact = point < POINTS - 2 or value.has(sympy.I) or is_real(number)
        keys.append(value_key(number) if exact else "not real")
    return Reading(("number", keys[0])) if len(set(keys)) == 1 else Reading(("function", *keys))


def _name(symbol: str) -> str:
    return symbol if len(symbol) == 1 or "_" in symbol else "\\" + symbol


def _rational(value: Gauss, sympy: Any) -> Any:
    return sympy.Rational(value.re.numerator, value.re.denominator)


def _number(value: Any, sympy: Any) -> Any:
    from fractions import Fraction

    from lapha.evaluation.grading.exact import WORKING_DIGITS

    if value.is_Rational:
        return real(Fraction(int(value.p), int(value.q)))
    found = sympy.N(value, WORKING_DIGITS)
    if not found.is_number or found.free_symbols:
        raise UnreadError("no number")
    real_part, imaginary = found.as_real_imag()
    mp = context()
    return mp.mpc(
        *(
            mp.make_mpf(part._mpf_) if part.is_Float else mp.mpf(int(part.p)) / int(part.q)
            for part in (real_part, imaginary)
        )
    )
