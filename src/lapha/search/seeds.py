"""Seeds that depend on what is sampled, never on when."""

from __future__ import annotations

import hashlib
from collections import Counter


def derived_seed(*parts: int | str) -> int:
    """A 63-bit seed that depends on all `parts` and on their order."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


class QuestionKeys:
    """Names questions: the hash of the text, and how often that text came before.

    A question has the same key, hence the same samples, whatever else is asked beside it; asked twice, it gets two
    keys. Keys also name finished trees in a journal.
    """

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def key(self, question: str) -> str:
        """The key of the next occurrence of `question`, such as ``"9f…e1-0"``."""
        digest = hashlib.blake2b(question.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        occurrence = self._seen[digest]
        self._seen[digest] += 1
        return f"{digest}-{occurrence}"
