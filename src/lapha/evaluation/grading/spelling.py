"""One spelling for what looks the same: Unicode, LaTeX's spacing and its synonyms. Strings only, nothing is evaluated."""

from __future__ import annotations

import re
import unicodedata

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ", "0123456789+-()ni")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₙ", "0123456789+-()n")
_SUPER = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ]+")
_SUB = re.compile("[₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₙ]+")
_SMALL_FRACTION = re.compile("([⁰¹²³⁴⁵⁶⁷⁸⁹]+)[⁄/]([₀₁₂₃₄₅₆₇₈₉]+)")
_VULGAR = {
    "½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4), "⅕": (1, 5), "⅖": (2, 5), "⅗": (3, 5), "⅘": (4, 5),
    "⅙": (1, 6), "⅚": (5, 6), "⅐": (1, 7), "⅛": (1, 8), "⅜": (3, 8), "⅝": (5, 8), "⅞": (7, 8), "⅑": (1, 9), "⅒": (1, 10),
}  # fmt: skip
_SYMBOLS = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "﹣": "-", "×": "\\times ", "⋅": "\\cdot ", "·": "\\cdot ", "∙": "\\cdot ",
    "÷": "\\div ", "∗": "*", "≤": "\\le ", "⩽": "\\le ", "≦": "\\le ", "≥": "\\ge ", "⩾": "\\ge ", "≧": "\\ge ", "≠": "\\ne ",
    "≈": "\\approx ", "≃": "\\approx ", "≅": "\\approx ", "∞": "\\infty ", "∪": "\\cup ", "∩": "\\cap ", "∈": "\\in ",
    "∅": "\\emptyset ", "⌀": "\\emptyset ", "ℝ": "\\mathbb{R}", "ℤ": "\\mathbb{Z}", "ℕ": "\\mathbb{N}", "ℚ": "\\mathbb{Q}",
    "ℂ": "\\mathbb{C}", "±": "\\pm ", "∓": "\\mp ", "°": "^{\\circ}", "º": "^{\\circ}", "∠": "\\angle ", "△": "\\triangle ",
    "′": "'", "’": "'", "⟨": "\\langle ", "⟩": "\\rangle ", "〈": "\\langle ", "〉": "\\rangle ", "∛": "\\sqrt[3]", "…": "\\ldots ",
    "∶": ":", "⁄": "/", "∕": "/", "％": "%", "，": ",", "、": ",", "；": ";", "：": ":", "（": "(", "）": ")", "。": ".", "∣": "|",
    "⌊": "\\lfloor ", "⌋": "\\rfloor ", "⌈": "\\lceil ", "⌉": "\\rceil ", "ι": "\\iota ", "→": "\\to ",
}  # fmt: skip
_GREEK = dict(
    zip(
        "αβγδεζηθκλμνξπρσςτυφϕχψωΓΔΘΛΞΠΣΦΨΩ",
        [
            "alpha",
            "beta",
            "gamma",
            "delta",
            "epsilon",
            "zeta",
            "eta",
            "theta",
            "kappa",
            "lambda",
            "mu",
            "nu",
            "xi",
            "pi",
            "rho",
            "sigma",
            "sigma",
            "tau",
            "upsilon",
            "phi",
            "phi",
            "chi",
            "psi",
            "omega",
            "Gamma",
            "Delta",
            "Theta",
            "Lambda",
            "Xi",
            "Pi",
            "Sigma",
            "Phi",
            "Psi",
            "Omega",
        ],
    )
)
_TABLE = str.maketrans({**_SYMBOLS, **{letter: f"\\{name} " for letter, name in _GREEK.items()}})
_RADICAL = re.compile(r"√\s*(?:\(([^()]+)\)|([0-9]+(?:\.[0-9]+)?|[A-Za-z]))")
# what cannot be seen and changes what is read: writing direction, invisible operators, marks over other characters
_HIDDEN = re.compile("[‪-‮⁦-⁩‎‏⁡-⁤]")
_HTML = re.compile(r"</?[A-Za-z!][^<>]*>|&#?[A-Za-z0-9]{2,10};|<!--")
# commands whose effect is that what is written is not what is seen
_DISGUISES = re.compile(
    r"\\(?:[hv]?phantom|smash|llap|rlap|mathllap|mathrlap|cancel|bcancel|xcancel|sout|st|not|color|textcolor|colorbox|href|"
    r"def|let|newcommand|renewcommand|require|input|include|char|unicode|style|class|cssId|begingroup|verb|tag|label|ref)"
    r"(?![A-Za-z])"
)

