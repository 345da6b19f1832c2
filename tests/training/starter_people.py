"""A few people in files, as the starter's trainings take them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import soundfile

from edgepin_training.starter_data import StarterData


def quiet(*_: Any) -> None:
    """A progress that nobody looks at."""


def write_people(root: Path, people: int = 4) -> StarterData:
    """Two faces and two voices of each, and as many voices of unknown speakers; twelve rendered people."""
    rng = np.random.default_rng(0)
    for person in range(people):
        for capture in range(2):
            folder = root / "faces" / f"p{person}"
            folder.mkdir(parents=True, exist_ok=True)
            face = np.clip(rng.normal(40 + 50 * person, 20, (64, 64, 3)), 0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / f"{capture}.png"), face)
            for where in (root / "voices" / f"s{person}", root / "more"):
                where.mkdir(parents=True, exist_ok=True)
                time = np.arange(40_000) / 16_000
                tone = (
                    0.3 * np.sin(2 * np.pi * 200 * (person + 1) * time) * (np.sin(2 * np.pi * 6 * time) > 0)
                )
                soundfile.write(
                    where / f"{person}{capture}.wav", tone + rng.normal(0, 0.003, len(time)), 16_000
                )
    return StarterData(
        root / "faces", root / "voices", root / "more", rendered_people=12, rendered_captures=2
    )
