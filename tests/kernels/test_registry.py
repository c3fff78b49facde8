"""Which backend runs, and what is said about it."""

from __future__ import annotations

import logging

import pytest
import torch
from kernels_oracle import family

from lapha.kernels import explain, last_choice, pairwise_dist
from lapha.kernels.registry import choose

CPU = torch.device("cpu")


def test_auto_says_what_it_picked(caplog: pytest.LogCaptureFixture) -> None:
    X = family(3, 4, 0.3, 1.0, seed=1)
    with caplog.at_level(logging.INFO, logger="lapha.kernels.registry"):
        pairwise_dist(X, precision="bf16")
    choice = last_choice()
    assert choice is not None
    assert (choice.operation, choice.backend, choice.precision) == ("pairwise_dist", "torch", "bf16")
    assert "cpu" in choice.reason
    assert "pairwise_dist: torch backend, bf16" in caplog.text


def test_explain_leaves_the_last_choice_alone() -> None:
    choose("knn", CPU, torch.float32, "torch")
    lines = explain("cpu").splitlines()
    assert len(lines) == 4
    assert all(": torch, ieee (" in line for line in lines)
    assert last_choice().operation == "knn"


def test_an_explicit_choice_that_cannot_run_raises() -> None:
    X = family(3, 4, 0.3, 1.0, seed=1)
    with pytest.raises(ValueError, match="backend: expected one that can run here, got 'triton'"):
        pairwise_dist(X, backend="triton")
    for backend in ("torch", "auto"):
        with pytest.raises(ValueError, match=r"precision: .* got 'tf32x3'"):
            pairwise_dist(X, backend=backend, precision="tf32x3")


def test_float64_never_goes_to_a_float32_kernel() -> None:
    with pytest.raises(ValueError, match="float64"):
        choose("pairwise_dist", torch.device("cuda"), torch.float64, "triton")


@pytest.mark.parametrize(("name", "value"), [("backend", "cuda"), ("precision", "fp8")])
def test_unknown_names(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected one of"):
        pairwise_dist(family(3, 4, 0.3, 1.0, seed=1), **{name: value})
