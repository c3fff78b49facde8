"""Is an answer the gold answer, and which answers are one: one notion of value for grading and voting, no torch."""

from lapha.evaluation.grading.extraction import extract_answer
from lapha.evaluation.grading.forms import AnswerForm, read_form, same_form
from lapha.evaluation.grading.golds import gold_faults
from lapha.evaluation.grading.pool import GraderPool
from lapha.evaluation.grading.spelling import normalize_answer
from lapha.evaluation.grading.verdicts import Verdict, grade_answer, plain_verdict
from lapha.evaluation.grading.voting import canonical_math

__all__ = [
    "AnswerForm",
    "GraderPool",
    "Verdict",
    "canonical_math",
    "extract_answer",
    "gold_faults",
    "grade_answer",
    "normalize_answer",
    "plain_verdict",
    "read_form",
    "same_form",
]
