"""A finished tree as it was after fewer simulations: accuracy against simulations costs one search, not eight."""

from __future__ import annotations

import numpy as np

from lapha._checks import check
from lapha._typed import typed
from lapha.tree.priors import prior_logits, softmax
from lapha.tree.search_tree import FIELDS, SearchTree


@typed
def rewind(tree: SearchTree, simulations: int) -> SearchTree:
    """The tree as it stood after its first `simulations` simulations.

    Nodes, pruning, visits and value sums are those of that moment; priors are those among the siblings that existed.
    Text, tokens and answers are shared with `tree`. Its nodes are the first of `tree`'s, so latents are a prefix too.

    Raises:
        ValueError: simulations < 0.
    """
    check(simulations >= 0, "simulations", "an integer >= 0", simulations)
    size = int(np.searchsorted(tree.simulation, simulations, side="right"))  # nodes are made in this order
    columns = {name: getattr(tree, name)[:size].copy() for name in FIELDS}
    columns["pruned"] &= columns["pruned_at"] <= simulations
    columns["pruned_at"][~columns["pruned"]] = -1
    past = SearchTree(tree.question, ())
    past.restore(
        columns,
        tokens=tree.tokens[:size],
        logprobs=tree.logprobs[:size],
        text=tree.text[:size],
        answer=tree.answer[:size],
    )
    past.revisits = [revisit for revisit in tree.revisits if revisit[0] <= simulations]
    past.repeats = [repeat for repeat in tree.repeats if repeat[0] <= simulations]
    past.prior_rule, past.prior_temperature = tree.prior_rule, tree.prior_temperature
    _replay_visits(past)
    copies = np.log(past.multiplicity())
    made_by: list[set[int]] = [set(past.simulation[children].tolist()) for children in past.children]
    for simulation, twin in past.repeats:
        made_by[int(past.parent[twin])].add(simulation)
    for node, children in enumerate(past.children):
        past.expansions[node] = len(made_by[node])
        if children:
            past.prior[children] = softmax(prior_logits(past, children) + copies[children])
    return past


def _replay_visits(tree: SearchTree) -> None:
    tree.visits[:] = 0
    tree.value_sum[:] = 0.0
    counted = np.flatnonzero(~np.isnan(tree.backed_up)).tolist()
    visits = sorted([(int(tree.simulation[n]), n) for n in counted] + tree.revisits)
    for _, leaf in visits:
        value = float(tree.backed_up[leaf])
        for node in reversed(tree.path(leaf)):
            value += float(tree.reward[node])
            tree.visits[node] += 1
            tree.value_sum[node] += value
