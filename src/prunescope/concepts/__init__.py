"""Labelled images: Broden's format, read, checked and downloaded."""

from prunescope.concepts.broden import ConceptData, open_concepts, permuted
from prunescope.concepts.pixels import ImageLabels

__all__ = ["ConceptData", "ImageLabels", "open_concepts", "permuted"]
