"""Reading LaTeX faster, with the same result.

latex2sympy's grammar makes ANTLR look at the whole context of a decision ("LL"), again for every text. Without the context
("SLL") it either finds the same tree, or reports a syntax error where there may be none: then, and only then, the text
is read once more, the slow way.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

FIRST_STAGE = "SLL"
"""Name of the prediction mode that is tried first."""


@lru_cache(maxsize=1)
def read_quickly() -> None:
    """From now on, latex2sympy reads texts in two stages. For this process, once."""
    from antlr4.atn.PredictionMode import PredictionMode
    from latex2sympy2_extended import latex2sympy2

    reader: Any = latex2sympy2._Latex2Sympy
    create_parser, parse = reader.create_parser, reader.parse

    def create(self: Any, text: str) -> Any:
        parser = create_parser(self, text)
        parser._interp.predictionMode = getattr(self, "lapha_prediction", PredictionMode.LL)
        return parser

    def parse_in_two_stages(self: Any, text: str) -> Any:
        self.lapha_prediction = PredictionMode[FIRST_STAGE]
        try:
            return parse(self, text)
        except Exception as error:
            if type(error) is not Exception:  # its listener raises Exception itself for a syntax error
                raise
            self.lapha_prediction = PredictionMode.LL
            return parse(self, text)

    reader.create_parser, reader.parse = create, parse_in_two_stages
