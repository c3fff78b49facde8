"""Text from outside, made safe to look at."""

from __future__ import annotations

import re

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
