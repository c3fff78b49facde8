"""A language model as the last resort of grading: asked only where strings and mathematics cannot decide.

Its verdicts are cached on disk, carry the method ``"judge"``, and are counted apart in every table.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lapha._checks import check
from lapha._imports import require
from lapha._store import LineFile
from lapha.evaluation.grading.verdicts import Verdict

_PROMPT = (
    "Decide whether a student's final answer to a mathematics problem means the same as the reference answer. "
    "Different notation, units left out and equivalent forms count as the same; a different value, a missing part or "
    "several alternatives do not. Reply with one word, CORRECT or INCORRECT.\n\n"
    "Reference answer: {gold}\nStudent's answer: {prediction}"
)


class Judge:
    """Asks an OpenAI-compatible server.

    Args:
        url: base address, such as ``http://localhost:8000/v1``.
        model: the model's name there.
        cache: JSONL file of verdicts, by server, model and every word that was asked; made if absent.
        key: sent as a bearer token, if given.
        timeout: seconds for one reply, > 0.
        concurrency: questions in flight at once.

    Raises:
        ValueError: httpx is missing.
    """

    def __init__(
        self,
        url: str,
        model: str,
        cache: str | Path,
        *,
        key: str | None = None,
        timeout: float = 60.0,
        concurrency: int = 8,
    ) -> None:
        httpx = require("httpx", extra="llm")
        self.url = url.rstrip("/")
        self.model = model
        self.concurrency = concurrency
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client: Any = httpx.Client(timeout=timeout, headers=headers)
        self._errors = (httpx.HTTPError,)
        self._cache = LineFile(Path(cache), checked=False)
        self._known = known_verdicts(self._cache.found.records, self._cache.path)

    def verdicts(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        """Verdicts on (prediction, gold) pairs; a pair on which the server gives no usable reply is ungradable."""
        new = [pair for pair in dict.fromkeys(pairs) if self._name(pair) not in self._known]
        failed: dict[tuple[str, str], str] = {}
        with ThreadPoolExecutor(self.concurrency) as pool:
            for pair, (correct, detail) in zip(new, pool.map(self._ask, new)):
                if correct is None:
                    failed[pair] = detail
                else:
                    self._known[self._name(pair)] = correct
                    self._cache.append({"key": self._name(pair), "pair": pair, "correct": correct}, sync=True)
        return [
            Verdict(None, "ungradable", f"the judge: {failed[pair]}")
            if pair in failed
            else Verdict(self._known[self._name(pair)], "judge", self.model)
            for pair in pairs
        ]

    def close(self) -> None:
        """Close the connection and the cache."""
        self._client.close()
        self._cache.close()

    def _name(self, pair: tuple[str, str]) -> str:
        """The key of a verdict: who was asked, and every word of the question."""
        asked = json.dumps([self.url, self._request(pair)], sort_keys=True)
        return hashlib.sha256(asked.encode()).hexdigest()

    def _request(self, pair: tuple[str, str]) -> dict[str, Any]:
        content = _PROMPT.format(prediction=pair[0], gold=pair[1])
        return {
            "model": self.model,
            "temperature": 0,
            "max_tokens": 8,
            "messages": [{"role": "user", "content": content}],
        }

    def _ask(self, pair: tuple[str, str]) -> tuple[bool | None, str]:
        try:
            reply = self._client.post(f"{self.url}/chat/completions", json=self._request(pair))
            reply.raise_for_status()
            text = reply.json()["choices"][0]["message"]["content"] or ""
        except (*self._errors, KeyError, IndexError, TypeError, ValueError) as error:
            return None, f"{type(error).__name__}: {error}"[:200]
        words = text.upper().split()
        word = words[0].strip(".*:") if words else ""
        return ({"CORRECT": True, "INCORRECT": False}.get(word), f"it said {text[:60]!r}")


def known_verdicts(records: Sequence[Mapping[str, Any]], path: Path) -> dict[str, bool]:
    """A judge's cache, by its keys.

    Raises:
        ValueError: a record that is no verdict; names the file.
    """
    for number, record in enumerate(records, 1):
        good = isinstance(record.get("key"), str) and isinstance(record.get("correct"), bool)
        check(good, f"{path}: record {number}", "a key, and whether it is correct", f"{dict(record)!r:.100}")
    return {record["key"]: record["correct"] for record in records}


def grade_with_judge(verdicts: Sequence[Verdict], pairs: Sequence[tuple[str, str]], judge: Judge) -> list[Verdict]:
    """Replace the verdicts that strings alone decided against a prediction, and the ungradable ones, by the judge's."""
    open_ = [
        index
        for index, verdict in enumerate(verdicts)
        if verdict.correct is None or (verdict.method == "string" and not verdict.correct)
    ]
    out = list(verdicts)
    for index, verdict in zip(open_, judge.verdicts([pairs[index] for index in open_])):
        out[index] = verdict
    return out
