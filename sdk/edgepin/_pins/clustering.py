"""Who belongs together, when nobody is named: k-means on unit vectors, against the truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .draws import Figure, Floats, Indices, Resampling, weighted_mean

_ROUNDS = 50


def cluster(rows: Floats, people: Indices, resampling: Resampling, *, restarts: int = 1) -> dict[str, Any]:
    """NMI and purity of as many clusters as there are people. `rows` (n, d) are unit vectors, `people` (n,) from 0.

    The intervals keep the clusters and the people that they are of: they say how the figures vary with who is looked at, not
    how the clustering itself varies. Purity's resamples people; NMI's is 1.96 standard errors by the jackknife that leaves
    one person out at a time (Efron 1979), as people drawn twice would count as found together.
    """
    count = int(people.max()) + 1
    found = spherical_k_means(rows, count, seed=resampling.seed, restarts=restarts)
    table = np.zeros((count, count))
    np.add.at(table, (found, people), 1.0)
    in_majority = table.argmax(axis=1)[found] == people
    return {
        "nmi": _nmi_figure(table).to_json(),
        "purity": weighted_mean(in_majority.astype(np.float64), people, resampling).to_json(),
        "items": len(rows),
        "people": count,
    }


def _nmi_figure(table: Floats) -> Figure:
    value, people = nmi(table), table.shape[1]
    if people < 3:
        return Figure(value, 0.0, 1.0)
    without = np.array([nmi(np.delete(table, person, axis=1)) for person in range(people)])
    error = np.sqrt((people - 1) * without.var())
    return Figure(value, float(max(0.0, value - 1.96 * error)), float(min(1.0, value + 1.96 * error)))


def nmi(table: Floats) -> float:
    """Normalized mutual information of a contingency table (clusters, people): I / mean of the two entropies.

    The arithmetic mean is the normalization that scikit-learn uses (Vinh et al. 2010, table 2, NMI_sum). 1 where both have
    one group only.
    """
    joint = table / table.sum()
    rows, columns = joint.sum(axis=1), joint.sum(axis=0)
    entropies = _entropy(rows), _entropy(columns)
    mean = sum(entropies) / 2
    return 1.0 if mean == 0 else float((sum(entropies) - _entropy(joint.ravel())) / mean)


def purity(table: Floats) -> float:
    """The share of items that are of the person whom their cluster has most of (Manning et al. 2008, section 16.3)."""
    return float(table.max(axis=1).sum() / table.sum())


def spherical_k_means(rows: Floats, clusters: int, *, seed: int, restarts: int) -> Indices:
    """Cluster numbers (n,) of unit rows (n, d): the best of some starts by the sum of cosines (Dhillon and Modha 2001).

    Starts are drawn as greedy k-means++ draws them (Arthur and Vassilvitskii 2007): of a few candidates the best.
    A cluster that empties takes the row that fits worst.
    """
    rng = np.random.default_rng(seed)
    data = rows.astype(np.float32)
    best, score = np.zeros(len(data), np.int64), -np.inf
    for _ in range(restarts):
        centers = _starts(data, clusters, rng)
        assigned = np.full(len(data), -1, np.int64)
        for _ in range(_ROUNDS):
            cosines = data @ centers.T
            nearest = np.argmax(cosines, axis=1)
            fit = cosines[np.arange(len(data)), nearest]
            for empty in np.flatnonzero(np.bincount(nearest, minlength=clusters) == 0):
                worst = int(np.argmin(fit))
                nearest[worst], fit[worst] = empty, np.inf
            if np.array_equal(nearest, assigned):
                break
            assigned = nearest
            sums = np.zeros_like(centers)
            np.add.at(sums, assigned, data)
            centers = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
        total = float(np.einsum("nd,nd->", data, centers[assigned]))
        if total > score:
            best, score = assigned, total
    return best


def _starts(
    data: npt.NDArray[np.float32], clusters: int, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    trials = 2 + int(np.log(clusters))
    chosen = [int(rng.integers(len(data)))]
    distance = 1.0 - data @ data[chosen[0]]
    while len(chosen) < clusters:
        weights = np.maximum(distance, 0.0).astype(np.float64) + 1e-12
        tried = rng.choice(len(data), trials, p=weights / weights.sum())
        left = np.minimum(distance[:, np.newaxis], 1.0 - data @ data[tried].T)
        best = int(np.argmin(left.sum(axis=0)))
        chosen.append(int(tried[best]))
        distance = left[:, best]
    return data[chosen]


def _entropy(shares: Floats) -> float:
    positive = shares[shares > 0]
    return float(-(positive * np.log(positive)).sum())
