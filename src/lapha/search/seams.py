"""What comes from outside is converted or refused where it comes in, and named: never later, in an argmax or a file."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from lapha.types import Evaluation, Sample, SampleRequest, State

_ROUNDING = 1e-4  # a certain token's log-probability may come out just above 0


def checked_sample(sample: Sample, request: SampleRequest, index: int) -> Sample:
    """A policy's sample with plain Python numbers.

    Raises:
        ValueError: ids that are no integers, log-probabilities that are NaN or above 0 or of another number, or a state
            that does not append the sampled tokens; names the request and the sample.
    """
    where = f"sample {index} for {request.name or 'an unnamed request'}"
    if not isinstance(sample, Sample):
        raise ValueError(f"policy: expected a Sample, got {type(sample).__name__} as {where}")
    tokens, logprobs = _token_ids(sample.token_ids, where), _logprobs(sample.logprobs, where)
    if len(logprobs) != len(tokens):
        raise ValueError(
            f"policy: expected one log-probability a token, got {len(logprobs)} for {len(tokens)} tokens in {where}"
        )
    before = len(request.state.token_ids) + len(request.bridge_ids)
    state = sample.state
    if not isinstance(state.token_ids, tuple):
        state = State(tuple(_token_ids(state.token_ids, where)), state.handle)
    if len(state.token_ids) != before + len(tokens):
        raise ValueError(
            f"policy: expected child states that append {len(tokens)} tokens to {before}, "
            f"got {len(state.token_ids)} tokens in {where}"
        )
    if tokens is sample.token_ids and logprobs is sample.logprobs and state is sample.state:
        return sample
    return dataclasses.replace(sample, token_ids=tokens, logprobs=logprobs, state=state)


def checked_evaluations(evaluations: Sequence[Evaluation], count: int, name: str) -> list[Evaluation]:
    """An evaluator's answer with a float32 vector and a Python float each; a state without h(s) lies at the origin.

    Raises:
        ValueError: another number of evaluations, or a value that is neither in [0, 1] nor NaN.
    """
    if len(evaluations) != count:
        raise ValueError(f"evaluator: expected {count} evaluations for {name}, got {len(evaluations)}")
    return [_checked_evaluation(evaluation, index, name) for index, evaluation in enumerate(evaluations)]


def finite_value(value: Any, what: str, where: str) -> float:
    """A finite number as a Python float.

    Raises:
        ValueError: something else; `what` names the hook and `where` the node.
    """
    try:
        number = float(value)
    except (TypeError, ValueError) as problem:
        raise ValueError(f"{what}: expected a finite number, got {value!r} for {where}") from problem
    if not math.isfinite(number):
        raise ValueError(f"{what}: expected a finite number, got {number} for {where}")
    return number


def _token_ids(ids: Any, where: str) -> list[int]:
    if type(ids) is list and all(type(token) is int for token in ids):
        return ids
    array = np.asarray(ids.detach().cpu() if isinstance(ids, torch.Tensor) else ids)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(f"policy: expected token ids as integers, got {type(ids).__name__} {ids!r:.60} in {where}")
    return [int(token) for token in array.tolist()]


def _logprobs(logprobs: Any, where: str) -> list[float]:
    if type(logprobs) is not list or not all(type(number) is float for number in logprobs):
        try:
            plain = logprobs.tolist() if isinstance(logprobs, (torch.Tensor, np.ndarray)) else list(logprobs)
            if any(isinstance(number, str) for number in plain):
                raise TypeError
            logprobs = [float(number) for number in plain]
        except (TypeError, ValueError) as problem:
            raise ValueError(
                f"policy: expected log-probabilities as numbers, got {logprobs!r:.60} in {where}"
            ) from problem
    for place, number in enumerate(logprobs):
        if not number <= 0:  # NaN too
            if 0 < number <= _ROUNDING:
                return [min(value, 0.0) for value in logprobs]
            raise ValueError(f"policy: expected log-probabilities <= 0, got {number} at token {place} of {where}")
    return logprobs


def _checked_evaluation(evaluation: Evaluation, index: int, name: str) -> Evaluation:
    value, pooled = evaluation.value, evaluation.pooled
    try:
        number = float(value)
    except (TypeError, ValueError) as problem:
        raise ValueError(
            f"evaluator: expected values in [0, 1] for {name}, got {value!r} for state {index}"
        ) from problem
    if number == number and not 0.0 <= number <= 1.0:  # NaN says "no value known"
        raise ValueError(f"evaluator: expected values in [0, 1] for {name}, got {number} for state {index}")
    if (pooled is None or isinstance(pooled, torch.Tensor)) and type(value) is float:
        return evaluation
    if pooled is not None and not isinstance(pooled, torch.Tensor):
        pooled = torch.as_tensor(np.asarray(pooled, dtype=np.float32))
    return Evaluation(pooled, number)
