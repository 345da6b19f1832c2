"""1:N: an exact search against one pass over the same memory."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np

from edgepin._identify import ModalityIndex, TemplateIndex


def search_time(people: int, rounds: int = 11) -> dict[str, Any]:
    """Medians of interleaved rounds, ms: all cosines of one modality; the best five; reading the templates once.

    The pass is numpy's dot product of the templates with themselves: BLAS reads every value once and writes none.
    """
    rng = np.random.default_rng(0)
    rows = np.empty((people, 256), np.float32)
    for start in range(0, people, 100_000):  # float32 at once, without a float64 twin of everything
        part = rng.standard_normal((min(100_000, people - start), 256), np.float32)
        rows[start : start + len(part)] = part / np.linalg.norm(part, axis=1, keepdims=True)
    names = tuple(f"{i:07d}" for i in range(people))
    index = TemplateIndex({"face": ModalityIndex(names, rows, rows)})
    probe = rows[people // 3] * np.float32(0.9)
    flat = rows.reshape(-1)

    def best_five() -> int:
        scores = index.cosines("face", probe)
        return int(np.argpartition(-scores, 5)[:5][0])

    ways = {
        "cosines": lambda: index.cosines("face", probe),
        "best_five": best_five,
        "one_pass": lambda: np.dot(flat, flat),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(rounds):
        for name, way in ways.items():
            start_time = time.perf_counter()
            way()
            times[name].append(1e3 * (time.perf_counter() - start_time))
    medians = {name: statistics.median(values) for name, values in times.items()}
    assert int(np.argmax(index.cosines("face", probe))) == people // 3
    return {
        "people": people,
        "ms": {name: round(value, 2) for name, value in medians.items()},
        "times_one_pass": {
            name: round(medians[name] / medians["one_pass"], 3) for name in ("cosines", "best_five")
        },
        "gigabytes_per_s_of_one_pass": round(rows.nbytes / 1e6 / medians["one_pass"], 1),
    }
