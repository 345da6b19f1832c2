from __future__ import annotations

from pathlib import Path

import pytest

from edgepin_training.data.index import Index
from edgepin_training.data.layouts import find_layout
from edgepin_training.data.scan import scan
from edgepin_training.data.splits import read_splits

from .voxceleb import write_lists, write_voxceleb1


@pytest.fixture
def vox(tmp_path: Path) -> Path:
    """A data set in VoxCeleb1's layout, at `vox1`, with its lists beside it, at `lists`."""
    write_voxceleb1(tmp_path / "vox1")
    write_lists(tmp_path / "lists")
    return tmp_path / "vox1"


@pytest.fixture
def index(vox: Path) -> Index:
    return scan(find_layout(vox), cropped=True, splits=read_splits(vox.parent / "lists"))
