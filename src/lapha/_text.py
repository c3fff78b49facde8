"""Text from outside, made safe to look at."""

from __future__ import annotations

import json
import re
from typing import Any

# what a reader does not see, or what makes a line read otherwise than it was written: control characters (but not the
# tab and the line feed), marks and overrides of direction, and halves of surrogate pairs
_UNSEEN = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u061c\\u200b\\u200e\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb\\ud800-\\udfff"
    "\\U000e0000-\\U000e007f]"
)


def visible(text: str) -> str:
    """`text` with control characters, marks of direction and lone surrogates written out, such as ``⟨U+202E⟩``."""
    return _UNSEEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text.replace("\\r\\n", "\\n"))


def is_visible(text: str) -> bool:
    """Whether `visible` leaves `text` as it is."""
    return _UNSEEN.search(text) is None


def decoded(content: bytes, name: str, source: str) -> str:
    """A file's content as text: UTF-8, or UTF-16 that says so; a byte order mark is left out.

    Raises:
        ValueError: it is neither; begins with `name` and names `source` and the byte.
    """
    utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        where = f"byte {error.start} of {source}"
        raise ValueError(f"{name}: expected UTF-8 text in {source}, got {where} ({error.reason})") from error


def strict_json(text: str, name: str, source: str) -> Any:
    """JSON without what other readers read otherwise: NaN and infinities, keys that occur twice.

    Raises:
        ValueError: it is not; begins with `name` and names `source`.
    """
    try:
        return json.loads(text, parse_constant=_no_number, object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError(f"{name}: expected JSON in {source}, got brackets nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"{name}: expected JSON in {source}, got {error}") from error


def _no_number(text: str) -> Any:
    raise ValueError(f"{text}, which is no JSON number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} twice")
    return found
