"""Value-guided search over vLLM servers: questions from a JSONL file in, answers out.

    vllm serve MODEL --port 8000
    vllm serve MODEL --port 8001 --runner pooling --convert embed \\
        --pooler-config '{"pooling_type": "MEAN", "use_activation": false}'
    python examples/vllm_search.py MODEL VALUE_HEAD_FOLDER questions.jsonl answers.jsonl

A run that is interrupted goes on where it stopped: finished trees are kept in the folder answers.jsonl.journal; questions
that failed have an "error", and are tried again by the next run.
"""

import asyncio
import json
import sys
from pathlib import Path

from lapha.engines import VLLMServerEngine
from lapha.latent import ValueHead
from lapha.search import Search, SearchConfig


async def main(model: str, head: str, source: str, target: str, urls: list[str], pooling_urls: list[str]) -> None:
    lines = Path(source).read_text().splitlines()
    questions = [json.loads(line)["question"] for line in lines if line.strip()]
    engine = VLLMServerEngine(
        urls, tokenizer=model, pooling_urls=pooling_urls, value_head=ValueHead.from_pretrained(head)
    )
    search = Search(engine, config=SearchConfig(simulations=32))
    kept = {"journal": target + ".journal", "on_error": "record"}
    with Path(target).open("w") as answers:
        async for result in search.arun(questions, concurrency=64, **kept):
            value = None if result.answer is None else result.value  # NaN is no JSON
            row = {"index": result.index, "question": result.question, "answer": result.answer, "value": value}
            print(json.dumps(row | {"error": result.error}), file=answers, flush=True)
    await engine.aclose()


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    asyncio.run(main(*sys.argv[1:5], ["http://127.0.0.1:8000"], ["http://127.0.0.1:8001"]))
