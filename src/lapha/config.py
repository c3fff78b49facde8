"""All configurations in one place: frozen dataclasses with types, ranges and one line of help per field.

Flags, YAML files, `LaPhaConfig`, the tables of ``docs/options.md`` and a run's ``config.yaml`` are derived from them:
an option is one line in the class that it belongs to.

* `load` reads a YAML file, `dump` writes one;
* `build` makes a configuration from flat values, `flatten` gives them back;
* `options_of` lists a configuration's options.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from lapha._options import Option, build, flatten, options_of, read_options
from lapha.evaluation.config import EvalConfig, ModelConfig
from lapha.integrations.train_config import TrainConfig, TrainerOptions
from lapha.pruning import PruneConfig
from lapha.search import SearchConfig
from lapha.shaping.config import ShapingConfig
from lapha.types import SamplingParams

T = TypeVar("T")

__all__ = [
    "EvalConfig",
    "ModelConfig",
    "Option",
    "PruneConfig",
    "SamplingParams",
    "SearchConfig",
    "ShapingConfig",
    "TrainConfig",
    "TrainerOptions",
    "build",
    "dump",
    "flatten",
    "load",
    "options_of",
]


def load(config: type[T], path: str | Path, base: T | None = None) -> T:
    """A configuration from a YAML file; what the file leaves out is as in `base` (default: the class's defaults).

    Raises:
        ValueError: no such file, an unknown or repeated name, or a value that cannot work, by name.
    """
    return read_options(Path(path), config, base)


def dump(config: Any, path: str | Path) -> None:
    """Write a configuration as a YAML file that `load` reads back."""
    import yaml

    Path(path).write_text(yaml.safe_dump(flatten(config), sort_keys=False, allow_unicode=True), encoding="utf-8")
