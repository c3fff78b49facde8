"""One valid call of every public function and constructor, for calls with one argument changed."""

import torch

import lapha
from lapha import evaluation, geometry, kernels, latent, pruning, search, shaping, tree
from lapha.agent import parse_step, step_header
from lapha.engines import RetryPolicy, ScriptedEngine
from lapha.geometry import PoincareBall, PolarPoints
from lapha.sandbox import Limits
from lapha.types import SamplingParams

torch.manual_seed(0)
V = torch.randn(6, 4)
POINTS = PolarPoints.from_tangent(V)
PARENT = torch.tensor([-1, 0, 0, 1, 1, 2])
GOAL = torch.tensor([False, False, False, True, False, True])
TERMINAL = torch.tensor([False, False, False, True, True, True])
VALUES = torch.tensor([0.1, 0.2, 0.3, 0.9, 0.2, 1.0])
SEARCHED = next(
    iter(
        search.Search(ScriptedEngine(answer_rate=0.6), config=search.SearchConfig(simulations=4, breadth=3)).run(["q"])
    )
)
BALL = PoincareBall()
X, Y = torch.full((3, 4), 0.1), torch.full((3, 4), -0.2)


def bank():
    made = latent.LatentBank(4)
    made.append(POINTS, 0)
    return made


# name -> (what is called, its valid arguments)
CALLS = {
    "lapha.potential": (lapha.potential, {"points": POINTS, "goal": GOAL, "eps": 1e-8}),
    "lapha.process_reward": (lapha.process_reward, {"V": VALUES, "parent": PARENT, "gamma": 0.9}),
    "lapha.adaptive_process_reward": (lapha.adaptive_process_reward, {"V": VALUES, "parent": PARENT, "well_formed": GOAL, "terminal": TERMINAL, "correct": GOAL, "gamma": 1.0, "alpha_v": 1.0, "alpha_f": 1.0}),
    "lapha.sibling_advantages": (lapha.sibling_advantages, {"r": VALUES, "parent": PARENT, "eps": 1e-4}),
    "lapha.choose_sibling_groups": (lapha.choose_sibling_groups, {"r": VALUES, "V": VALUES, "parent": PARENT, "breadth": 2, "max_groups": 2}),
    "lapha.prune": (lapha.prune, {"points": POINTS, "value": VALUES, "fraction": 0.3}),
    "lapha.LatentBank": (lapha.LatentBank, {"dim": 4, "curvature": 1.0, "device": "cpu", "dtype": torch.float32}),
    "LatentBank.append": (lambda points, tree_id: bank().append(points, tree_id), {"points": POINTS, "tree_id": 1}),
    "LatentBank.knn": (lambda ids, among, k: bank().knn(ids, among, k), {"ids": [0], "among": [1, 2], "k": 1}),
    "LatentBank.nearest": (lambda ids, among: bank().nearest(ids, among), {"ids": [0], "among": [1, 2]}),
    "LatentBank.pairwise": (lambda ids, other: bank().pairwise(ids, other), {"ids": [0], "other": [1, 2]}),
    "LatentBank.potential": (lambda ids, goal_ids, eps: bank().potential(ids, goal_ids, eps), {"ids": [0, 1], "goal_ids": [2], "eps": 1e-8}),
    "LatentBank.segment": (lambda tree_id, start, stop: bank().segment(tree_id, start, stop), {"tree_id": 0, "start": 0, "stop": 2}),
    "lapha.ValueHead": (lapha.ValueHead, {"hidden_size": 4, "curvature": 1.0, "value_target": "potential"}),
    "latent.value_loss": (latent.value_loss, {"pred": VALUES, "target": VALUES, "mask": GOAL, "weights": VALUES}),
    "latent.latent_points": (latent.latent_points, {"h": V, "h_root": V[0], "curvature": 1.0}),
    "latent.pool_hidden": (latent.pool_hidden, {"hidden": torch.randn(2, 3, 4), "mask": torch.ones(2, 3, dtype=torch.bool)}),
    "PolarPoints": (PolarPoints, {"direction": POINTS.direction, "radius": POINTS.radius, "curvature": 1.0}),
    "PolarPoints.from_tangent": (PolarPoints.from_tangent, {"v": V, "curvature": 1.0}),
    "PolarPoints.origin": (PolarPoints.origin, {"shape": (2,), "dim": 3, "curvature": 1.0}),
    "PoincareBall": (PoincareBall, {"c": 1.0, "learnable": False}),
    "geometry.dist": (geometry.dist, {"X": POINTS, "Y": POINTS}),
    "geometry.dist0": (geometry.dist0, {"X": POINTS}),
    "geometry.expmap0": (geometry.expmap0, {"v": V}),
    "geometry.logmap": (geometry.logmap, {"X": POINTS, "Y": POINTS}),
    "geometry.mobius_add": (geometry.mobius_add, {"X": POINTS, "Y": POINTS}),
    "geometry.geodesic": (geometry.geodesic, {"X": POINTS, "Y": POINTS, "s": 0.5}),
    "geometry.weighted_midpoint": (geometry.weighted_midpoint, {"X": POINTS, "weights": VALUES}),
    "geometry.frechet_mean": (geometry.frechet_mean, {"X": POINTS, "weights": VALUES, "tolerance": 1e-10, "max_iterations": 100}),
    "kernels.pairwise_dist": (kernels.pairwise_dist, {"X": POINTS, "Y": POINTS}),
    "kernels.nearest": (kernels.nearest, {"X": POINTS, "Y": POINTS}),
    "kernels.knn": (kernels.knn, {"X": POINTS, "Y": POINTS, "k": 2}),
    "pruning.PruneConfig": (pruning.PruneConfig, {"fraction": 0.3, "linkage": "average", "cut": "number", "number": 2, "survivors": "random", "scope": "visited_nonterminal", "min_cluster_size": 2, "seed": 0}),
    "pruning.cluster": (pruning.cluster, {"points": POINTS}),
    "search.SearchConfig": (
        search.SearchConfig,
        {
            "simulations": 2, "breadth": 2, "depth_limit": 3, "selection": "frontier", "c_puct": 1.0, "v_prior": 0.0,
            "value_trust": 1.0, "max_expands": 2, "widening": (1.0, 0.5), "backup": "auto", "revisit_leaves": False,
            "parallel_expansions": 1, "virtual_loss": 1, "prune_every": 0, "prune": pruning.PruneConfig(),
            "sampling": SamplingParams(), "seed": 0, "max_tokens": 5, "deadline_s": 5.0, "answer": "value",
        },
    ),
    "types.SamplingParams": (
        SamplingParams, {"max_tokens": 5, "temperature": 0.7, "top_p": 0.9, "top_k": 20, "repetition_penalty": 1.0},
    ),
    "search.normalize_answer": (search.normalize_answer, {"text": "1"}),
    "search.leaf_features": (search.leaf_features, {"tree": SEARCHED.tree, "latents": SEARCHED.latents, "leaves": SEARCHED.tree.answered(), "neighbours": 2}),
    "shaping.success_rate": (shaping.success_rate, {"parent": PARENT, "terminal": TERMINAL, "correct": GOAL}),
    "shaping.shape": (shaping.shape, {"points": POINTS, "parent": PARENT, "terminal": TERMINAL, "correct": GOAL}),
    "shaping.ShapingConfig": (shaping.ShapingConfig, {}),
    "shaping.shape_tree": (shaping.shape_tree, {"tree": SEARCHED.tree, "latents": SEARCHED.latents, "verifier": lambda q, a: 1.0, "config": shaping.ShapingConfig()}),
    "tree.rewind": (tree.rewind, {"tree": SEARCHED.tree, "simulations": 1}),
    "tree.SearchTree": (tree.SearchTree, {"question": "q", "prompt_ids": [1, 2], "capacity": 4}),
    "engines.ScriptedEngine": (
        ScriptedEngine,
        {"latency": 0.0, "capacity": 4, "jitter": 0.0, "answer_rate": 0.5, "step_tokens": (3, 8), "hidden_size": 4},
    ),
    "engines.RetryPolicy": (RetryPolicy, {}),
    "sandbox.Limits": (Limits, {}),
    "agent.parse_step": (parse_step, {"text": "<think>\na\n</think>\n<answer>1</answer>", "depth": 1}),
    "agent.step_header": (step_header, {"step": 1}),
    "evaluation.pass_at_k": (evaluation.pass_at_k, {"samples": 3, "correct": 1, "k": 1}),
    "evaluation.grade_answer": (evaluation.grade_answer, {"prediction": "1", "gold": "1"}),
    "evaluation.canonical_math": (evaluation.canonical_math, {"answer": "1"}),
    "evaluation.extract_answer": (evaluation.extract_answer, {"text": "\\boxed{1}"}),
}  # fmt: skip
