"""One form for equal expressions, by SymPy. For worker processes: a call may hang, its process may be killed."""

from __future__ import annotations

from typing import Any


def simplest_form(text: str) -> str | None:
    """What math-verify reads in `text`, in a form that equal values share where SymPy sees that they are equal.

    A rational number is written ``p/q``; all else in SymPy's own notation, marked so that no spelling is the same. None
    where nothing is read, or nothing that means a value (a division by zero, an empty interval).
    """
    import sympy

    from lapha.evaluation.grading import parse_mathematics

    found = [value for value in parse_mathematics(text) if not isinstance(value, str)]
    if len(found) != 1:
        return None
    value = settle(found[0])
    if value.has(sympy.nan, sympy.zoo) or value.has(sympy.S.EmptySet):
        return None
    return str(value) if value.is_Rational else f"≡ {sympy.srepr(value)}"


def settle(value: Any) -> Any:
    """`value` expanded, its fractions made one, its denominators without roots; inequalities as < and ≤."""
    import sympy

    if isinstance(value, sympy.MatrixBase):
        return sympy.ImmutableMatrix(value.applyfunc(settle))
    if isinstance(value, (sympy.StrictGreaterThan, sympy.GreaterThan)):
        return settle(value.reversed)
    if isinstance(value, sympy.Equality):
        return sympy.Tuple(sympy.Symbol("="), *sorted(map(settle, value.args), key=sympy.srepr))
    if isinstance(value, (sympy.core.relational.Relational, sympy.Set, sympy.Tuple)):
        return value.func(*map(settle, value.args))
    if not isinstance(value, sympy.Expr):
        return value
    value = sympy.sqrtdenest(value.doit())
    free = value.free_symbols
    value = sympy.expand(sympy.radsimp(sympy.expand(value)))
    return sympy.cancel(sympy.together(value)) if free and value.is_rational_function(*free) else value
