"""How much a degradation of faces harms an encoder: the equal error rate, and dlib's encoder as a strong one to ask."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgepin._capture.image import decode_image
from edgepin.metrics import eer

from .quality_changes import Image, face_changes


def equal_error(rows: NDArray[np.float32], probes: NDArray[np.float32], people: list[str]) -> float | None:
    """EER of every capture's embedding against every other capture, degraded; None without probes."""
    kept = np.isfinite(probes).all(axis=1)
    scores = rows @ probes.T
    same = np.array(people)[:, None] == np.array(people)[None, :]
    use = ~np.eye(len(people), dtype=bool) & kept[None, :]
    if not (same & use).any():
        return None
    return round(eer(scores[use], same[use]), 4)


def measure_by_dlib(data: Path, every: int) -> dict[str, Any]:
    """What the same degradations do to a strong encoder: dlib's, on two crops of each of 45 people."""
    import dlib
    import face_recognition_models

    encoder = dlib.face_recognition_model_v1(face_recognition_models.face_recognition_model_location())
    folders = [sorted(folder.iterdir())[:2] for folder in sorted(data.glob("lfwcrop/calibration/*"))]
    paths = [path for pair in [pair for pair in folders if len(pair) == 2][: 45 // every] for path in pair]
    faces, people = [decode_image(path) for path in paths], [path.parent.name for path in paths]

    def embed(face: Image) -> NDArray[np.float32]:
        wide = cv2.copyMakeBorder(face, 8, 8, 8, 8, cv2.BORDER_REPLICATE)
        chip = cv2.resize(wide, (150, 150), interpolation=cv2.INTER_CUBIC)
        row = np.array(encoder.compute_face_descriptor(np.ascontiguousarray(chip)), dtype=np.float32)
        return row / np.linalg.norm(row)

    result: dict[str, Any] = {}
    clean = np.stack([embed(face) for face in faces])
    for name, change in {"none": lambda face: face, **face_changes()}.items():
        degraded = clean if name == "none" else np.stack([embed(change(face)) for face in faces])
        result[name] = {"captures": len(faces), "eer": equal_error(clean, degraded, people)}
        print(f"face by dlib, {name}: {result[name]}", file=sys.stderr)
    return result
