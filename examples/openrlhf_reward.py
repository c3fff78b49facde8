"""LaPha's potential as an OpenRLHF reward function: give this file to OpenRLHF where it takes a reward function.

    LAPHA_MODEL=Qwen/Qwen2.5-Math-1.5B  …train_ppo_ray --remote_rm_url examples/openrlhf_reward.py --label_key solution

OpenRLHF takes one number a response. The process rewards ΔV of a response's steps add up to V of its last state, so that
is the reward: 1 for a correct answer; for any other, how far it got towards the nearest correct one. `scores` holds the
verdict (0 or 1), which OpenRLHF's dynamic filtering wants; the steps' own rewards are logged.

The states' latents come from a model of this file's own (LAPHA_MODEL; the embedded policy if unset), one forward pass a
response. Goals are the correct responses to the same prompt, of this call and of earlier ones (OpenRLHF calls with one
response at a time, from several threads), and the label where it is a worked solution that holds an <answer>.
Without any goal there is nothing to measure against, and the reward is the verdict alone.
"""

import os
import re
import threading
from collections import defaultdict, deque
from functools import lru_cache
from typing import Any

import torch

from lapha.agent import parse_step
from lapha.latent import latent_points
from lapha.shaping import chain_potential, chain_rewards
from lapha.tiny import tiny_path

STEP = re.compile(r"STEP-\d+:\n")
GOALS: dict[str, deque[torch.Tensor]] = defaultdict(lambda: deque(maxlen=8))  # prompt -> h of correct responses
LOCK = threading.Lock()


@lru_cache(maxsize=1)
def load() -> tuple[Any, Any]:
    """(model, tokenizer) that states are embedded with; frozen, so that goals of earlier calls stay where they are."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    name = os.environ.get("LAPHA_MODEL") or tiny_path()
    model = AutoModelForCausalLM.from_pretrained(name).eval().requires_grad_(False)
    return model.to("cuda" if torch.cuda.is_available() else "cpu"), AutoTokenizer.from_pretrained(name)


def split_steps(response: str) -> list[str]:
    """The response cut before every step header but the first; a response without headers is one step."""
    cuts = [match.start() for match in STEP.finditer(response)][1:]
    return [response[a:b] for a, b in zip([0, *cuts], [*cuts, len(response)], strict=True)]


def answer_of(text: str) -> str | None:
    """The answer of the last step, or None."""
    steps = split_steps(text)
    answer = parse_step(steps[-1], len(steps)).answer
    return None if answer is None else answer.strip()


def state_vectors(prompt: str, steps: list[str]) -> torch.Tensor:
    """(1 + K, H) h(s) of the prompt and of every step's end, from one forward pass over the whole text."""
    model, tokenizer = load()
    text = prompt + "".join(steps)
    tokens = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    ids = torch.tensor([tokens["input_ids"]], device=model.device)
    hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state[0].float()
    ends, length = [], 0
    for part in [prompt, *steps]:
        length += len(part)
        ends.append(sum(start < length for start, _ in tokens["offset_mapping"]))
    count = torch.tensor(ends, device=hidden.device)
    return (hidden.cumsum(0)[count - 1] / count[:, None]).cpu()


def reward_func(queries: list[str], prompts: list[str], labels: list[str], **kwargs: Any) -> dict[str, Any]:
    """OpenRLHF's interface: `queries` are prompts with their responses, `labels` gold answers or worked solutions.

    Returns:
        ``rewards`` (N,) V of the last state in [0, 1]; ``scores`` (N,) verdicts; ``extra_logs``: each response's number
        of steps and its smallest ΔV, a step that lost ground if below 0.
    """
    rewards, scores, counts, smallest = [], [], [], []
    for query, prompt, label in zip(queries, prompts, labels, strict=True):
        response = query[len(prompt) :] if query.startswith(prompt) else query
        gold = answer_of(label) or label.strip()
        correct = answer_of(response) == gold
        steps = split_steps(response)
        h = state_vectors(prompt, steps)
        with LOCK:
            if "<answer>" in label and not GOALS[prompt]:
                GOALS[prompt].append(state_vectors(prompt, split_steps(label))[-1])
            if correct:
                GOALS[prompt].append(h[-1])
            goals = list(GOALS[prompt])
        # The goals as chains of one step beside the response's own chain.
        points = latent_points(torch.cat([h[1:], *[goal[None] for goal in goals]]), h[0])
        boundaries = torch.full((1 + len(goals), len(steps)), -1)
        boundaries[0] = torch.arange(len(steps))
        boundaries[1:, 0] = 0
        padded = points[torch.where(boundaries >= 0, (boundaries >= 0).flatten().cumsum(0).view_as(boundaries) - 1, 0)]
        is_goal = torch.tensor([False] + [True] * len(goals))
        one = torch.zeros(len(boundaries), dtype=torch.long)
        V = chain_potential(padded, boundaries, is_goal, one, failed_leaves="geometry")[:1]
        step_rewards = chain_rewards(V, boundaries[:1])[0]
        rewards.append(1.0 if correct else float(V[0, -1]))
        scores.append(float(correct))
        counts.append(float(len(steps)))
        smallest.append(float(step_rewards.min()))
    numbers = {"steps": torch.tensor(counts), "smallest_step_reward": torch.tensor(smallest)}
    return {"rewards": torch.tensor(rewards), "scores": torch.tensor(scores), "extra_logs": numbers}
