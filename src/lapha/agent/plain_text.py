"""Text is text: questions, tool output and feedback never become a tokenizer's added tokens.

An added token (``<|im_end|>``, ``</think>``, ``<tool_call>``) speaks for the chat template. Text from outside that
spells one must reach the model as letters, or it could end a turn and speak as the assistant or the system.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

import numpy as np


class PlainText:
    """Encodes text so that no part of it becomes an added token.

    Added tokens that hold only white space (some tokenizers have them for indentation) carry no role and are kept: they
    are how the model knows such text.

    Args:
        tokenizer: a transformers tokenizer.
    """

    identity_excludes: ClassVar[frozenset[str]] = frozenset(("_bare",))  # made when first needed

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        added = dict(tokenizer.get_added_vocab())
        self.added_ids = frozenset(token_id for text, token_id in added.items() if text.strip())
        self._spellings = {token_id: text for text, token_id in added.items()}
        self._bare: Any = None

    def count(self, token_ids: Any) -> int:
        """How many of `token_ids` are added tokens."""
        return sum(int(token_id) in self.added_ids for token_id in token_ids)

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of `text` on its own, none of them an added token."""
        if not text:
            return ()
        ids = tuple(self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
        return ids if not self.count(ids) else self._spelled_out(text)

    def _spelled_out(self, text: str) -> tuple[int, ...]:
        """The text by the tokenizer's model alone; what still comes out as an added token is cut in two."""
        ids = self._by_model(text)
        if not self.count(ids) or len(text) < 2:
            return ids
        spelling = next(
            (s for i in ids if i in self.added_ids and len(s := self._spellings[i].strip()) > 1 and s in text), None
        )
        cut = len(text) // 2 if spelling is None else text.index(spelling) + 1
        return self._spelled_out(text[:cut]) + self._spelled_out(text[cut:])

    def _by_model(self, text: str) -> tuple[int, ...]:
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is None:  # a tokenizer in Python: it can only be asked to split the special ones
            return tuple(self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
        if self._bare is None:
            document = json.loads(backend.to_str())
            document |= {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
            self._bare = type(backend).from_str(json.dumps(document))
        return tuple(np.asarray(self._bare.encode(text, add_special_tokens=False).ids, dtype=np.int64).tolist())
