"""Value-guided tree search: many trees at once, over any policy, evaluator and environment.

No function here has a parameter through which a gold answer could enter (see ``docs/search.md``; a test enforces it).
"""

from lapha.search.answers import (
    ANSWER_RULES,
    VOTE_WEIGHTS,
    AnswerChoice,
    answer_rule,
    best_by_logprob,
    majority,
    soft_vote,
    value_top1,
    value_weighted_vote,
)
from lapha.search.canonical import normalize_answer
from lapha.search.config import AnswerRule, SearchConfig, SelectionRule
from lapha.search.features import FEATURES, leaf_features
from lapha.search.frontier import Frontier
from lapha.search.hooks import RunMeter, Stop, TerminalValue
from lapha.search.journal import Journal
from lapha.search.result import SearchResult
from lapha.search.scheduler import Search
from lapha.search.seeds import QuestionKeys, derived_seed
from lapha.search.selection import SELECTION_RULES, best_of_frontier, puct_descent

__all__ = [
    "ANSWER_RULES",
    "FEATURES",
    "SELECTION_RULES",
    "VOTE_WEIGHTS",
    "AnswerChoice",
    "AnswerRule",
    "Frontier",
    "Journal",
    "QuestionKeys",
    "RunMeter",
    "Search",
    "SearchConfig",
    "SearchResult",
    "SelectionRule",
    "Stop",
    "TerminalValue",
    "answer_rule",
    "best_by_logprob",
    "best_of_frontier",
    "derived_seed",
    "leaf_features",
    "majority",
    "normalize_answer",
    "puct_descent",
    "soft_vote",
    "value_top1",
    "value_weighted_vote",
]
