"""``lapha eval``: modes over problems, into one resumable folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def evaluate(
    model: Annotated[str, typer.Option(help="'tiny', a folder, or a model's name on the Hugging Face hub.")] = "tiny",
    data: Annotated[
        str, typer.Option(help="'tiny', a .jsonl/.json/.csv/.parquet file, or a name such as math-500.")
    ] = "tiny",
    modes: Annotated[
        str, typer.Option(help="Of single, react, value, majority, best-of-n, with commas.")
    ] = "single,value",
    out: Annotated[Path | None, typer.Option(help="The run's folder; default: runs/MODEL-DATA.")] = None,
    simulations: Annotated[int, typer.Option(help="Expansions of one tree.")] = 32,
    breadth: Annotated[int | None, typer.Option(help="Steps sampled by one expansion; default: the model's.")] = None,
    depth: Annotated[
        int | None, typer.Option(help="Most steps of one line of reasoning; default: the model's.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature; default: the model's.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Most tokens of one step.")] = None,
    context_limit: Annotated[int, typer.Option(help="Most tokens of a context.")] = 4096,
    c_puct: Annotated[
        float | None, typer.Option(help="Weight of the policy's prior in the search; default: the model's.")
    ] = None,
    max_expands: Annotated[int | None, typer.Option(help="Most expansions of one state; default: the model's.")] = None,
    prune_every: Annotated[int, typer.Option(help="Prune trees after so many simulations; 0 never.")] = 0,
    answer: Annotated[str | None, typer.Option(help="Answer rule; default: 'value', or 'vote' without a head.")] = None,
    samples: Annotated[
        int | None, typer.Option(help="Chains of majority and best-of-n; default: as many tokens as value.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many problems.")] = None,
    shard: Annotated[str | None, typer.Option(help="i/n: every n-th problem from the i-th.")] = None,
    shuffle_seed: Annotated[int | None, typer.Option(help="Shuffle the problems first.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of all sampling.")] = 0,
    concurrency: Annotated[int, typer.Option(help="Trees and chains in flight at once.")] = 32,
    value_head: Annotated[str | None, typer.Option(help="Folder of a value head; default: the model's own.")] = None,
    gguf_file: Annotated[str | None, typer.Option(help="Name of a GGUF file in the model's folder.")] = None,
    tools: Annotated[str, typer.Option(help="'none', or 'python' to run code in the sandbox.")] = "none",
    sandbox: Annotated[
        str, typer.Option(help="'monty', 'bubblewrap' or a server's address, for --tools python.")
    ] = "monty",
    server: Annotated[
        str | None, typer.Option(help="vLLM servers to sample from, with commas; --model is then the tokenizer.")
    ] = None,
    pooling_server: Annotated[str | None, typer.Option(help="vLLM pooling servers for h(s), with commas.")] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Grade this *.pred.jsonl of the reference; run no model.")
    ] = None,
    judge_url: Annotated[
        str | None, typer.Option(help="OpenAI-compatible server to grade what nothing else can.")
    ] = None,
    judge_model: Annotated[str, typer.Option(help="The judge's model.")] = "judge",
    graders: Annotated[int, typer.Option(help="Grader processes.")] = 2,
    trees: Annotated[bool, typer.Option(help="Keep the searched trees.")] = True,
    force: Annotated[bool, typer.Option("--force", help="Start anew in a folder that holds a run.")] = False,
) -> int:
    """Evaluate a model; interrupted or killed, the same command goes on where it was. Exit 1 if a problem failed."""
    from lapha.cli._evaluation import EvaluationCommand

    settings: dict[str, Any] = {
        "model": model, "value_head": value_head, "gguf_file": gguf_file, "data": data,
        "modes": [mode.strip() for mode in modes.split(",") if mode.strip()], "simulations": simulations,
        "breadth": breadth, "depth": depth, "temperature": temperature, "max_tokens": max_tokens,
        "context_limit": context_limit, "c_puct": c_puct, "max_expands": max_expands, "prune_every": prune_every,
        "answer": answer, "samples": samples,
        "limit": limit, "shard": shard, "shuffle_seed": shuffle_seed, "seed": seed, "tools": tools, "sandbox": sandbox,
        "engine": "vllm" if server else "transformers",
    }  # fmt: skip
    if predictions is not None:
        settings |= {"model": None, "modes": ["single"], "predictions": str(predictions)}
    folder = out or Path("runs") / f"{(predictions or Path(model)).name}-{Path(data).stem}"
    command = EvaluationCommand(
        settings,
        folder,
        concurrency=concurrency,
        keep_trees=trees,
        force=force,
        servers=server,
        pooling_servers=pooling_server,
        graders=graders,
        judge_url=judge_url,
        judge_model=judge_model,
    )
    if predictions is not None:
        return command.score(predictions)
    return command.run()
