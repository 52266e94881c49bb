"""Curves and consistency: numbers read from a study's tables, with no network at hand."""

from prunescope.evidence.record import write_evidence
from prunescope.evidence.tables import category_columns, consistency, curves, interpretable

__all__ = ["category_columns", "consistency", "curves", "interpretable", "write_evidence"]
