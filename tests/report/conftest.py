from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from prunescope.concepts import ConceptData, open_concepts

SIZE = (12, 16)


@pytest.fixture(scope="session")
def concepts(tmp_path_factory: pytest.TempPathFactory) -> ConceptData:
    """Six images of 12 x 16 pixels, each in a grey of its own, with a concept on them."""
    root = tmp_path_factory.mktemp("concepts")
    (root / "images").mkdir()
    lines = ["image,split,ih,iw,sh,sw,object"]
    for number in range(6):
        Image.fromarray(np.full((*SIZE, 3), 100 + 20 * number, np.uint8)).save(root / "images" / f"{number}.png")
        Image.fromarray(np.full((*SIZE, 3), (1, 0, 0), np.uint8)).save(root / "images" / f"{number}_object.png")
        lines.append(f"{number}.png,train,12,16,12,16,{number}_object.png")
    (root / "index.csv").write_text("\n".join(lines) + "\n")
    (root / "category.csv").write_text("name,first,last,count,frequency\nobject,1,1,1,1.0\n")
    (root / "label.csv").write_text("number,name,category,frequency,coverage,syndrome\n1,dog,object(6),6,6.0,1\n")
    return open_concepts(root)
