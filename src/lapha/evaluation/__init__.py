"""Evaluation: problems in, an honest table out. Grading happens here, after the search, and never inside it.

Names are imported when first used: grader processes start without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lapha._imports import lazy_exports

_EXPORTS = {
    "GraderPool": "lapha.evaluation.grading.pool",
    "Interval": "lapha.evaluation.intervals",
    "Verdict": "lapha.evaluation.grading",
    "canonical_math": "lapha.evaluation.grading.voting",
    "mean_interval": "lapha.evaluation.intervals",
    "calibration": "lapha.evaluation.intervals",
    "extract_answer": "lapha.evaluation.grading.extraction",
    "grade_answer": "lapha.evaluation.grading",
    "paired_interval": "lapha.evaluation.intervals",
    "maj_at_k": "lapha.evaluation.intervals",
    "pass_at_k": "lapha.evaluation.intervals",
}

__all__ = sorted(_EXPORTS)

if TYPE_CHECKING:
    from lapha.evaluation.grading import Verdict as Verdict
    from lapha.evaluation.grading import grade_answer as grade_answer
    from lapha.evaluation.grading.extraction import extract_answer as extract_answer
    from lapha.evaluation.grading.pool import GraderPool as GraderPool
    from lapha.evaluation.grading.voting import canonical_math as canonical_math
    from lapha.evaluation.intervals import Interval as Interval
    from lapha.evaluation.intervals import calibration as calibration
    from lapha.evaluation.intervals import maj_at_k as maj_at_k
    from lapha.evaluation.intervals import mean_interval as mean_interval
    from lapha.evaluation.intervals import paired_interval as paired_interval
    from lapha.evaluation.intervals import pass_at_k as pass_at_k


__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
