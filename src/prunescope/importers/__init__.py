"""Write data sets in Broden's format from labels in other formats."""

from prunescope.importers.coco import import_coco
from prunescope.importers.folders import import_folders
from prunescope.importers.huggingface import import_huggingface
from prunescope.importers.masks import import_masks
from prunescope.importers.merging import merge_concepts
from prunescope.importers.voc import import_voc

__all__ = ["import_coco", "import_folders", "import_huggingface", "import_masks", "import_voc", "merge_concepts"]