_TEXT = re.compile(
    r"\\(?:text|textbf|textit|textrm|textsf|texttt|textnormal|textup|mathrm|mathbf|mathit|mathsf|mathtt|mathnormal|mbox|hbox|"
    r"operatorname\*?|emph|underline|bf|rm|it|boldsymbol|pmb|bm|displaystyle)\s*\{([^{}]*)\}"
)
_THIN_THOUSANDS = re.compile(
    r"(?<=[0-9])(?:\{,\}|,(?:\\!|\\negthinspace(?![A-Za-z])|\{\})\s*|\{\}|\\!|\\negthinspace(?![A-Za-z]))\s*(?=[0-9]{3}(?![0-9]))"
)
_MEASURED_SPACE = re.compile(
    r"\\(?:hspace|mspace|vspace)\*?\s*\{[^{}]*\}|\\(?:hskip|mskip|kern|mkern)\s*-?[0-9.]+\s*(?:mu|em|ex|pt|cm|mm|in)"
)
_SIGN = re.compile(r"(?<!\\)\\[,;:> \n\t()\[\]!%]")  # a backslash and one sign
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_DELIMITER = re.compile(r"\\(?:left|right)\s*\.")


def _commands() -> dict[str, str]:
    """What takes the place of a command."""
    table = {
        " ": "quad qquad thinspace medspace thickspace enspace enskip nobreakspace space hfill strut null left right middle big "
        "Big bigg Bigg bigl Bigl biggl Biggl bigr Bigr biggr Biggr bigm Bigm displaystyle textstyle scriptstyle limits nolimits "
        "rm bf it cal normalsize large Large huge relax",
        "": "negthinspace negmedspace negthickspace allowbreak nobreak",
        "\\frac": "frac dfrac tfrac cfrac",
        "\\le ": "le leq leqslant leqq",
        "\\ge ": "ge geq geqslant geqq",
        "\\ne ": "ne neq",
        "<": "lt",
        ">": "gt",
        "\\{": "lbrace",
        "\\}": "rbrace",
        "(": "langle",
        ")": "rangle",
        "[": "lbrack",
        "]": "rbrack",
        "\\emptyset ": "emptyset varnothing O",
        "\\cup ": "cup bigcup",
        "^{\\circ}": "degree textdegree",
        "\\approx ": "approx approxeq simeq cong thickapprox",
        "|": "mid vert lvert rvert",
        "*": "ast",
        "\\ldots ": "ldots cdots dots dotsc dotsb",
        ":": "colon",
        "'": "prime",
        "\\varphi": "varphi",
    }
    found = {name: replacement for replacement, names in table.items() for name in names.split()}
    for name in ("quadx", "quady", "quada", "quadb", "quadn", "quadk"):  # \\quadx of a line break that was lost
        found[name] = " " + name[-1]
    return found


_COMMANDS = _commands()
_DEGREES = re.compile(r"\^\s*\{?\s*\\circ(?![A-Za-z])\s*\}?|\^\{\^\{\\circ\}\}")
_PRIMES = re.compile(r"\^\s*\{?\s*'\s*\}?")


def _command(match: re.Match[str]) -> str:
    return _COMMANDS.get(match[1], match[0])


