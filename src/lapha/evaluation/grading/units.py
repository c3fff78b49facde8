"""Units behind numbers: which words are one, and when two of them say the same."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Unit:
    """A unit.

    Attributes:
        kind: what it measures, with its power, such as ``"length^2"``; units of one kind can be compared.
        factor: how many base units one of it is.
    """

    kind: str
    factor: Fraction = Fraction(1)


def _table() -> dict[str, Unit]:
    lines = {
        "length": "mm millimeter millimetre 毫米=1/1000; cm centimeter centimetre 厘米=1/100; dm decimeter decimetre 分米=1/10; "
        "m meter metre 米=1; km kilometer kilometre 千米 公里=1000; in inch=127/5000; ft foot feet=381/1250; yd yard=1143/1250; "
        "mi mile=201168/125",
        "time": "s sec second 秒=1; min minute 分钟=60; h hr hour 小时=3600; day 天=86400; week=604800",
        "mass": "mg milligram=1/1000000; g gram 克=1/1000; kg kilogram 千克=1; t ton tonne 吨=1000; lb pound=45359237/100000000",
        "volume": "ml milliliter millilitre 毫升=1/1000; l liter litre 升=1; gallon=1; quart=1/4",
        "money": "cent ¢ 分=1/100; dollar usd=1",
        "euro": "euro eur=1", "sterling": "gbp=1", "yuan": "yuan rmb 元=1; 角=1/10", "yen": "yen=1", "rupee": "rupee=1",
        "angle": "degree deg 度=1", "radian": "radian rad=1",
        "percent": "percent percentage pct percents=1",
        "speed": "mph=1", "power": "w watt=1", "energy": "j joule=1", "force": "newton=1",
        "month": "month=1", "year": "year yr 岁 年=1",
    }  # fmt: skip
    found = {}
    for kind, entries in lines.items():
        for entry in entries.split(";"):
            names, _, factor = entry.rpartition("=")
            for name in names.split():
                found[name] = Unit(kind, Fraction(factor))
    return found


_UNITS = _table()
_CASED = {"V": "volt", "A": "ampere", "N": "force", "J": "energy", "W": "power", "L": "volume"}
_COUNTERS_WORDS = "个 人 只 种 次 条 张 本 件 名 位 辆 台 棵 支 枚 颗 块 头 匹 把 双 对 组 倍 项 户 套 页 "
_COUNTERS = set(_COUNTERS_WORDS.split())
_LETTERS = "msghLJNWVA"  # that are a unit where they stand alone
_POWERS = {"平方": 2, "立方": 3, "square": 2, "sq": 2, "cubic": 3, "cu": 3}
# words that make another number of the number before them, take it back or add to it
_NOT_UNITS_WORDS = (
    "or and to not no none nor is isn was are be as than then else but if yes less more plus minus times "
    "over per of by hundreds thousands millions billions trillions dozens scores tens ones twos threes "
    "fours fives sixes sevens eights nines hundredths thousandths millionths halves thirds quarters "
    "fourths fifths sixths sevenths eighths ninths tenths twelfths always perhaps sometimes else besides "
    "thus this its has does guess unless previous various plus minus bits mistakes false across towards "
    "afterwards backwards cross less solutions_are degrees_or wrongs nots less bases logs sins cos sins "
    "squares cubes roots powers exponents factorials negatives inverses reciprocals doubles triples "
    "multiples opposites "
)
_NOT_UNITS = set(_NOT_UNITS_WORDS.split())
_IRREGULAR = set(["people", "children", "men", "women", "feet", "mice", "geese", "teeth", "dice", "fish", "sheep"])
_POWER = r"(?:\s*\^\s*\{?\s*([23])\s*\}?)?"
_WORDS = re.compile(rf"([A-Za-z\u4e00-\u9fff¢]+(?:[\s.]+[A-Za-z]+){{0,3}})\.?{_POWER}(?:\s*/\s*([A-Za-z]+)\.?)?\s*")
CURRENCIES = {"$": "dollar", "\\$": "dollar", "€": "euro", "£": "gbp", "¥": "yuan", "\\pounds": "gbp", "\\euro": "euro"}


def read_unit(text: str, apart: bool) -> Unit | None:
    """The unit that a text names, or None: a known one, or one plural noun of four letters or more ("12 apples").

    Args:
        text: what stands behind a number.
        apart: whether a space is before it; one letter is a unit only then: "5 m" is metres, "5m" a product.
    """
    match = _WORDS.fullmatch(text.strip())
    if match is None:
        return None
    words, power, per = match.groups()
    unit = _phrase(words.replace(".", " ").split(), apart)
    if unit is None:
        return None
    if power:
        unit = Unit(f"{unit.kind}^{power}", unit.factor ** int(power))
    if per:
        below = _known(per)
        return None if below is None else Unit(f"{unit.kind}/{below.kind}", unit.factor / below.factor)
    return unit


def _phrase(words: list[str], apart: bool) -> Unit | None:
    lowered = [word.lower() for word in words]
    if "per" in lowered[1:-1]:
        place = lowered.index("per")
        above, below = _phrase(words[:place], apart), _phrase(words[place + 1 :], True)
        return (
            None if above is None or below is None else Unit(f"{above.kind}/{below.kind}", above.factor / below.factor)
        )
    if len(words) == 2 and lowered[0] in _POWERS:
        return _raised(_POWERS[lowered[0]], _known(words[1]) or _noun(lowered[1]))
    if len(words) == 2 and lowered[1] in ("squared", "cubed"):
        return _raised(2 if lowered[1] == "squared" else 3, _known(words[0]))
    if len(words) != 1:
        return None
    if len(words[0]) == 1 and words[0].isascii() and not (apart and words[0] in _LETTERS):
        return None
    return _known(words[0]) or _noun(lowered[0])


def _raised(power: int, unit: Unit | None) -> Unit | None:
    return None if unit is None else Unit(f"{unit.kind}^{power}", unit.factor**power)


def _known(word: str) -> Unit | None:
    if word in _CASED:
        return Unit(_CASED[word])
    for prefix in ("平方", "立方"):
        if word.startswith(prefix):
            return _raised(_POWERS[prefix], _known(word[len(prefix) :]))
    if word in _COUNTERS:
        return Unit("count")
    if len(word) == 1 and word.isupper():
        return None
    lowered = word.lower()
    for name in (lowered, lowered.removesuffix("s"), lowered.removesuffix("es")):
        if name in _UNITS and (name == lowered or len(name) > 1):
            return _UNITS[name]
    return None


def _noun(word: str) -> Unit | None:
    """A word that is counted: a plural, and no word that changes a number."""
    if word in _IRREGULAR:
        return Unit("noun " + word)
    if word in ("unit", "units"):
        return Unit("unit")
    if not word.isascii() or len(word) < 4 or not word.endswith("s") or word.endswith("ss") or word in _NOT_UNITS:
        return None
    return Unit("noun " + word)


def comparable(first: Unit | None, second: Unit | None) -> Fraction | None:
    """How many of `second` one of `first` is; 1 where at most one is named; None where they measure different things."""
    if first is None or second is None:
        return Fraction(1)
    kinds = {first.kind.partition("^"), second.kind.partition("^")}
    names = {kind[0] for kind in kinds}
    if "count" in names or "unit" in names:  # a counter says nothing of what is counted; "square units" of any length
        powers = {kind[2] for kind in kinds}
        return Fraction(1) if len(powers) == 1 or "count" in names else None
    return first.factor / second.factor if first.kind == second.kind else None
