"""Tree rollouts and shaped rewards in a plain PyTorch loop: no trainer, nothing but torch and a model.

    python examples/train_plain_loop.py --steps 5

Each step grows one tree per question with the current policy, turns its nodes into `RolloutRecord`s, lets
`shape_rollouts` compute potentials V, process rewards ΔV and advantages among siblings, and takes one step on
policy loss + value loss. Swap `load_tiny` for your own model, tokenizer and `ValueHead`, and `verify` for your
verifier: the rest stays. One update per rollout needs no ratio and no clipping: the policy is its own old policy.
"""

import argparse
import math
from collections.abc import Callable

import torch
from torch.nn.utils.rnn import pad_sequence

from lapha.engines import TransformersEngine
from lapha.integrations import RolloutRecord, shape_rollouts
from lapha.search import Search, SearchConfig, SearchResult
from lapha.tiny import BREADTH, DEPTH_LIMIT, SEARCH, load_tiny, problems, verify
from lapha.types import Status


def records_of(result: SearchResult, verify: Callable[[str, str], bool]) -> list[RolloutRecord]:
    """One record a node. Only differences to the root's h count, so the root-centred latents will do as h."""
    tree = result.tree
    hidden = result.latents.to_tangent() * math.sqrt(result.latents.dim)
    return [
        RolloutRecord(
            key=(result.index, node),
            parent=(result.index, int(tree.parent[node])) if node else None,
            hidden=hidden[node],
            terminal=tree.status[node] != Status.OPEN,
            correct=tree.answer[node] is not None and verify(result.question, tree.answer[node]),
            well_formed=bool(tree.well_formed[node]),
        )
        for node in range(len(tree))
    ]


def train(
    steps: int = 5, questions: int = 8, simulations: int = 8, learning_rate: float = 2e-4, seed: int = 0
) -> list[dict[str, float]]:
    """Returns one row of numbers a step."""
    torch.manual_seed(seed)
    model, tokenizer, head = load_tiny()
    engine = TransformersEngine(model, tokenizer, head)
    optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=learning_rate, weight_decay=0.0)
    asked = [problem.question for problem in problems.generate(steps * questions, seed=seed, split="train")]
    log = []
    for step in range(steps):
        config = SearchConfig(
            simulations=simulations, breadth=BREADTH, depth_limit=DEPTH_LIMIT, sampling=SEARCH, seed=seed + step,
            first_chain=False, merge_twins=False,  # groups of independent samples
        )  # fmt: skip
        batch = asked[step * questions : (step + 1) * questions]
        results = list(Search(engine, config=config).run(batch))
        records = [record for result in results for record in records_of(result, verify)]
        shaped = shape_rollouts(records)

        # Rows: the sampled steps that have an advantage. Trees without a correct leaf have NaN, and no row.
        rows = [index for index, advantage in enumerate(shaped.advantage.tolist()) if not math.isnan(advantage)]
        if not rows:
            print(f"step {step}: no tree with a correct leaf, nothing to learn from", flush=True)
            continue
        nodes = [records[row].key for row in rows]
        contexts = [torch.tensor(results[tree].tree.context_ids(node)) for tree, node in nodes]
        sampled = [len(results[tree].tree.sampled_ids(node)) for tree, node in nodes]

        ids = pad_sequence(contexts, batch_first=True, padding_value=tokenizer.pad_token_id)
        lengths = torch.tensor([len(context) for context in contexts])
        position = torch.arange(ids.shape[1])
        real = position < lengths[:, None]
        hidden = model.get_decoder()(input_ids=ids, attention_mask=real.long(), use_cache=False).last_hidden_state

        # Policy: log-probabilities of the sampled tokens alone; the vocabulary is never spread over the prompts.
        is_sampled = real & (position >= (lengths - torch.tensor(sampled))[:, None])
        scored = is_sampled[:, 1:]
        logits = model.lm_head(hidden[:, :-1][scored]).float()
        logprob = -torch.nn.functional.cross_entropy(logits, ids[:, 1:][scored], reduction="none")
        advantage = shaped.advantage[rows][:, None].expand_as(scored)[scored]
        policy_loss = -(advantage * logprob).mean()

        # Value: v̂ of the mean-pooled state against V.
        pooled = (hidden * real[..., None]).sum(1) / lengths[:, None]
        value_loss = (head(pooled) - shaped.potential[rows]).square().mean()

        optimizer.zero_grad()
        (policy_loss + value_loss).backward()
        torch.nn.utils.clip_grad_norm_([*model.parameters(), *head.parameters()], 1.0)
        optimizer.step()
        engine.invalidate()  # keys, values and pooled states of the old weights
        solved = sum(any(record.correct for record in records if record.key[0] == tree) for tree in range(len(batch)))
        log.append(
            {
                "step": step,
                "rows": len(rows),
                "solved_trees": solved / len(batch),
                "policy_loss": float(policy_loss.detach()),
                "value_loss": float(value_loss.detach()),
            }
        )
        print("  ".join(f"{name} {value:.4g}" for name, value in log[-1].items()), flush=True)
    engine.close()
    return log


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--questions", type=int, default=8, help="trees a step")
    train(**vars(parser.parse_args()))
