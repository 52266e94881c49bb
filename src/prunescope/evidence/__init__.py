"""Compute curves, consistency and the verdict from the tables of a study; no networks are needed."""

from prunescope.dissection.resampling import PairTally, Resampled, block_weights, resample_units
from prunescope.dissection.scores import interpretable
from prunescope.evidence.by_concept import concepts_still_detected, matched_by_concept
from prunescope.evidence.claims import claims
from prunescope.evidence.comparison import Comparison, compare_studies
from prunescope.evidence.consistency import consistency
from prunescope.evidence.fates import fates
from prunescope.evidence.of_images import changed_images, class_accuracy, study_predictions
from prunescope.evidence.over_trials import over_trials
from prunescope.evidence.overview import Overview, show
from prunescope.evidence.reading import read_evidence
from prunescope.evidence.record import Evidence, study_evidence, write_evidence
from prunescope.evidence.sensitivity import sensitivity
from prunescope.evidence.tables import category_columns, curves
from prunescope.evidence.verdict import Replicates, Verdict, verdict

__all__ = [
    "Comparison",
    "Evidence",
    "Overview",
    "PairTally",
    "Replicates",
    "Resampled",
    "Verdict",
    "block_weights",
    "category_columns",
    "changed_images",
    "claims",
    "class_accuracy",
    "compare_studies",
    "concepts_still_detected",
    "consistency",
    "curves",
    "fates",
    "interpretable",
    "matched_by_concept",
    "over_trials",
    "read_evidence",
    "resample_units",
    "sensitivity",
    "show",
    "study_evidence",
    "study_predictions",
    "verdict",
    "write_evidence",
]
