"""How much of the oracle can be reached at all: what the private factors leave to be seen of the shared ones.

    python -m benchmarks.visible_factors --json benchmarks/results/visible_factors.json

The oracle sees the factors themselves. A capture shows, at best, every number that it was drawn or voiced from (the chin's
height, the pitch, ...), and these mix shared with private factors. For small steps the mixing is linear, so the shared factors'
best estimate from all those numbers is a Gaussian posterior; its share of their variance, averaged over people, scales the
correlation between face and voice that is left, and with it the best AUC. `--noise` is the standard deviation with which each
number is seen, as a share of its largest change by one factor's standard deviation. No capture of a camera or microphone enters,
so that what a method can reach lies lower still.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepin._safe_files import write_atomic
from edgepin.metrics import auc
from edgepin_training.rendered import (
    FACE_FACTORS,
    SETTINGS,
    SHARED_FACTORS,
    VOICE_FACTORS,
    Person,
    Setting,
    oracle_auc,
)
from edgepin_training.rendered._face_shape import face_shape
from edgepin_training.rendered._speech import voice_shape

Floats = NDArray[np.float64]
SHARED = len(SHARED_FACTORS)
COUNTS = {"face": len(FACE_FACTORS), "voice": len(VOICE_FACTORS)}
PEOPLE, STEP, PAIRS = 60, 1e-3, 200_000


def drawn_from(modality: str, shown: Floats) -> Floats:
    """Every number that captures of a modality are made from, given the traits as they are shown."""
    factors = {name: np.zeros(count) for name, count in COUNTS.items()}
    factors[modality][SHARED:] = shown[SHARED:]
    # At difficulty 0 the expressed factors are the shared ones.
    person = Person(shown[:SHARED], factors["face"], factors["voice"], setting=Setting(0.0))
    shape = face_shape(person) if modality == "face" else voice_shape(person)
    values = [np.ravel(getattr(shape, field.name)) for field in dataclasses.fields(shape)]
    return np.concatenate(values).astype(np.float64)


def visible(modality: str, private: float, noise: float) -> Floats:
    """The share of each shared factor's variance that the best estimate explains, (4,), averaged over people."""
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(PEOPLE):
        at = rng.standard_normal(COUNTS[modality]) * np.where(
            np.arange(COUNTS[modality]) < SHARED, 1.0, private
        )
        steps = STEP * np.eye(len(at))
        slopes = np.stack(
            [(drawn_from(modality, at + d) - drawn_from(modality, at - d)) / (2 * STEP) for d in steps],
            axis=1,
        )
        largest = np.abs(slopes).max(axis=1)
        slopes = slopes[largest > 0] / largest[largest > 0, None]
        hidden = private**2 * slopes[:, SHARED:] @ slopes[:, SHARED:].T + noise**2 * np.eye(len(slopes))
        information = slopes[:, :SHARED].T @ np.linalg.solve(hidden, slopes[:, :SHARED])
        shares.append(1.0 - np.diag(np.linalg.inv(information + np.eye(SHARED))))
    return np.asarray(np.mean(shares, axis=0))


def best_auc(correlations: Floats) -> float:
    """The AUC of the likelihood ratio of factors with these correlations, by drawing pairs."""
    rng = np.random.default_rng(0)
    r = correlations
    x = rng.standard_normal((PAIRS, len(r)))
    y = r * x + np.sqrt(1 - r * r) * rng.standard_normal(x.shape)

    def llr(one: Floats, other: Floats) -> Floats:
        quadratic = r**2 * (one**2 + other**2) - 2 * r * one * other
        return np.asarray(-(quadratic / (2 * (1 - r**2))).sum(axis=1))

    scores = np.concatenate([llr(x, y), llr(x, np.roll(y, 1, axis=0))])
    return auc(scores, np.repeat([True, False], PAIRS))


def measure(setting: Setting, noise: float) -> dict[str, Any]:
    shares = {modality: visible(modality, setting.private, noise) for modality in COUNTS}
    reached = best_auc(np.square(setting.expression) * np.sqrt(shares["face"] * shares["voice"]))
    best = oracle_auc(setting)
    return {
        "difficulty": setting.difficulty,
        "private": setting.private,
        "noise": noise,
        "oracle": best,
        "auc": reached,
        "share_of_oracle": (reached - 0.5) / (best - 0.5),
        "visible": {
            modality: dict(zip(SHARED_FACTORS, np.round(share, 4).tolist(), strict=True))
            for modality, share in shares.items()
        },
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--noise", type=float, nargs="*", default=[0.001, 0.1])
    told = parser.parse_args(arguments)
    settings = {**SETTINGS, "reference with private factors of 0.2": Setting(1.3, 0.2)}
    rows = [
        {"setting": name, **measure(setting, noise)}
        for name, setting in settings.items()
        for noise in told.noise
    ]
    for row in rows:
        print(f"{row['setting']}, noise {row['noise']}: {100 * row['share_of_oracle']:.1f} % of the oracle")
    write_atomic(told.json, [(json.dumps(rows, indent=1) + "\n").encode()])


if __name__ == "__main__":
    main()
