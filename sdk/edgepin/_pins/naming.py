"""Who of these ten is it? Names given by one or a few labelled captures of each, as for the characters of a film."""

from __future__ import annotations

from typing import Any

import numpy as np

from .draws import Floats, Indices, Resampling, weighted_mean

GROUP = 10
REPEATS = 5


def name(
    labelled: Floats,
    labelled_people: Indices,
    queries: Floats,
    people: Indices,
    shots: int,
    resampling: Resampling,
) -> dict[str, Any] | None:
    """The share of queries that get the right name, among groups of ten people drawn by the seed, five times over.

    A person's name goes with the mean of `shots` of their captures in `labelled`, unit rows (m, d); a query, unit rows
    (n, d), gets the name of the nearest mean. Where both are the same captures (`queries is labelled`), those that gave the
    names are not queried. Of each person up to 20 queries count. None where fewer than two people have enough captures.
    """
    same = queries is labelled
    have = {int(p): np.flatnonzero(labelled_people == p) for p in np.unique(labelled_people)}
    asked = {int(p): np.flatnonzero(people == p) for p in np.unique(people)}
    able = [
        p
        for p, rows in have.items()
        if len(rows) >= shots + same and len(asked.get(p, ())) > (shots if same else 0)
    ]
    if len(able) < 2:
        return None
    rng = np.random.default_rng(resampling.seed)
    outcomes: list[Floats] = []
    whose: list[Indices] = []
    size = min(GROUP, len(able))
    for _ in range(REPEATS):
        order = rng.permutation(able)
        for start in range(0, len(order) - size + 1, size):
            group = order[start : start + size].tolist()
            given = [rng.choice(have[p], shots, replace=False) for p in group]
            means = np.stack([labelled[rows].mean(axis=0) for rows in given])
            means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
            for number, (p, rows) in enumerate(zip(group, given, strict=True)):
                left = np.setdiff1d(asked[p], rows) if same else asked[p]
                left = rng.permutation(left)[:20]
                outcomes.append((np.argmax(queries[left] @ means.T, axis=1) == number).astype(np.float64))
                whose.append(np.full(len(left), p, np.int64))
    right, owners = np.concatenate(outcomes), np.concatenate(whose)
    dense = np.searchsorted(np.unique(owners), owners).astype(np.int64)
    return {
        "accuracy": weighted_mean(right, dense, resampling).to_json(),
        "chance": 1.0 / size,
        "people": len(able),
        "queries": len(right),
    }
