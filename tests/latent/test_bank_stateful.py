"""The bank equals a list of tensors under any sequence of append, offload, load, save and reload."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lapha.geometry import PolarPoints
from lapha.latent import LatentBank

D = 3
ROW = D * 2 + 4  # bytes of a row in bfloat16
TREES = st.integers(0, 3)


class BankMachine(RuleBasedStateMachine):
    """Model: every row ever appended, as (tree, direction, radius)."""

    @initialize(mirror=st.booleans(), budget=st.sampled_from([None, 8, 20, 70]))
    def start(self, mirror: bool, budget: int | None) -> None:
        self.options = {"mirror": mirror, "memory_budget": None if budget is None else budget * ROW}
        self.bank = LatentBank(D, 0.7, dtype=torch.bfloat16, **self.options)
        self.rows: list[tuple[int, torch.Tensor, torch.Tensor]] = []
        self.random = torch.Generator().manual_seed(0)
        self.views: list[tuple[PolarPoints, torch.Tensor, torch.Tensor]] = []
        self.folder = tempfile.TemporaryDirectory()

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()

    def _of(self, tree: int) -> list[int]:
        return [index for index, row in enumerate(self.rows) if row[0] == tree]

    @rule(tree=TREES, size=st.integers(0, 6))
    def append(self, tree: int, size: int) -> None:
        points = PolarPoints.from_tangent(torch.randn(size, D, generator=self.random), 0.7)
        budget = self.bank.memory_budget
        offloaded = tree in self.bank.tree_ids and self.bank.is_offloaded(tree)
        needed = (len(self._of(tree)) + size) * ROW
        if size and budget is not None and not offloaded and needed > budget:
            with pytest.raises(ValueError, match=r"^memory_budget"):
                self.bank.append(points, tree)
            return
        ids = self.bank.append(points, tree)
        assert ids.tolist() == list(range(len(self.rows), len(self.rows) + size))
        self.rows += [(tree, points.direction[i].bfloat16(), points.radius[i]) for i in range(size)]

    @rule(tree=st.one_of(st.none(), TREES))
    def offload(self, tree: int | None) -> None:
        if tree is None or self._of(tree):
            self.bank.offload(tree)
            assert all(self.bank.is_offloaded(t) for t in (self.bank.tree_ids if tree is None else [tree]))

    @rule(tree=st.one_of(st.none(), TREES))
    def load(self, tree: int | None) -> None:
        if tree is not None and not self._of(tree):
            return
        size = len(self.rows) if tree is None else len(self._of(tree))
        if self.bank.memory_budget is not None and size * ROW > self.bank.memory_budget:
            with pytest.raises(ValueError, match=r"^memory_budget"):
                self.bank.load(tree)
            return
        self.bank.load(tree)
        assert not any(self.bank.is_offloaded(t) for t in (self.bank.tree_ids if tree is None else [tree]))

    @rule()
    def save_and_reload(self) -> None:
        path = Path(self.folder.name) / "bank.safetensors"
        largest = max((len(self._of(tree)) for tree in range(4)), default=0)
        self.bank.save(path)
        if self.options["memory_budget"] is not None and largest * ROW > self.options["memory_budget"]:
            with pytest.raises(ValueError, match="memory_budget"):
                LatentBank.from_file(path, **self.options)
            return
        trees = self.bank.tree_ids
        self.bank = LatentBank.from_file(path, **self.options)
        assert self.bank.tree_ids == trees

    @rule(tree=TREES, case=st.sampled_from(["dim", "curvature", "nan"]))
    def refused_append(self, tree: int, case: str) -> None:
        points = PolarPoints.from_tangent(torch.ones(2, D + (case == "dim")), 0.5 if case == "curvature" else 0.7)
        if case == "nan":
            points.radius[1] = float("nan")
        with pytest.raises(ValueError, match=r"^points"):
            self.bank.append(points, tree)

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def keep_a_view(self, data: st.DataObject) -> None:
        tree = data.draw(st.sampled_from(self.bank.tree_ids))
        view = self.bank.segment(tree)
        self.views.append((view, view.direction.clone(), view.radius.clone()))

    @invariant()
    def rows_are_those_of_the_model(self) -> None:
        if not hasattr(self, "bank"):
            return
        assert len(self.bank) == len(self.rows)
        found = self.bank[range(len(self.rows))]
        for index, (_, direction, radius) in enumerate(self.rows):
            assert torch.equal(found.direction[index], direction)
            assert torch.equal(found.radius[index], radius)
        for tree in range(4):
            ids = self._of(tree)
            assert (tree in self.bank.tree_ids) == bool(ids)
            if ids:
                assert self.bank.ids(tree).tolist() == ids
                segment = self.bank.segment(tree)
                assert torch.equal(segment.direction, torch.stack([self.rows[i][1] for i in ids]))
                assert torch.equal(segment.radius, torch.stack([self.rows[i][2] for i in ids]))

    @invariant()
    def views_never_change(self) -> None:
        for view, direction, radius in getattr(self, "views", []):
            assert torch.equal(view.direction, direction)
            assert torch.equal(view.radius, radius)

    @invariant()
    def budget_is_kept(self) -> None:
        if hasattr(self, "bank") and self.bank.memory_budget is not None:
            assert self.bank.device_bytes <= self.bank.memory_budget


BankMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestBank = BankMachine.TestCase
