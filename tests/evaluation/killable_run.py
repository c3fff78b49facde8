"""An evaluation with the scripted engine, small enough to be run many times; `kill_often.py` kills it."""

from lapha.engines import ScriptedEngine
from lapha.evaluation.grading import Verdict
from lapha.evaluation.modes import MODES, ModeRunner
from lapha.evaluation.results import grade_run
from lapha.evaluation.run_folder import RunFolder
from lapha.evaluation.runner import EvaluationRun
from lapha.search import SearchConfig

# the third question occurs twice
QUESTIONS = [f"question {index}" for index in range(7)] + ["question 2"]


def evaluate(
    path,
    latency=0.0,
    concurrency=3,
    force=False,
    on_outcome=None,
    questions=QUESTIONS,
    simulations=6,
    settings=None,
    fail=None,
):
    """Run (or go on with) the evaluation in `path` and grade it: the answer "3" is right, "7" cannot be graded.

    `fail` is the engine's: it makes requests fail.
    """
    config = SearchConfig(simulations=simulations, breadth=3, depth_limit=5, seed=1)
    about = {"simulations": simulations, "questions": len(questions), "nested": {"seed": 1}}
    folder = RunFolder(path, about | (settings or {}), force=force)
    run = EvaluationRun(
        folder,
        questions,
        list(MODES),
        lambda on_outcome, on_search: ModeRunner(
            ScriptedEngine(answer_rate=0.3, latency=latency, capacity=12, fail=fail),
            config,
            concurrency=concurrency,
            on_outcome=on_outcome,
            on_search=on_search,
        ),
        on_outcome=on_outcome,
    )
    try:
        run.run()
    finally:
        folder.close()
    return grade_run(path, grade)


def grade(pairs):
    return [Verdict(None if answer == "7" else answer == "3", "exact") for _, answer in pairs]
