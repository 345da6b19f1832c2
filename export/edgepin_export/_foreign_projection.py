"""From a foreign encoder's embedding to our two of 256 dimensions: linear, in closed form, fitted on given people.

`identity`: fewer dimensions are padded with zeros, which leaves every cosine as it is. More are projected on the 256
directions that hold most of the embeddings' energy: of all projections to 256 dimensions that one changes the inner
products of the fitted embeddings least in sum of squares (Eckart and Young, 1936, on their Gram matrix). They are not
centered and not whitened, so that the encoder's own cosines survive.

`pin`: regularized canonical correlation analysis (Hotelling 1936; Vinod 1976) between the faces and voices of people of
whom both are known, each direction weighted by the root of its correlation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepin._bundle.manifest import EMBEDDING_DIM
from edgepin.metrics import eer

Floats = NDArray[np.float64]
Linear = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Weights (256, D) and offsets (256,)."""

MIN_PAIRS = 50
"""People with a face and a voice. An EER over fewer cannot be told from chance by less than 14 points."""
FOLDS = 5
_RIDGES = (0.01, 0.1, 1.0, 10.0)  # times the mean variance of an embedding's dimensions
_WIDTHS = (8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Embedded:
    """Unit embeddings (n, D) of a foreign encoder, and whose they are, (n,)."""

    embedding: NDArray[np.float32]
    owner: NDArray[np.int64]

    @property
    def dim(self) -> int:
        return int(self.embedding.shape[1])


@dataclass(frozen=True)
class Projection:
    """What turns an embedding of `dim` dimensions into `identity` and `pin`.

    `identity` is (256, dim), None where padding does it; `pin` None makes the pin a copy of the identity, which says
    nothing about the other modality.
    """

    dim: int
    identity: NDArray[np.float32] | None
    pin: Linear | None

    def apply(self, embedding: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(n, dim) of unit length -> identity (n, 256) and pin (n, 256), of unit length: what the graph computes."""
        if self.identity is not None:
            identity = _unit(embedding @ self.identity.T)
        else:
            identity = np.pad(embedding, ((0, 0), (0, EMBEDDING_DIM - self.dim)))
        if self.pin is None:
            return identity, identity
        return identity, _unit(embedding @ self.pin[0].T + self.pin[1])


@dataclass(frozen=True)
class Pins:
    """Fitted pin projections of both modalities, and how they did on people left out in turn."""

    face: Linear
    voice: Linear
    pairs: int
    ridge: float
    width: int
    eer: float  # fraction, cross-validated by people

    def to_json(self) -> dict[str, Any]:
        return {
            "method": "canonical correlation",
            "pairs": self.pairs,
            "ridge": self.ridge,
            "width": self.width,
            "cross_validated_eer": round(self.eer, 6),
        }


def fit_identity(fitted: Embedded, seed: int = 0) -> NDArray[np.float32] | None:
    """(256, D) with orthonormal rows, or None for 256 dimensions or fewer. Every person counts alike.

    Directions in which the fitted embeddings have nothing are filled up by random ones of `seed`.
    """
    if fitted.dim <= EMBEDDING_DIM:
        return None
    x = fitted.embedding.astype(np.float64) * np.sqrt(_person_weights(fitted.owner))[:, None]
    values, vectors = np.linalg.eigh(x.T @ x)
    kept = vectors[:, ::-1][:, :EMBEDDING_DIM]
    rank = int(np.sum(values[::-1][:EMBEDDING_DIM] > 1e-9 * values[-1]))
    filler = np.random.default_rng(seed).standard_normal((fitted.dim, EMBEDDING_DIM - rank))
    filler -= kept[:, :rank] @ (kept[:, :rank].T @ filler)
    basis = np.concatenate([kept[:, :rank], np.linalg.qr(filler)[0]], axis=1).T
    # An eigenvector has no sign: the largest part is made positive, whatever the linear algebra behind it.
    signs = np.sign(basis[np.arange(len(basis)), np.abs(basis).argmax(axis=1)])
    return np.asarray(basis * signs[:, None], np.float32)


def kept_energy(embedding: NDArray[np.float32], identity: NDArray[np.float32] | None) -> float:
    """The mean share of the squared length of unit embeddings (n, D) that a projection keeps."""
    if identity is None:
        return 1.0
    return float(np.mean(np.sum((embedding.astype(np.float64) @ identity.T) ** 2, axis=1)))


def fit_pins(faces: Embedded, voices: Embedded, pairs: list[tuple[int, int]], seed: int = 0) -> Pins | str:
    """Pin projections from people, `pairs` of (face owner, voice owner), or why there can be none, in words.

    The strength of the regularization and the number of directions are chosen by cross-validation over people. Pins
    that do not beat chance by two standard deviations of an EER over so many people are none.
    """
    if len(pairs) < MIN_PAIRS:
        return f"{len(pairs)} people to fit on have a face and a voice; pins need {MIN_PAIRS}"
    x, y = (_Side.of(side, [pair[place] for pair in pairs]) for place, side in enumerate((faces, voices)))
    folds = np.random.default_rng(seed).permutation(len(pairs)) % FOLDS
    best: tuple[float, float, int] | None = None
    for ridge in _RIDGES:
        found = _cross_validated(x, y, folds, ridge)
        for width, value in found.items():
            if best is None or value < best[0]:
                best = (value, ridge, width)
    assert best is not None
    value, ridge, width = best
    chance = 0.5 - 1.0 / np.sqrt(len(pairs))  # an EER over n genuine trials deviates by about 0.5 / sqrt(n)
    if not value < chance:
        return (
            f"a face does not tell whose voice it is, nor the other way round: the EER on people left out is "
            f"{100 * value:.1f} %, and {100 * chance:.1f} % must be beaten with {len(pairs)} pairs"
        )
    everyone = np.ones(len(pairs), np.bool_)
    a, b = _correlate(x, y, everyone, _whitening(x.covariance, ridge), _whitening(y.covariance, ridge))
    return Pins(_linear(a[:width], x.center), _linear(b[:width], y.center), len(pairs), ridge, width, value)


@dataclass(frozen=True)
class _Side:
    """One modality of a fit: means of the paired people (p, D), and what all its captures tell of the spread."""

    people: Floats
    center: Floats
    covariance: Floats

    @classmethod
    def of(cls, embedded: Embedded, owners: list[int]) -> _Side:
        x = embedded.embedding.astype(np.float64)
        people = np.stack([x[embedded.owner == owner].mean(axis=0) for owner in owners])
        center = people.mean(axis=0)
        centered = (x - center) * np.sqrt(_person_weights(embedded.owner))[:, None]
        return cls(people, center, centered.T @ centered)


def _cross_validated(x: _Side, y: _Side, folds: NDArray[np.int64], ridge: float) -> dict[int, float]:
    """Number of directions -> EER of the cosines between the pins of people of one fold, over all folds."""
    widths = [
        width for width in _WIDTHS if width <= min(x.people.shape[1], y.people.shape[1], len(folds) // 2)
    ]
    scores: dict[int, list[Floats]] = {width: [] for width in widths}
    whitenings = _whitening(x.covariance, ridge), _whitening(y.covariance, ridge)
    labels = []
    for fold in range(FOLDS):
        held = folds == fold
        a, b = _correlate(x, y, ~held, *whitenings)
        seen = x.people[~held].mean(axis=0), y.people[~held].mean(axis=0)
        left, right = (x.people[held] - seen[0]) @ a.T, (y.people[held] - seen[1]) @ b.T
        labels.append(np.eye(int(held.sum()), dtype=np.bool_).reshape(-1))
        for width in widths:
            scores[width].append((_unit(left[:, :width]) @ _unit(right[:, :width]).T).reshape(-1))
    joined = np.concatenate(labels)
    return {width: eer(np.concatenate(parts), joined) for width, parts in scores.items()}


def _correlate(
    x: _Side, y: _Side, used: NDArray[np.bool_], white_x: Floats, white_y: Floats
) -> tuple[Floats, Floats]:
    """Canonical directions of both sides, (k, D) each, strongest first, of the people in `used`."""
    p, q = x.people[used], y.people[used]
    cross = (p - p.mean(axis=0)).T @ (q - q.mean(axis=0)) / len(p)
    u, strength, vt = np.linalg.svd(white_x @ cross @ white_y, full_matrices=False)
    count = min(EMBEDDING_DIM, len(strength))
    root = np.sqrt(strength[:count])[:, None]
    return root * (u[:, :count].T @ white_x), root * (vt[:count] @ white_y)


def _whitening(covariance: Floats, ridge: float) -> Floats:
    """(C + r·mean variance·I)^(-1/2)."""
    values, vectors = np.linalg.eigh(covariance)
    values = np.maximum(values, 0.0) + ridge * float(np.trace(covariance)) / len(covariance)
    return np.asarray((vectors / np.sqrt(values)) @ vectors.T)


def _linear(directions: Floats, center: Floats) -> Linear:
    """x -> directions (x - center), with rows of zeros up to 256, at a scale that suits float32."""
    scaled = directions / np.abs(directions).max()
    weight = np.zeros((EMBEDDING_DIM, len(center)))
    weight[: len(scaled)] = scaled
    return weight.astype(np.float32), (-weight @ center).astype(np.float32)


def _person_weights(owner: NDArray[np.int64]) -> Floats:
    """(n,) that sum to 1: every person counts alike, however many captures there are."""
    _, inverse, counts = np.unique(owner, return_inverse=True, return_counts=True)
    return np.asarray(1.0 / (counts[inverse] * len(counts)))


def _unit(x: NDArray[Any]) -> NDArray[Any]:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
