"""Data sets of images with labelled concepts in Broden's format: reading, writing, checking and packing."""

from prunescope.concepts.broden import ConceptData, open_concepts, permute_labels
from prunescope.concepts.check import Check, check_concepts
from prunescope.concepts.download import download_broden
from prunescope.concepts.in_memory import ArrayConcepts, from_arrays
from prunescope.concepts.packed import pack_concepts, packed_size
from prunescope.concepts.pixels import ImageLabels
from prunescope.concepts.problems import Problem
from prunescope.concepts.protocol import Concepts
from prunescope.concepts.sample import sample_concepts
from prunescope.concepts.write import LabelledImage, write_concepts

__all__ = [
    "ArrayConcepts",
    "Check",
    "ConceptData",
    "Concepts",
    "ImageLabels",
    "LabelledImage",
    "Problem",
    "check_concepts",
    "download_broden",
    "from_arrays",
    "open_concepts",
    "pack_concepts",
    "packed_size",
    "permute_labels",
    "sample_concepts",
    "write_concepts",
]
