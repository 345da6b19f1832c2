"""One-to-one assignment: which column each row gets, so that the sum of the scores is the highest."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def assign(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """The column of each row, int64 (n,), of finite scores (n, m); -1 for the rows that are left where n > m.

    Shortest augmenting paths with potentials (Jonker and Volgenant 1987): exact, O(n² m).
    """
    rows, columns = scores.shape
    if rows > columns:
        turned = assign(scores.T)
        found = np.full(rows, -1, np.int64)
        found[turned] = np.arange(columns)
        return found
    cost = -scores
    row_price, column_price = np.zeros(rows), np.zeros(columns + 1)
    owner = np.full(
        columns + 1, -1, np.int64
    )  # the row that has a column; the last column is where a path starts
    for row in range(rows):
        owner[columns] = row
        here = columns
        shortest = np.full(columns, np.inf)
        before = np.full(columns, columns)
        done = np.zeros(columns + 1, np.bool_)
        while owner[here] >= 0:
            done[here] = True
            at = owner[here]
            reduced = cost[at] - row_price[at] - column_price[:columns]
            free = ~done[:columns]
            nearer = free & (reduced < shortest)
            shortest[nearer], before[nearer] = reduced[nearer], here
            here_next = int(np.argmin(np.where(free, shortest, np.inf)))
            step = shortest[here_next]
            row_price[owner[done]] += step
            column_price[done] -= step
            shortest[free] -= step
            here = here_next
        while here != columns:
            owner[here] = owner[before[here]]
            here = int(before[here])
    found = np.full(rows, -1, np.int64)
    taken = np.flatnonzero(owner[:columns] >= 0)
    found[owner[taken]] = taken
    return found
