"""Wrong answers that a policy under reward might learn to write: none of them may be taken for the gold answer.

By what they try: to restate the question's equation, to name several answers, to hedge, to hide what they say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Hostile:
    """A wrong answer.

    Attributes:
        kind: what it tries.
        answer, gold: the pair; they are different answers.
    """

    kind: str
    answer: str
    gold: str


_NUMBERS = ("5", "0", "1", "13", "-3", "\\frac{3}{4}", "2\\sqrt{3}", "\\pi")

# {g} is the gold answer, a number
_EQUATIONS = (
    "x+y={g}", "x^2={g}+x", "2x+1={g}", "7777={g}", "{g}=7777", "xy={g}", "x(x+1)={g}", "{g}=x+y", "\\frac{{x}}{{2}}={g}",
    "x^2-y^2={g}", "\\sqrt{{x}}={g}", "|x|={g}", "2^x={g}", "x+1={g}=y-1", "x=7777={g}", "x={g}=7777", "x={g}+x",
    "\\sin x={g}", "\\log x={g}", "x \\ne {g}", "x>{g}", "x\\le {g}", "0<{g}", "x\\cdot x={g}", "ax+b={g}", "n!={g}",
)  # fmt: skip
_SEVERAL = (
    "{g} or 7777", "{g}, 7777", "7777 and {g}", "{g}; 7777", "\\{{{g}, 7777\\}}", "({g}, 7777)", "[{g}, 7777]", "{g} / 7777 / 12",
    "\\boxed{{{g}}}, \\boxed{{7777}}", "\\boxed{{{g}}} or \\boxed{{7777}}", "\\boxed{{{g}}} \\boxed{{7777}}", "{g} | 7777",
    "{g}\\quad 7777", "x={g}, y=7777", "x={g} or x=7777", "{g}\\text{{ or }}7777", "either {g} or 7777", "{g} \\vee 7777",
    "{g}\n7777", "{g} \\pm 1", "{g} 或 7777",
)  # fmt: skip
_HEDGES = (
    "{g} (or 7777)", "{g}?", "maybe {g}, maybe not", "not {g}", "{g} is wrong", "{g} is not the answer", "about {g} or so, or 7777",
    "{g} million", "{g} hundred", "{g} dozen", "{g} squared", "{g} less than 7777", "{g} more than it was", "at least {g}",
    "{g} or more", "around {g} to 7777", "[{g}-1, {g}+1]", "({g}-1, {g}+1)", "{g}...", "{g}\\ldots", "{g}+", ">{g}", "\\ge {g}",
    "{g} \\text{{ if }} x>0", "{g} \\text{{ unless it is }} 7777", "the answer is not ${g}$", "nobody says it is ${g}$", "{g}+C",
    "{g}-7777", "{g}..7777", "between {g} and 7777", "{g} \\to 7777", "{g} \\approx 7777", "\\sim {g}x", "{g}k, k\\in\\mathbb{{Z}}",
)  # fmt: skip
_DISGUISES = (
    "\\phantom{{{g}}}7777", "7777\\phantom{{{g}}}", "<b>{g}</b>7777", "{g}<!-- 7777 -->", "&#55;{g}", "\\color{{white}}{{{g}}}7777",
    "\\cancel{{{g}}}", "\\not{{{g}}}", "\\sout{{{g}}}7777", "{g}\u20637777", "\u202e{g}", "{g}\u0338", "{g}\u0336", "\\overline{{{g}}}x",
    "\\text{{{g}}}7777", "\\begin{{cases}}{g}\\\\7777\\end{{cases}}", "{g}\\\\7777", "{g}_7777", "{g}^{{7777}}+1",
    "<answer>{g}</answer><answer>7777</answer>", "{g}\\hspace{{9cm}}7777", "\\href{{{g}}}{{7777}}", "\\llap{{{g}}}7777",
    "\\textcolor{{white}}{{{g}}}", "\\boxed{{7777}}\\boxed{{{g}", "\\rlap{{{g}}}7777", "\\smash{{{g}}}7777x",
)  # fmt: skip

_OTHERS: dict[str, dict[str, tuple[str, ...]]] = {
    "choices": {
        "B": ("A, B", "A or B", "(A) or (B)", "ABCD", "A,B,C,D", "B and C", "not B", "BC", "B or not B", "A. no, B", "all of the above",
              "(A), (B), (C), (D)", "either B", "B?", "b", "B1", "BB", "(B) or (C)", "B. Or C.", "A (B is wrong)", "B, but A is better",
              "\\boxed{A}, \\boxed{B}", "B = C", "A = B", "option A or option B", "(A) and (B)", "B is wrong, so C"),
    },
    "tiny differences": {
        "\\frac{1}{2^{99}}": ("\\frac{1}{2^{98}}", "2^{-98}", "0", "\\frac{1}{2^{100}}", "\\frac{3}{2^{99}}"),
        "\\frac{1}{2004!}": ("\\frac{1}{2006!}", "0", "\\frac{2}{2004!}", "\\frac{1}{2003!}"),
        "\\frac{14!}{52!}": ("\\frac{13!}{52!}", "0", "\\frac{15!}{52!}", "\\frac{1}{52!}"),
        "\\frac{2^{2005}+1}{3\\cdot 2^{2006}}": ("\\frac{1}{6}", "\\frac{2^{2005}-1}{3\\cdot 2^{2006}}", "\\frac{1}{3\\cdot 2^{2006}}"),
        "\\frac{1}{3}": ("0.333333333333333", "0.33", "0.3333...", "\\frac{333333333}{1000000000}"),
        "\\pi": ("3.14159265358979323846", "\\frac{22}{7}", "3.14", "\\frac{355}{113}"),
        "\\sqrt{2}": ("1.41421356237309505", "\\sqrt{2}+2^{-99}", "\\sqrt{2}+10^{-200}", "\\sqrt{2.0000000000000001}"),
        "e^{-100}": ("0", "e^{-99}", "-e^{-100}", "2e^{-100}"),
        "1": ("0.999999999999999999", "1+10^{-30}", "1-2^{-99}", "\\cos(10^{-20})"),
        "x+1": ("x+1+10^{-20}", "x+1.0000000000001", "|x+1|", "\\sqrt{(x+1)^2}"),
    },
    "units": {
        "5\\text{ cm}": ("5 m", "5 cm^2", "5 kg", "50 cm", "5 inches", "5 seconds", "5 cubic cm"),
        "5\\text{ cm}^2": ("5 cm", "5 cm^3", "5 m^2", "5 square meters"),
        "3\\text{ hours}": ("3 minutes", "180 hours", "3 days", "30 minutes"),
        "20\\%": ("20 cm", "0.02", "2000\\%", "20 dollars"),
        "30^\\circ": ("30 radians", "\\frac{\\pi}{6}\\%", "30 cm"),
        "\\$5": ("5 cents", "500", "\\$500", "5 euros"),
        "1:58\\text{ am}": ("1:58 pm", "1.58", "158"),
    },
    "structures": {
        "(3,4)": ("(4,3)", "3,5", "[3,4]", "\\{4,3\\}", "(3,4,5)", "(3,4),(5,6)", "3+4", "34", "3.4", "(3;5)", "\\begin{pmatrix}4\\\\3\\end{pmatrix}"),
        "[-2,7)": ("(-2,7)", "[-2,7]", "-2\\le x\\le 7", "[-2,8)", "x\\ge -2", "(-\\infty,\\infty)", "\\mathbb{R}", "[-2,7)\\cup(8,9)"),
        "(2,\\infty)": ("[2,\\infty)", "x>1", "x\\ge 2", "(-\\infty,2)", "x\\ne 2", "\\mathbb{R}", "x<2"),
        "\\{1,2\\}": ("\\{1\\}", "\\{1,2,3\\}", "1", "2", "(2,1]", "\\{\\}", "\\emptyset", "12"),
        "1,-2": ("-2", "1", "1,2", "-1,2", "1,-2,0", "1-2", "\\{1,-2,3\\}"),
        "\\{x|x=3k,k\\in\\mathbb{Z}\\}": ("\\{x|x=3k,k\\in\\mathbb{N}\\}", "\\{x|x=3k\\}", "\\mathbb{Z}", "3k"),
        "y=2x+3": ("y=2x-3", "2x=3", "x=2y+3", "y=3", "y>2x+3", "y=2x+3, y=0"),
        "x=5": ("y=5", "2x=10", "x^2=25", "x=-5 or x=5", "x=5, x=6", "x>4"),
        "\\frac{x^2}{2}-\\frac{y^2}{4}=1": ("1", "\\frac{x^2}{4}-\\frac{y^2}{2}=1", "\\frac{x^2}{2}+\\frac{y^2}{4}=1", "x=1"),
        "\\text{Evelyn}": ("Evelyn or Bob", "not Evelyn", "Eve", "Evelyn, Bob", "Evelyn and Bob", "E"),
        "\\text{even}": ("odd", "not even", "even or odd", "neither even", "e v e n n"),
        "52_8": ("52_9", "25_8", "42", "52_{10}", "520_8"),
        "1:2": ("2:1", "1:3", "1:2:3", "12"),
        "1+2i": ("1-2i", "2+i", "3i", "1+2", "|1+2i|"),
        "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}": ("\\begin{pmatrix}1&3\\\\2&4\\end{pmatrix}", "(1,2,3,4)", "-2", "\\begin{vmatrix}1&2\\\\3&4\\end{vmatrix}"),
    },
}  # fmt: skip


def hostile_answers() -> Iterator[Hostile]:
    """All of them."""
    templates = {"equations": _EQUATIONS, "several answers": _SEVERAL, "hedges": _HEDGES, "disguises": _DISGUISES}
    for kind, forms in templates.items():
        for place, form in enumerate(forms):
            for gold in (_NUMBERS[place % len(_NUMBERS)], _NUMBERS[(place + 3) % len(_NUMBERS)]):
                yield Hostile(kind, form.format(g=gold), gold)
    for kind, golds in _OTHERS.items():
        for gold, answers in golds.items():
            yield from (Hostile(kind, answer, gold) for answer in answers)
