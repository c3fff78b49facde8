"""One process of a rollout: a trainer on the embedded policy that grows its own questions' trees when told to.

Started by `bench_rollout` with the environment of torch.distributed; reads a line for every rollout. All processes of a
group start together and wait for the last; the first one answers with a JSON line: seconds, and nodes of its own trees.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from typing import Any

import torch

from lapha.agent import ChatEnvironment
from lapha.tiny import BREADTH, DEPTH_LIMIT, SEARCH, load_tiny, problems
from lapha.tiny.problems import TinyVerifier


def main() -> None:
    spec = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(folder, spec["trees"], spec["simulations"])
        rank, world = trainer.accelerator.process_index, trainer.accelerator.num_processes
        questions = [problem.question for problem in problems.generate(world * spec["trees"], seed=0)]
        own = questions[rank * spec["trees"] : (rank + 1) * spec["trees"]]
        while sys.stdin.readline().strip():
            trainer.accelerator.wait_for_everyone()
            began = time.perf_counter()
            trees = trainer.rollout.grow(own, trainer)
            trainer.accelerator.wait_for_everyone()
            seconds = time.perf_counter() - began
            if rank == 0:
                nodes = sum(len(shaped.tree) for shaped in trees)
                print(json.dumps({"seconds": seconds, "nodes": nodes}), file=answers, flush=True)
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def make_trainer(folder: str, trees: int, simulations: int) -> Any:
    """A `LaPhaTrainer` on the embedded policy that would train on `trees` trees a step on every process."""
    from datasets import Dataset

    from lapha.integrations.trl import LaPhaConfig, LaPhaTrainer, TreeRollout

    model, tokenizer, head = load_tiny()
    args = LaPhaConfig(
        output_dir=folder,
        per_device_train_batch_size=trees * BREADTH,
        num_generations=BREADTH,
        max_completion_length=SEARCH.max_tokens,
        temperature=SEARCH.temperature,
        top_p=SEARCH.top_p,
        top_k=SEARCH.top_k,
        repetition_penalty=SEARCH.repetition_penalty,
        beta=0.0,
        simulations=simulations,
        depth_limit=DEPTH_LIMIT,
        num_positive=0,  # every tree takes all its simulations
        tree_concurrency=trees,
        use_cpu=True,
        bf16=False,
        report_to="none",
        disable_tqdm=True,
    )
    rollout = TreeRollout(
        TinyVerifier(),
        search=args.search_config(),
        shaping=args.shaping_config(),
        num_positive=args.num_positive,
        concurrency=args.tree_concurrency,
        environment=lambda tokenizer: ChatEnvironment(tokenizer, depth_limit=DEPTH_LIMIT, context_limit=512),
    )
    data = Dataset.from_dict({"prompt": ["unused"] * trees})
    return LaPhaTrainer(model, args, rollout=rollout, value_head=head, processing_class=tokenizer, train_dataset=data)


if __name__ == "__main__":
    main()
