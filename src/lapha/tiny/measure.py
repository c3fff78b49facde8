"""What the policy and its heads are worth on problems that they have not seen: states, siblings, guided walks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from lapha.tiny.encoding import Batch, Vocabulary, encode
from lapha.tiny.training import TARGETS, TinyModel, pooled_states, potentials, tries_of
from lapha.tiny.walk import MOVE_LIMIT, MOVES, Rollouts, Walks, walked


class Children(NamedTuple):
    """All legal children of one state of each of `P` problems.

    Attributes:
        rollouts: the children as four rollouts a problem (of an illegal move, a copy of a legal one). Behind a child
            that stays open stands one more legal move, so that the child is encoded as an open step.
        depth: (P,) depth of the children.
        legal: (P, 4) which moves are legal.
        place: (P, 4) number that each child stands on.
        distance: (P, 4) its true remaining distance.
    """

    rollouts: Rollouts
    depth: np.ndarray
    legal: np.ndarray
    place: np.ndarray
    distance: np.ndarray


def children_of(walks: Walks, moves: np.ndarray, numbers: np.ndarray, depth: np.ndarray) -> Children:
    """Children of the states that the first `depth` (P,) of `moves` and `numbers` (P, MOVE_LIMIT) lead to."""
    problems = len(walks)
    rows = np.arange(problems)
    place = np.where(depth == 0, walks.start, numbers[rows, np.maximum(depth - 1, 0)])
    legal = walks.next[rows, place] >= 0
    move = np.where(legal, np.arange(len(MOVES)), legal.argmax(1)[:, None])
    child = walks.next[rows[:, None], place[:, None], move]
    before = np.arange(MOVE_LIMIT) < depth[:, None]
    all_moves = np.repeat(np.where(before, moves, -1)[:, None], len(MOVES), axis=1)
    all_numbers = np.repeat(np.where(before, numbers, -1)[:, None], len(MOVES), axis=1)
    all_moves[rows, :, depth], all_numbers[rows, :, depth] = move, child
    arrived = child == walks.target[:, None]
    onward = (walks.next[rows[:, None], child] >= 0).argmax(2)
    p, k = np.nonzero(~arrived & (depth[:, None] + 1 < MOVE_LIMIT))
    all_moves[p, k, depth[p] + 1] = onward[p, k]
    all_numbers[p, k, depth[p] + 1] = walks.next[p, child[p, k], onward[p, k]]
    rollouts = walked(all_moves, all_numbers, arrived)
    return Children(rollouts, depth + 1, legal, child, walks.distance[rows[:, None], child])


@torch.no_grad()
def states_of(model: TinyModel, batch: Batch, chunk: int = 256) -> torch.Tensor:
    """(B, S, H) pooled states of a batch."""
    parts = []
    for start in range(0, len(batch.ids), chunk):
        hidden = model.lm.model(input_ids=batch.ids[start : start + chunk], use_cache=False).last_hidden_state
        parts.append(pooled_states(hidden, batch.state_at[start : start + chunk]))
    return torch.cat(parts)


def _child_states(model: TinyModel, vocabulary: Vocabulary, walks: Walks, children: Children) -> torch.Tensor:
    """(P, 5, H) pooled states of the root and of the four children."""
    batch = encode(walks, children.rollouts, vocabulary)
    pooled = states_of(model, batch)
    at = torch.from_numpy(children.depth).repeat_interleave(len(MOVES))
    child = pooled[torch.arange(len(pooled)), at].view(len(walks), len(MOVES), -1)
    return torch.cat([pooled[:: len(MOVES), :1], child], dim=1)


def ordered_share(value: np.ndarray, distance: np.ndarray, counted: np.ndarray) -> tuple[float, int]:
    """Share of sibling pairs (of (P, 4) values) with different distances whose nearer one has the higher value.

    Equal values count one half. Returns the share and the number of pairs.
    """
    first, second = np.triu_indices(value.shape[1], 1)
    further = np.sign(distance[:, second].astype(int) - distance[:, first].astype(int))
    pair = counted[:, first] & counted[:, second] & (further != 0)
    gap: np.ndarray = ((value[:, first] - value[:, second]) * further)[pair]
    right = (gap > 0).sum() + 0.5 * (gap == 0).sum()
    return float(right / max(len(gap), 1)), len(gap)


@torch.no_grad()
def order_siblings(
    model: TinyModel, vocabulary: Vocabulary, walks: Walks, rollouts: Rollouts, seed: int
) -> dict[str, dict[str, float]]:
    """Share of sibling pairs that each head, and V itself, orders by the true remaining distance.

    Siblings are all legal children of a state at random depth on the problem's first rollout. Goals of V are the
    correct walks among `rollouts`; problems without one count for the heads alone. ``open`` leaves out the pairs in
    which one child stands on the target.
    """
    first_moves, first_numbers = rollouts.moves[:, 0], rollouts.numbers[:, 0]
    depth = np.random.default_rng([seed, 3]).integers(0, np.maximum(rollouts.length[:, 0], 1))
    children = children_of(walks, first_moves, first_numbers, depth)
    states = _child_states(model, vocabulary, walks, children)
    leaves = encode(walks, rollouts, vocabulary, length=None)
    leaf_states = states_of(model, leaves)
    leaf_states = leaf_states[torch.arange(len(leaf_states)), leaves.length]
    leaf_states = leaf_states.view(len(walks), leaves.rollouts, -1)
    value = potentials(states[:, 1:], states[:, 0], leaf_states, torch.from_numpy(rollouts.correct)).numpy()
    solved = rollouts.correct.any(axis=1, keepdims=True)
    rows = [("potential", value, children.legal & solved)]
    for name in TARGETS:
        predicted = torch.sigmoid(model.heads[name](states[:, 1:])[..., 0]).numpy()
        rows.append((f"{name}_head", predicted, children.legal))
    result = {}
    for name, values, counted in rows:
        share, pairs = ordered_share(values, children.distance, counted)
        open_share, open_pairs = ordered_share(values, children.distance, counted & (children.distance > 0))
        result[name] = {"all": share, "pairs": pairs, "open": open_share, "open_pairs": open_pairs}
    return result


@torch.no_grad()
def guided_rate(
    model: TinyModel, vocabulary: Vocabulary, walks: Walks, target: str | None, breadth: int, seed: int
) -> float:
    """Share of problems solved when each step is the best of `breadth` sampled moves by the head of `target`.

    None takes the first sampled move: the policy alone. Illegal moves are not drawn here.
    """
    rng = np.random.default_rng([seed, 4])
    problems = len(walks)
    rows = np.arange(problems)
    moves = np.full((problems, MOVE_LIMIT), -1, dtype=np.int64)
    numbers = moves.copy()
    live = np.ones(problems, dtype=bool)
    solved = ~live
    for step in range(MOVE_LIMIT):
        index = np.flatnonzero(live)
        if not len(index):
            break
        part = walks.take(index)
        children = children_of(part, moves[index], numbers[index], np.full(len(index), step))
        batch = encode(part, children.rollouts, vocabulary)
        every = slice(None, None, len(MOVES))
        hidden = model.lm.model(input_ids=batch.ids[every], use_cache=False).last_hidden_state
        at_move = hidden[torch.arange(len(index)), batch.move_at[every][:, step, 0]]
        chance = model.lm.lm_head(at_move).softmax(-1)[:, model.move_ids[0]].numpy() * children.legal
        chance = (chance / chance.sum(1, keepdims=True)).cumsum(1)
        draws = rng.random((len(index), breadth))
        drawn = np.minimum((draws[:, :, None] > chance[:, None, :]).sum(2), len(MOVES) - 1)
        if target is None:
            choice = drawn[:, 0]
        else:
            states = _child_states(model, vocabulary, part, children)[:, 1:]
            value = torch.sigmoid(model.heads[target](states)[..., 0]).numpy()
            choice = drawn[np.arange(len(index)), np.take_along_axis(value, drawn, 1).argmax(1)]
        here = np.arange(len(index))
        moves[index, step], numbers[index, step] = choice, children.place[here, choice]
        arrived = children.place[here, choice] == part.target
        solved[index[arrived]] = True
        live[index[arrived]] = False
    return float(solved[rows].mean())


@torch.no_grad()
def teacher_forced(model: TinyModel, vocabulary: Vocabulary, walks: Walks, rollouts: Rollouts) -> dict[str, float]:
    """Along the demonstrator's walks: chance of an illegal move, divergence from it, and share of wrong numbers."""
    batch = encode(walks, rollouts, vocabulary)
    hidden = model.lm.model(input_ids=batch.ids, use_cache=False).last_hidden_state
    at_move, ids, truth = tries_of(hidden, batch, model.move_ids)
    log_chance = model.lm.lm_head(at_move).log_softmax(-1).gather(1, ids)
    learned = batch.labels >= 0
    wrong = (model.lm.lm_head(hidden[learned]).argmax(-1) != batch.labels[learned]).float()
    label = batch.labels[learned]
    is_number = torch.isin(label, torch.from_numpy(vocabulary.number))
    is_verdict = (label == vocabulary.taken_back) | (label == vocabulary.think_end)
    return {
        "off_the_line": float(1 - (log_chance.exp() * (truth > 0)).sum(-1).mean()),
        "divergence": float((truth * (truth.clamp(min=1e-9).log() - log_chance)).sum(-1).mean()),
        "wrong_number": float(wrong[is_number].mean()),
        "wrong_verdict": float(wrong[is_verdict].mean()),
        "wrong_other": float(wrong[~is_number & ~is_verdict].mean()),
    }
