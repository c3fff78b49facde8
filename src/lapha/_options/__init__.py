"""Options: dataclass fields with their help and range, from which flags, files and tables are derived."""

from lapha._options.fields import (
    Option,
    build,
    check_options,
    documented,
    flatten,
    option,
    options_of,
    part,
)
from lapha._options.files import read_options, read_yaml
from lapha._options.values import convert, describe, from_text, metavar, suggestion, to_plain

__all__ = [
    "Option",
    "build",
    "check_options",
    "convert",
    "describe",
    "documented",
    "flatten",
    "from_text",
    "metavar",
    "option",
    "options_of",
    "part",
    "read_options",
    "read_yaml",
    "suggestion",
    "to_plain",
]
