"""Reading an expression strictly: a text is understood to its last character, or not read at all."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from lapha.evaluation.grading.evaluating import Expression, Node
from lapha.evaluation.grading.exact import LimitError, UnreadError
from lapha.evaluation.grading.tokens import FUNCTIONS, tokens

_INVERSES = {"sin": "asin", "cos": "acos", "tan": "atan"}
_GREEK_WORDS = (
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho "
    "varrho sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi "
    "Psi Omega ell "
)
_GREEK = set(_GREEK_WORDS.split())
_VECTORS = {"vec", "overrightarrow", "mathbf", "boldsymbol", "hat"}
_TIMES, _OVER = {"*", "cdot", "times", "ast"}, {"/", "div"}
_BRACKETS = {"(": ")", "[": "]", "{": "}", "|": "|"}
_FENCES = {"lfloor": "rfloor", "lceil": "rceil", "lvert": "rvert", "lVert": "rVert"}
_DEEPEST = 40


def read_expression(text: str) -> Expression:
    """Read LaTeX, or what people write without it.

    Raises:
        UnreadError: something in it is not understood.
    """
    node = _Parser(tokens(text)).whole()
    return Expression(node, frozenset(_symbols(node)))


def _symbols(node: Node) -> set[str]:
    if node[0] == "symbol":
        return {node[1]}
    return {name for part in node[1:] if isinstance(part, tuple) for name in _symbols(part)}


class _Parser:
    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self.tokens = tokens
        self.place = 0
        self.depth = 0

    def whole(self) -> Node:
        node = self.sum()
        if self.place < len(self.tokens):
            raise UnreadError(f"{self.tokens[self.place][1]!r}")
        return node

    def peek(self, ahead: int = 0) -> tuple[str, str]:
        place = self.place + ahead
        return self.tokens[place] if place < len(self.tokens) else ("end", "")

    def take(self) -> tuple[str, str]:
        token = self.peek()
        self.place += 1
        return token

    def at(self, *signs: str) -> bool:
        kind, text = self.peek()
        return kind in ("sign", "command") and text in signs

    def expect(self, sign: str) -> None:
        if not self.at(sign):
            raise UnreadError(f"no {sign!r}")
        self.place += 1

    def sum(self) -> Node:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise LimitError("too deep")
        terms = [self.signed()]
        while self.at("+", "-"):
            minus = self.take()[1] == "-"
            term = self.product()
            terms.append(("negate", term) if minus else term)
        self.depth -= 1
        return terms[0] if len(terms) == 1 else ("add", *terms)

    def signed(self) -> Node:
        """A product with a sign before it, or none."""
        if self.at("+", "-"):
            minus = self.take()[1] == "-"
            product = self.product()
            return ("negate", product) if minus else product
        return self.product()

    def product(self) -> Node:
        node = self.factor()
        while True:
            if self.at(*_TIMES):
                self.take()
                node = ("multiply", node, self.signed_factor())
            elif self.at(*_OVER):
                self.take()
                node = ("divide", node, self.signed_factor())
            elif self.starts_factor():
                node = ("multiply", node, self.factor())
            else:
                return node

    def signed_factor(self) -> Node:
        if self.at("-"):
            self.take()
            return ("negate", self.factor())
        return self.factor()

    def starts_factor(self) -> bool:
        """Whether a factor follows without a sign of multiplication. A number does not: 2 3 is no product."""
        kind, text = self.peek()
        if kind == "letter":
            return True
        if kind == "command":
            return text not in _TIMES | _OVER and text not in _FENCES.values() and text != "circ"
        return (kind == "sign" and text in "([{") or (kind == "sign" and text == "|" and not self.closing_bar())

    def closing_bar(self) -> bool:
        return self.bars > 0

    bars = 0

    def factor(self) -> Node:
        return self.raised(self.primary())

    def raised(self, node: Node) -> Node:
        """`node` with the powers, factorials and degrees behind it."""
        while True:
            if self.at("^"):
                self.take()
                if self.at("circ") or (self.at("{") and self.peek(1)[1] == "circ" and self.peek(2)[1] == "}"):
                    self.place += 1 if self.at("circ") else 3
                    node = ("degrees", node)
                    continue
                node = ("power", node, self.script())
            elif self.at("!"):
                self.take()
                node = ("factorial", node)
            else:
                return node

    def script(self) -> Node:
        """What stands behind ^: a group, a number, a letter, or a signed number."""
        if self.at("{"):
            return self.group("{")
        if self.at("-", "+"):
            minus = self.take()[1] == "-"
            node = self.script()
            return ("negate", node) if minus else node
        return self.primary(juxtaposed=False)

    def group(self, opening: str) -> Node:
        self.expect(opening)
        outer, self.bars = self.bars, 0
        node = self.sum()
        self.bars = outer
        self.expect(_BRACKETS[opening])
        return node

    def argument(self) -> Node:
        """What LaTeX takes for a command's argument: a group, or one character."""
        kind, text = self.peek()
        if kind == "sign" and text == "{":
            return self.group("{")
        if kind == "number" and "." not in text:
            self.tokens[self.place : self.place + 1] = [("number", digit) for digit in text]
            return ("number", Fraction(self.take()[1]))
        if kind in ("letter", "command"):
            return self.primary(juxtaposed=False)
        raise UnreadError("no argument")

    def primary(self, juxtaposed: bool = True) -> Node:
        kind, text = self.peek()
        if kind == "number":
            self.take()
            number = ("number", Fraction(text))
            return self.mixed(number) if juxtaposed and "." not in text else number
        if kind == "letter":
            self.take()
            return self.symbol(text)
        if kind == "command":
            return self.command(self.take()[1])
        if kind == "sign" and text in "([{":
            return self.group(text)
        if kind == "sign" and text == "|":
            self.take()
            self.bars += 1
            node = self.sum()
            self.bars -= 1
            self.expect("|")
            return ("absolute", node)
        raise UnreadError(f"{text!r}")

    def mixed(self, number: Node) -> Node:
        """2\\frac{1}{2} is 2 + 1/2; with other fractions behind it, a number is a factor."""
        if self.peek() not in (("command", "frac"), ("command", "dfrac"), ("command", "tfrac")):
            return number
        before = self.place
        self.take()
        top, bottom = self.argument(), self.argument()
        if (
            top[0] == bottom[0] == "number"
            and 0 < top[1] < bottom[1]
            and top[1].denominator == bottom[1].denominator == 1
        ):
            return ("number", number[1] + top[1] / bottom[1])
        self.place = before
        return number

    def symbol(self, name: str) -> Node:
        script = None
        if self.at("_"):
            self.take()
            script = self.subscript()
        if script is None:
            return {"i": ("i",), "e": ("e",)}.get(name) or ("symbol", name)
        if name in "CPA" and self.at("^"):  # combinations and permutations, as Chinese books write them
            self.take()
            k, n = self.argument(), _Parser(tokens(script)).whole()
            chosen = ("binomial", n, k)
            return chosen if name == "C" else ("multiply", chosen, ("factorial", k))
        return ("symbol", f"{name}_{script}")

    def subscript(self) -> str:
        kind, text = self.peek()
        if kind == "sign" and text == "{":
            parts: list[str] = []
            depth = 0
            while True:
                kind, text = self.take()
                if kind == "end":
                    raise UnreadError("an open brace")
                depth += (text == "{") - (text == "}")
                if depth == 0:
                    return "".join(parts[1:])
                parts.append(text)
        if kind in ("number", "letter", "command"):
            return self.take()[1]
        raise UnreadError("no subscript")

    def command(self, name: str) -> Node:
        if name in ("frac", "dfrac", "tfrac", "cfrac"):
            return ("divide", self.argument(), self.argument())
        if name in ("binom", "dbinom", "tbinom"):
            return ("binomial", self.argument(), self.argument())
        if name == "sqrt":
            degree: Node = ("number", Fraction(2))
            if self.at("["):
                degree = self.group("[")
            inside = self.group("(") if self.at("(") else self.argument()
            return ("root", inside, degree)
        if name in ("log", "lg"):
            return self.logarithm(name)
        if name in FUNCTIONS:
            return self.applied(name)
        if name == "pi":
            return ("pi",)
        if name in _GREEK:
            return self.symbol("\\" + name)
        if name in _VECTORS:
            self.expect("{")
            letters = []
            while not self.at("}"):
                kind, text = self.take()
                if kind != "letter":
                    raise UnreadError("no vector")
                letters.append(text)
            self.take()
            return ("symbol", "vector " + "".join(letters))
        if name in _FENCES:
            node = self.sum()
            self.expect(_FENCES[name])
            return ({"lfloor": "floor", "lceil": "ceiling"}.get(name, "absolute"), node)
        raise UnreadError("\\" + name)

    def logarithm(self, name: str) -> Node:
        base: Node | None = ("number", Fraction(10)) if name == "lg" else None
        if self.at("_"):
            self.take()
            kind, _text = self.peek()
            whole = kind == "number" and self.peek(1)[0] in ("number", "sign") and self.peek(1)[1] != "^"
            base = ("number", Fraction(self.take()[1])) if whole else self.argument()
        return self.raised_name(
            "log", lambda node: ("log", node) if base is None else ("divide", ("ln", node), ("ln", base))
        )

    def applied(self, name: str) -> Node:
        if self.at("^") and self.peek(1)[1] == "{" and [self.peek(n)[1] for n in (2, 3, 4)] == ["-", "1", "}"]:
            if name not in _INVERSES:
                raise UnreadError("an inverse")
            self.place += 5
            return ("call", _INVERSES[name], self.operand())
        return self.raised_name(name, lambda node: ("call", FUNCTIONS[name], node))

    def raised_name(self, name: str, apply: Callable[[Node], Node]) -> Node:
        """A function's value, where its power may stand behind its name: sin^2 x."""
        exponent = None
        if self.at("^"):
            self.take()
            exponent = self.script()
        node = apply(self.operand())
        return node if exponent is None else ("power", node, exponent)

    def operand(self) -> Node:
        """A function's argument: a group, or the letters and numbers that follow: sin 2x."""
        if self.at("(", "{", "["):
            return self.group(self.peek()[1])
        node = self.factor()
        while True:
            kind, text = self.peek()
            plain = kind == "letter" or (kind == "command" and (text in _GREEK or text in ("pi", "frac", "sqrt")))
            if not plain:
                return node
            node = ("multiply", node, self.factor())
