"""Compute curves and consistency from the tables of a study, without needing its networks."""

from prunescope.evidence.by_concept import concepts_still_detected, matched_by_concept
from prunescope.evidence.consistency import consistency
from prunescope.evidence.record import write_evidence
from prunescope.evidence.tables import category_columns, curves
from prunescope.evidence.units import interpretable

__all__ = [
    "category_columns",
    "concepts_still_detected",
    "consistency",
    "curves",
    "interpretable",
    "matched_by_concept",
    "write_evidence",
]
