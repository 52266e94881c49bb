"""Compute curves and consistency from the tables of a study, without needing its networks."""

from prunescope.evidence.record import write_evidence
from prunescope.evidence.tables import category_columns, consistency, curves, interpretable

__all__ = ["category_columns", "consistency", "curves", "interpretable", "write_evidence"]