def _sign(match: re.Match[str]) -> str:
    return {"\\!": "", "\\%": "%"}.get(match[0], " ")


def visible(answer: str) -> str | None:
    """The answer with its Unicode characters as LaTeX; None where what is seen is not what is written.

    Characters without width are left out; directions, invisible operators, HTML and commands that hide or overlay text
    make an answer that means nothing here.
    """
    if _HTML.search(answer) or ("\\" in answer and _DISGUISES.search(answer)):
        return None
    if answer.isascii():
        return answer
    if _HIDDEN.search(answer):
        return None
    text = _SMALL_FRACTION.sub(_small_fraction, answer)
    text = _SUPER.sub(lambda match: "^{" + match[0].translate(_SUPERSCRIPTS) + "}", text)
    text = _SUB.sub(lambda match: "_{" + match[0].translate(_SUBSCRIPTS) + "}", text)
    for sign, (top, bottom) in _VULGAR.items():
        text = text.replace(sign, f"\\frac{{{top}}}{{{bottom}}}")
    text = text.translate(_TABLE)
    text = _RADICAL.sub(lambda match: "\\sqrt{" + (match[1] or match[2]) + "}", text).replace("√", "\\sqrt")
    text = unicodedata.normalize("NFKC", text).translate(_TABLE)
    out = []
    for character in text:
        category = unicodedata.category(character)
        if category in ("Mn", "Me"):
            return None
        if category == "Nd":
            character = str(unicodedata.decimal(character))
        elif category == "Zs":
            character = " "
        elif category in ("Cf", "Cc") and character not in "\n\t":
            continue
        out.append(character)
    return "".join(out)


def _small_fraction(match: re.Match[str]) -> str:
    return f"\\frac{{{match[1].translate(_SUPERSCRIPTS)}}}{{{match[2].translate(_SUBSCRIPTS)}}}"


def plain_latex(text: str) -> str:
    """LaTeX without spacing commands, sizes, font and text commands, and with one name for every sign."""
    if "\\" in text or "{" in text:
        text = _without_commands(text)
    text = re.sub(r"(?<!\\)\\$", "", text)  # the rest of a last "\\ "
    text = text.replace("$", " ").replace("~", " ").replace("!=", "\\ne ").replace("<=", "\\le ").replace(">=", "\\ge ")
    if "'" in text:
        text = _PRIMES.sub("'", text)
    return " ".join(text.replace("{}", "").split())


def _without_commands(text: str) -> str:
    if "\\begin" not in text:  # \\\\frac of a text that was escaped twice
        text = re.sub(r"\\\\(?=[A-Za-z(){}\[\],!;:])", r"\\", text)
    text = _THIN_THOUSANDS.sub("", text)
    text = _MEASURED_SPACE.sub(" ", text)
    text = _SIGN.sub(_sign, text)
    for _ in range(3):
        if "\\" not in text:
            break
        text = _TEXT.sub(r" \1 ", text)
    text = _DELIMITER.sub(" ", text)
    text = _COMMAND.sub(_command, text)
    if "circ" in text:
        text = _DEGREES.sub(r"^{\\circ}", text)
    return text.replace("\\mathbb R", "\\mathbb{R}")


def normalize_answer(answer: str) -> str:
    """A string that two spellings of an answer share. Equal strings mean equal answers, not the reverse."""
    from lapha.evaluation.grading.extraction import core

    seen = visible(core(answer))
    return " ".join(answer.split()) if seen is None else spelled(plain_latex(core(seen)))


def spelled(text: str) -> str:
    """`normalize_answer` of a text in plain LaTeX."""
    text = text.removesuffix(".").strip() if not text.endswith("..") else text
    if re.fullmatch(r"[A-Za-z][A-Za-z '-]{2,}", text):
        return text.casefold()
    return re.sub(r"(?<![0-9]) | (?![0-9])", "", text)
