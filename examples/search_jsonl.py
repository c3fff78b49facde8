"""Value-guided search with a model on this machine: questions from a JSONL file in, answers out.

    python examples/search_jsonl.py MODEL VALUE_HEAD_FOLDER questions.jsonl answers.jsonl

Each line of the input is {"question": …}. A run that is interrupted goes on where it stopped: finished trees are kept in
the folder answers.jsonl.journal; questions that failed have an "error", and are tried again by the next run.
For a vLLM server see vllm_search.py: only the engine differs.
"""

import json
import sys
from pathlib import Path

from lapha.engines import TransformersEngine
from lapha.search import Search, SearchConfig


def main(model: str, head: str, source: str, target: str) -> None:
    lines = Path(source).read_text().splitlines()
    questions = [json.loads(line)["question"] for line in lines if line.strip()]
    search = Search(TransformersEngine.from_pretrained(model, value_head=head), config=SearchConfig(simulations=32))
    kept = {"journal": target + ".journal", "on_error": "record"}
    with Path(target).open("w") as answers:
        for result in search.run(questions, concurrency=32, progress=True, **kept):
            value = None if result.answer is None else result.value  # NaN is no JSON
            row = {"index": result.index, "question": result.question, "answer": result.answer, "value": value}
            print(json.dumps(row | {"error": result.error}), file=answers, flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*sys.argv[1:5])
