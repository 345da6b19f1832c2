"""Real people whom nothing was calibrated on are falsely matched no more often than the thresholds promise.

The encoders here are crude (whitened pixels, statistics of the log-mel): what is held is the decision, which must keep its
rates whatever encoder it is given. `benchmarks/error_rates.py` does the same with a bundle's encoders.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.error_rates import Split, calibrated, make_split, measured_rates

from edgepin._capture.audio import load_voice
from edgepin._capture.image import decode_image
from edgepin._decision.fusion import Fusion
from edgepin._decision.trials import read_chimeras
from edgepin_kernels import LogMel, LogMelSpec

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not DATA.is_dir(), reason="the real faces and voices are not beside the checkout"),
]
FACE_DIMENSIONS, VOICE_DIMENSIONS = 60, 30


def pixels(path: Path) -> np.ndarray:
    """(256,): gray means of a 16 x 16 grid, without their mean and contrast."""
    image = decode_image(path).astype(np.float64).mean(axis=2)
    side = 16 * (min(image.shape) // 16)
    grid = image[:side, :side].reshape(16, side // 16, 16, side // 16).mean(axis=(1, 3)).ravel()
    return (grid - grid.mean()) / (grid.std() + 1e-6)


LOG_MEL = LogMel(LogMelSpec.preset("kaldi"))


def statistics(path: Path) -> np.ndarray:
    """(160,): mean and standard deviation over time of the log-mel."""
    frames = LOG_MEL(load_voice(path))
    return np.concatenate([frames.mean(axis=0), frames.std(axis=0)]).astype(np.float64)


def whitening(rows: np.ndarray, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean of training rows, and the map onto their principal components with unit variance."""
    mean = rows.mean(axis=0)
    _, scale, directions = np.linalg.svd(rows - mean, full_matrices=False)
    return mean, directions[:dimensions].T / scale[:dimensions]


def embedded(split: str) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for modality, folder, pattern, measure, dimensions, every in (
        ("face", DATA / "lfwcrop", "*/*.jpg", pixels, FACE_DIMENSIONS, 6),
        ("voice", DATA / "librispeech", "*/*.flac", statistics, VOICE_DIMENSIONS, 2),
    ):
        train = sorted((folder / "train").glob(pattern))[::every]
        mean, transform = whitening(np.stack([measure(path) for path in train]), dimensions)
        files = sorted((folder / split).glob(pattern))
        rows = (np.stack([measure(path) for path in files]) - mean) @ transform
        rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        arrays[f"{modality}_identity"] = rows
        arrays[f"{modality}_pin"] = rows[:, :VOICE_DIMENSIONS]  # of one length; not used
        arrays[f"{modality}_owner"] = np.array([path.parent.name for path in files])
    return arrays


def split(name: str, chimeras: str) -> Split:
    pairs = {speaker: one.face for speaker, one in read_chimeras(DATA / "trials" / chimeras).items()}
    return make_split(embedded(name), pairs)


@pytest.fixture(scope="module")
def fusion() -> Fusion:
    return calibrated(split("calibration", "chimeras_calibration.tsv"))


@pytest.fixture(scope="module")
def rates(fusion: Fusion) -> list[dict[str, Any]]:
    return list(measured_rates(fusion, split("eval", "chimeras.tsv"), replicates=200))


def test_no_kind_of_impostor_lies_above_its_policy(rates: list[dict[str, Any]]) -> None:
    assert [row for row in rates if not row["holds"]] == []


def test_faces_of_300_people_carry_one_in_a_thousand_and_700_others_keep_it(
    rates: list[dict[str, Any]],
) -> None:
    single = {row["fmr"]: row for row in rates if (row["set"], row["attempts"]) == ("face", 1)}
    assert 1e-3 in single
    assert single[1e-3]["calibration_pairs"] == 44_850
    assert single[1e-3]["pairs"] == 244_650
    assert single[1e-3]["measured"]["low"] <= 1e-3
    # Loose thresholds are near their mark: the promise is not kept by refusing everyone.
    assert single[0.1]["measured"]["rate"] > 0.05


def test_fourteen_chimeric_people_carry_no_rate_that_would_show_anything(fusion: Fusion) -> None:
    points = fusion.evidence.sets["face+voice"].points
    assert all(point.fmr >= 0.1 for point in points)  # ten people are 45 pairs


def test_sessions_of_real_faces_keep_their_rate_and_reject_fewer(rates: list[dict[str, Any]]) -> None:
    face = {(row["attempts"], row["fmr"]): row for row in rates if row["set"] == "face"}
    assert (3, 0.05) in face
    assert face[3, 0.05]["measured"]["low"] <= 0.05
    assert face[3, 0.05]["fnmr"]["rate"] < face[1, 0.05]["fnmr"]["rate"]
