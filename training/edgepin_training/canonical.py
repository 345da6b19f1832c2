"""Pins in closed form: the directions of two frozen encoders that vary together over people (Hotelling 1936).

Encoders that are trained on pairs of faces and voices end by knowing these pairs by heart, and what they agree on for new
people is buried under it. A few directions fitted on people of whom the encoders know nothing find it again. Canonical
correlations with a ridge (Vinod 1976): it takes the place of the many captures that there are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgepin._errors import UsageError
from edgepin.metrics import auc

Floats = NDArray[np.float64]

RIDGES = (0.1, 0.3, 1.0, 3.0, 10.0)
DIMENSIONS = (4, 8, 16, 32)
_LEAST = 20  # people
_APART = 5  # every fifth person chooses among these


@dataclass(frozen=True)
class Canonical:
    """Affine maps of what `heads.pin` takes: the cosine of their values says how well a face and a voice agree."""

    face: tuple[Floats, Floats]  # (dimensions, D), (dimensions,)
    voice: tuple[Floats, Floats]
    correlations: Floats  # (dimensions,), falling

    def strongest(self, dimensions: int) -> Canonical:
        face, voice = ((weight[:dimensions], bias[:dimensions]) for weight, bias in (self.face, self.voice))
        return Canonical(face, voice, self.correlations[:dimensions])

    def put_into(self, face: nn.Module, voice: nn.Module) -> None:
        """Replaces the `pin` maps of both encoders; what they give beyond `dimensions` is 0."""
        for encoder, (weight, bias) in ((face, self.face), (voice, self.voice)):
            pin = encoder.get_submodule("heads.pin")
            with torch.no_grad():
                for parameter, values in (
                    (pin.get_parameter("weight"), weight),
                    (pin.get_parameter("bias"), bias),
                ):
                    parameter.zero_()
                    parameter[: len(values)] = torch.from_numpy(values).to(parameter)


def fit_canonical(faces: Floats, voices: Floats, *, ridge: float, dimensions: int) -> Canonical:
    """The strongest `dimensions` directions, or as many as there are, each weighted by its correlation.

    Args:
        faces, voices: (people, captures, D), as many captures of each person; row i of both is person i.
        ridge: added to both covariances, in units of their mean eigenvalue.

    Raises:
        UsageError: fewer than 20 people.
    """
    if len(faces) < _LEAST:
        raise UsageError(f"canonical pins need {_LEAST} people with a face and a voice; {len(faces)} found")
    sides = [_Side.of(np.asarray(rows, np.float64), ridge) for rows in (faces, voices)]
    across = sides[0].people.T @ sides[1].people / len(faces)
    left, correlations, right = np.linalg.svd(sides[0].whitening @ across @ sides[1].whitening.T)
    correlations = correlations[:dimensions]
    maps = []
    for side, directions in zip(sides, (left.T, right), strict=True):
        weight = correlations[:, None] * (directions[: len(correlations)] @ side.whitening)
        maps.append((weight, -weight @ side.mean))
    return Canonical(maps[0], maps[1], correlations)


def choose_canonical(faces: Floats, voices: Floats) -> tuple[Canonical, dict[str, Any]]:
    """`fit_canonical` with the ridge and the dimensions that serve every fifth person best, fitted then on all of them.

    Returns it and what was chosen: `people`, `ridge`, `dimensions`, `auc` over the people kept apart.
    """
    apart = np.arange(len(faces)) % _APART == 0
    found = max(
        (_auc(fit.strongest(size), faces[apart], voices[apart]), ridge, size)
        for ridge in RIDGES
        for fit in [fit_canonical(faces[~apart], voices[~apart], ridge=ridge, dimensions=max(DIMENSIONS))]
        for size in DIMENSIONS
    )
    reached, ridge, size = found
    chosen = {"people": len(faces), "ridge": ridge, "dimensions": size, "auc": round(reached, 4)}
    return fit_canonical(faces, voices, ridge=ridge, dimensions=size), chosen


@dataclass(frozen=True)
class _Side:
    mean: Floats  # (D,)
    people: Floats  # (people, D): centered means over captures
    whitening: Floats  # (D, D): turns the captures' covariance, with the ridge, into the identity

    @classmethod
    def of(cls, rows: Floats, ridge: float) -> _Side:
        flat = rows.reshape(-1, rows.shape[-1])
        mean = flat.mean(axis=0)
        covariance = np.cov(flat, rowvar=False, bias=True)
        size = len(covariance)
        covariance += ridge * np.trace(covariance) / size * np.eye(size)
        return cls(mean, rows.mean(axis=1) - mean, np.linalg.inv(np.linalg.cholesky(covariance)))


def _auc(fit: Canonical, faces: Floats, voices: Floats) -> float:
    """Of every capture of a face against every capture of a voice."""
    pins = []
    for (weight, bias), rows in ((fit.face, faces), (fit.voice, voices)):
        values = rows.reshape(-1, rows.shape[-1]) @ weight.T + bias
        pins.append(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12))
    owners = [np.repeat(np.arange(len(rows)), rows.shape[1]) for rows in (faces, voices)]
    return auc((pins[0] @ pins[1].T).ravel(), (owners[0][:, None] == owners[1]).ravel())
