"""Pairs of answers as models and books write them, with whether they are the same: written for this benchmark.

The kinds are those on which public graders have been reported to fail: spellings, Unicode, Markdown, units, percent, mixed and
repeating numbers, intervals against inequalities, columns against tuples, Chinese units, several boxes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Written:
    """A completion, or an answer, and a gold answer.

    Attributes:
        kind: what is hard about it.
        text, gold: the pair.
        same: whether it is right.
    """

    kind: str
    text: str
    gold: str
    same: bool


_SAME: dict[str, tuple[tuple[str, str], ...]] = {
    "thousands": ((r"10,\!080", "10080"), ("10080", r"10,\!080"), (r"\$32,\!348", "32348"), (r"11,\! 111,\! 111,\! 100", "11111111100"),
                  ("16,386.20", "16386.2"), ("1 000 000", "1000000"), (r"1\,000\,000", "1000000"), ("1{,}234", "1234"), ("x = 1,200", "1200")),
    "numbers": (("1e6", "1000000"), ("1.2e-4", "0.00012"), (r"0.\overline{3}", r"\frac13"), (r"0.1\overline{6}", "1/6"), ("½", "0.5"),
                ("2½", "5/2"), (r"1\frac{4}{5}", "9/5"), ("-3 1/2", "-3.5"), (".5", "0.50"), ("−5", "-5"), ("１２", "12"), (r"\frac 59", "5/9"),
                (r"\frac{270}7", "270/7"), (r"3\times 10^5", "300000"), ("5!", "120"), (r"\binom{5}{2}", "10"), ("033", "33"), ("+5", "5"),
                (r"\frac{1}{-2}", "-0.5"), ("2^{10}", "1024"), (r"\log_2 8", "3"), (r"\sqrt{16}", "4"), (r"\sqrt[3]{-8}", "-2"), ("150,", "150")),
    "expressions": ((r"2\sqrt{2}", r"\sqrt{8}"), (r"\frac{1}{\sqrt2}", r"\frac{\sqrt{2}}{2}"), ("2 sqrt(3)", r"2\sqrt{3}"), ("pi/2", r"\frac{\pi}{2}"),
                    (r"e^{i\pi}", "-1"), (r"\frac1i", "-i"), ("(x+1)^2", "x^2+2x+1"), ("exp(x)", "e^x"), (r"\ln e^2", "2"), (r"14+(-1)i", "14-i"),
                    (r"\frac{\sqrt q}{\sqrt s}", r"\sqrt{\frac qs}"), (r"\sin 30^\circ", "0.5"), ("-2*pi", r"-2\pi"), (r"\sqrt{-4}", "2i"),
                    (r"\frac{1+\sqrt5}{2}", r"\frac{2}{\sqrt5-1}"), ("2(x+1)", "2x+2"), (r"\frac{x+2}{x+1}", r"1+\frac{1}{x+1}"), (r"3^{n}\cdot 3", "3^{n+1}"),
                    (r"\sum_{k=1}^{4} k", "10"), (r"\int_0^1 2x dx", "1"), (r"p\cdot(p-1)!", "p!")),
    "units": (("5 cm", "5"), ("36 square units", "36"), (r"36 \text{ cm}^2", "36"), ("5 cm²", "5"), ("90 minutes", "1.5 hours"), ("$5", "5"), (r"\$18.90", "18.9"),
              ("£5", "5"), (r"30^\circ", "30"), ("90°", "90"), (r"12 \text{ apples}", "12"), ("5.4 cents", "5.4"), ("12平方厘米", "12"), ("15元", "15"), ("5个", "5"),
              ("3 km", "3000 m"), (r"864 \mbox{ inches}^2", "864"), ("10 km/h", "10"), ("20 degrees", r"20^\circ"), ("2 hr", "2 hours")),
    "percent": ((r"28\%", "28"), ("0.28", r"28\%"), (r"28\%", "0.28"), ("28 percent", r"28\%"), ("28 %", "28"), (r"1.1\%", "1.1")),
    "structures": ((r"\begin{pmatrix}3\\4\end{pmatrix}", "(3,4)"), (r"\langle 3,4\rangle", "(3,4)"), (r"-2\le x\le 7", "[-2,7]"), ("[-2,7]", r"-2\le x\le 7"),
                   (r"x\in[2,\infty)", r"x\ge 2"), ("x<1 or x>2", r"(-\infty,1)\cup(2,\infty)"), (r"x\ne 1", r"(-\infty,1)\cup(1,\infty)"), (r"\mathbb{R}", r"(-\infty,\infty)"),
                   (r"\{2,1\}", r"\{1,2\}"), ("1, -2", "-2,1"), ("12 and 8", "8, 12"), (r"1\pm\sqrt{19}", r"1+\sqrt{19}, 1-\sqrt{19}"), (r"\varnothing", r"\emptyset"),
                   ("]1,2[", "(1,2)"), (r"\{x|-2\le x<1\}", "[-2,1)"), ("(1;2)", "(1,2)"), ("x=1, y=2", "y=2, x=1"), (r"\frac{1\pm\sqrt5}{2}", r"\frac{1+\sqrt5}{2}, \frac{1-\sqrt5}{2}"),
                   ("A, B, D", "ABD"), ("2:4", "1:2"), (r"(-\infty,2]", r"(-\infty, 2]"), (r"\left(\frac{3}{5},\frac{8}{3}\right]", "(0.6, 8/3]")),
    "names": (("x=5", "5"), ("AB = 12", "12"), ("f(x) = 2x+1", "2x+1"), (r"\angle A = 30^\circ", "30"), ("x = 2+3 = 5", "5"), ("y = 2x+3", "2x - y + 3 = 0"),
              ("x^2+y^2=1", "2x^2+2y^2=2"), ("P(A) = 0.3", "0.3"), (r"S_{\triangle ABC} = 6", "6"), ("5 = x", "5")),
    "words": (("(B)", "B"), (r"\text{(B)}", "B"), ("B. because 3 > 2", "B"), ("Option B", "B"), ("evelyn", r"\text{Evelyn}"), ("No solution.", r"\text{no solution}"), ("1:58 a.m.", "1:58 am")),
    "based": ((r"1101_{\text{two}}", "1101_2"), ("2516_{8}", "2516_8"), ("2516", "2516_8")),
    "completions": (("The final answer is **5**.", "5"), ("ANSWER: **B**", "B"), ("**Final Answer:** $5$", "5"), (r"so \fbox{7}", "7"), (r"it is \boxed 5", "5"), ("6 + 1 = 7\n#### 7", "7"),
                    ("答案：5", "5"), ("答案是 5。", "5"), ("### Answer\n\n$5$", "5"), (r"\boxed{1}, \boxed{-2}", "1,-2"), (r"$x=\boxed{1}$ and $x=\boxed{-2}$", "-2, 1"),
                    (r"(\boxed{3}, \boxed{4})", "(3,4)"), ("<answer>5</answer>", "5"), (r"<answer>\boxed{\frac{3}{4}}</answer>", "0.75"), ("The answer is $3$.", "3"),
                    (r"first \boxed{1}, then the sum is \boxed{\frac12}", "0.5"), (r"\boxed{5} papers", "5"), (r"Final Answer: The final answer is $28 \%$. I hope it is correct.", r"28\%")),
}  # fmt: skip

_DIFFERENT: dict[str, tuple[tuple[str, str], ...]] = {
    "numbers": (("0.333", r"\frac13"), ("3.14159265", r"\pi"), ("5.0001", "5"), ("-5", "5"), ("1 1/2", "11/2"), ("2 3", "23"), ("1/2", "2"), ("1,0", "10"), ("0.17", "1/6"),
                (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}"), (r"\frac{1}{2004!}", r"\frac{1}{2006!}"), ("1.2e4", "1.2e5"), (r"2\frac13", r"\frac23"), ("204_5", "204_6"), ("1101_2", "1101_3")),
    "expressions": ((r"5\pi", "5"), (r"\sqrt{3}", r"\sqrt2"), ("1+1/e", "1-1/e"), ("|x|", "x"), (r"\sqrt{x^2}", "x"), ("2x", "x^2"), (r"4\sqrt2", "4"), ("2k+1", "2k"), ("6-5i", "6+5i"),
                    (r"\frac{x+1}{x}", r"\frac{x}{x+1}"), (r"\pi", "pie"), ("5x", "5"), (r"\sin x", r"\cos x")),
    "equations": (("7=5", "5"), ("x+y=11", "11"), ("x^2-5x+6=0", "0"), ("5x+3=13", "13"), (r"\frac{x^2}{2}-\frac{y^2}{4}=1", "1"), ("y=1-x", "y=x+1"), ("2x=10", "x=5"), ("y=5", "x=5"), ("x=5=7", "7")),
    "units": (("5 m", "5 cm"), ("5 cm^3", "5 cm^2"), ("204 million", "204"), ("5 squared", "5"), ("3 minutes", "3 hours"), ("5 dozen", "5")),
    "structures": (("(2,1)", "(1,2)"), ("(1,2)", "[1,2]"), (r"\{1\}", r"\{1,2\}"), ("(1, 2, 3)", "(1, 2)"), ("5 or 7", "5"), ("12, 8", "12"), (r"x>2", r"x\ge 2"), ("1:3", "1:2"), ("b, c, a", "b, a, c"),
                   (r"\{x|x=3k,n\in\mathbb{Z}\}", r"\{x|x=3k,k\in\mathbb{Z}\}"), (r"\begin{pmatrix}2\\1\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}")),
    "words": (("A or B", "B"), ("AB", "B"), ("Bob", r"\text{Evelyn}"), ("c", "C"), ("not even", "even"), ("BA", "AB"), ("1:58 pm", "1:58 am")),
    "completions": ((r"\boxed{1}, \boxed{-2}", "-2"), (r"\boxed{5} and then \boxed{12", "5"), (r"\boxed{A}, \boxed{B}, \boxed{C}", "A"), ("The answer is not $3$.", "3")),
}  # fmt: skip


def written_answers() -> Iterator[Written]:
    """All of them."""
    for same, groups in ((True, _SAME), (False, _DIFFERENT)):
        for kind, pairs in groups.items():
            yield from (Written(kind, text, gold, same) for text, gold in pairs)
