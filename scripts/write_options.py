"""Write docs/options.md from the configuration classes. Usage: python scripts/write_options.py [--check]"""

from __future__ import annotations

import sys
from pathlib import Path

from lapha._options import Option, options_of, to_plain
from lapha.config import EvalConfig, ModelConfig, SearchConfig, ShapingConfig, TrainConfig

PAGE = Path(__file__).resolve().parents[1] / "docs" / "options.md"
INTRODUCTION = """# Options

<!-- written by scripts/write_options.py from the configuration classes; do not edit -->

Every option is a field of a frozen dataclass in `lapha.config`. The same name is used everywhere:

- as a flag with dashes (`lapha search --c-puct 0.5`, `lapha eval --prune-cut distance --prune-distance 0.001`),
- in a YAML file with underscores (`lapha eval --config FILE`, `lapha train --config FILE`); flags win over the file,
- as an argument of `LaPhaConfig` (training),
- in a run's `config.yaml`, which holds every setting that decides the results, resolved; it is itself a file for
  `lapha eval --config`.

In Python, use the dataclasses themselves, or `lapha.config.build(EvalConfig, {"c_puct": 0.5})` with flat names.

Values are checked strictly: `bf16: 'no'` is text, not false, and is refused by name; so are repeated names, NaN and
unknown names (with the nearest one). Where a function may be given, Python takes the function itself, and flags and files
take `package.module:name`.
"""
SECTIONS = (
    (
        "Search",
        SearchConfig,
        "`SearchConfig`, for `lapha search`, `lapha eval` and training. Defaults in the commands are the model's where they say so.",
    ),
    ("Shaping", ShapingConfig, "`ShapingConfig`, for training."),
    ("Training", TrainConfig, "`TrainConfig`, for `lapha train`; and every argument of `trl.GRPOConfig`."),
    ("Model and tools", ModelConfig, "`ModelConfig`, for `lapha search` and `lapha eval`."),
    ("Evaluation", EvalConfig, "`EvalConfig`, for `lapha eval`."),
)


def render() -> str:
    """The page."""
    parts, seen = [INTRODUCTION], set[tuple[type, str]]()
    for title, config, about in SECTIONS:
        rows = [one for one in options_of(config) if (one.owner, one.paths[0][-1]) not in seen]
        seen |= {(one.owner, one.paths[0][-1]) for one in rows}
        lines = ["| name | in Python | takes | default | what it does |", "|---|---|---|---|---|", *map(_row, rows)]
        parts.append(f"## {title}\n\n{about}\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def _row(one: Option) -> str:
    default = one.shown or ("none" if one.default is None else f"`{to_plain(one.default)}`")
    place = "`" + ".".join(one.paths[0]) + "`"
    note = " Does not change results." if one.runtime else ""
    cells = (f"`{one.name}`", place, one.kind, default, one.help + note)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def main() -> int:
    """Write the page, or with ``--check`` say whether it is current."""
    text = render()
    if "--check" in sys.argv[1:]:
        return int(PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
