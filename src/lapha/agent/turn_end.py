"""Where a model's turn ends: one place decides it, from all that says so.

Three sources name the end of a turn, and they differ: the generation configuration, the chat template and the
tokenizer's end-of-sequence token. Sampling stops at the tokens of all three; `ChatFormat.bridge` then follows the token
that was really sampled.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from lapha.agent.chat import ChatFormat

logger = logging.getLogger(__name__)


def end_of_turn_ids(tokenizer: Any) -> frozenset[int]:
    """Tokens with which a model ends its turn by its tokenizer's chat template.

    Args:
        tokenizer: a transformers tokenizer, with or without a chat template.

    Returns:
        No id where there is no template, one that writes no such token, or one that a conversation cannot be made with
        (`ChatFormat` says why; an environment of the caller's own may not need it).
    """
    if not getattr(tokenizer, "chat_template", None):
        return frozenset()
    try:
        return ChatFormat(tokenizer).turn_ends
    except ValueError as problem:
        logger.warning("sampling does not stop at a chat template's end of turn: %s", problem)
        return frozenset()


def stop_token_ids(tokenizer: Any, generation_config: Any = None) -> frozenset[int]:
    """All tokens that end a step: of the generation configuration, the chat template and the tokenizer.

    Sources that disagree are logged: a tokenizer whose end-of-sequence token neither of the others knows is mostly a
    conversion's mistake.

    Args:
        tokenizer: a transformers tokenizer.
        generation_config: the model's, if there is one.
    """
    configured = _ids(getattr(generation_config, "eos_token_id", None))
    template = end_of_turn_ids(tokenizer)
    own = _ids(getattr(tokenizer, "eos_token_id", None))
    if own and template and not own & template and not own & configured:
        logger.warning(
            "%s: the tokenizer ends sequences with %s, the chat template turns with %s, the generation configuration "
            "with %s; steps end at any of them",
            getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__,
            *(_spelled(tokenizer, ids) for ids in (own, template, configured)),
        )
    return configured | template | own


def _ids(value: int | Iterable[int] | None) -> frozenset[int]:
    if value is None:
        return frozenset()
    return frozenset([value] if isinstance(value, int) else value)


def _spelled(tokenizer: Any, ids: frozenset[int]) -> str:
    return ", ".join(map(str, tokenizer.convert_ids_to_tokens(sorted(ids)))) or "nothing"
