"""Which of all? Everything of the other modality, ranked for each query."""

from __future__ import annotations

from typing import Any

import numpy as np

from .draws import Floats, Indices, Resampling, weighted_mean


def retrieve(
    queries: Floats, people: Indices, gallery: Floats, gallery_people: Indices, resampling: Resampling
) -> dict[str, Any]:
    """Mean average precision of queries, unit rows (n, d), among gallery rows (m, d), and what chance gives.

    Average precision is the mean, over a person's gallery items, of the precision at their ranks (Manning et al. 2008,
    section 8.4); among equal scores the wrong ones come first. Every query's person must be in the gallery. Chance is the
    share of the gallery that is the person's, which is average precision under a random order but for a term that vanishes
    with the gallery's size.
    """
    precision = np.empty(len(queries))
    share = np.empty(len(queries))
    members = {int(person): np.flatnonzero(gallery_people == person) for person in np.unique(people)}
    for start in range(0, len(queries), 256):
        block = queries[start : start + 256].astype(np.float32) @ gallery.T.astype(np.float32)
        for row, scores in enumerate(block, start=start):
            mine = members[int(people[row])]
            hits = np.sort(scores[mine])[::-1]
            ordered = np.sort(scores)
            # Rank of a hit: all that score as high or higher, less the hits of the same score that come after it.
            ahead = len(scores) - np.searchsorted(ordered, hits, side="left")
            equal_after = np.searchsorted(-hits, -hits, side="right") - np.arange(1, len(hits) + 1)
            precision[row] = np.mean(np.arange(1, len(hits) + 1) / (ahead - equal_after))
            share[row] = len(mine) / len(scores)
    return {
        "map": weighted_mean(precision, people, resampling).to_json(),
        "chance": float(share.mean()),
        "queries": len(queries),
        "gallery": len(gallery),
    }
