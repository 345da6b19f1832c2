"""Which of N is it? A probe of one modality, N candidates of the other, one of them right."""

from __future__ import annotations

from typing import Any

import numpy as np

from .draws import Floats, Indices, Resampling, weighted_mean


def match(
    probes: Floats,
    right: Floats,
    wrong: Floats,
    people: Indices,
    wrong_people: Indices,
    resampling: Resampling,
    ways: int = 10,
) -> dict[str, Any]:
    """The share of probes whose right candidate is nearest, for 2 to `ways` candidates; a tie counts in its share.

    `probes`, `right`, `wrong` are unit rows (n, d) of the list; `people` and `wrong_people` (n,) say whose the first two and
    the third are. The list gives the second candidate. Further ones are drawn from the right and wrong candidates of all its
    rows, each of another person, by the seed.
    """
    rng = np.random.default_rng(resampling.seed)
    pool, pool_people = np.concatenate([right, wrong]), np.concatenate([people, wrong_people])
    order = np.argsort(pool_people, kind="stable")
    owners, starts, counts = np.unique(pool_people[order], return_index=True, return_counts=True)
    ways = min(ways, len(owners))
    at_right = np.einsum("nd,nd->n", probes, right)
    better = np.zeros(len(probes))
    tied = np.zeros(len(probes))
    # Further people in a random order for each row, without its own two.
    chance = rng.random((len(probes), len(owners)))
    rows = np.arange(len(probes))
    for taken in (people, wrong_people):
        chance[rows, np.searchsorted(owners, taken)] = np.inf
    further = np.argpartition(chance, min(ways - 2, len(owners) - 1), axis=1)[:, : ways - 2]
    accuracy = {}
    for way in range(2, ways + 1):
        if way == 2:
            candidate = wrong
        else:
            owner = further[:, way - 3]
            candidate = pool[order[starts[owner] + rng.integers(0, counts[owner])]]
        scores = np.einsum("nd,nd->n", probes, candidate)
        better += scores > at_right
        tied += scores == at_right
        outcome = np.where(better == 0, 1.0 / (1.0 + tied), 0.0)
        accuracy[str(way)] = weighted_mean(outcome, people, resampling).to_json()
    return {"accuracy": accuracy, "rows": len(probes), "people": len(np.unique(people))}
