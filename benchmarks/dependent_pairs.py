"""Does the bound on a false match rate hold where pairs of people are dependent?

    python -m benchmarks.dependent_pairs --json benchmarks/results/dependent_pairs.json

People have a level of their own that every score of theirs carries: `even` (none), `varied` (Gaussian, a fifth of a score's
variance each), `lambs` (one person in ten resembles everybody, by one standard deviation). Each of `--worlds` sets of people
gives one score per pair; a threshold is chosen for the FMR by the plain bound on distinct pairs, and by the bound on the
pairs that they are worth (`Pairs.effective`). It holds where the true FMR at that threshold is at most the promised one;
95 % should.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepin._decision.evidence import allowed_errors, threshold_for_errors
from edgepin._decision.measure import kind_evidence
from edgepin._decision.pairs import Pairs

Floats = NDArray[np.float64]
WORLDS = ("even", "varied", "lambs")
LAMBS, VARIED = 0.1, math.sqrt(0.2)


def draw_levels(world: str, people: int, rng: np.random.Generator) -> Floats:
    """(people,) what each adds to all of their scores."""
    if world == "even":
        return np.zeros(people)
    if world == "varied":
        return VARIED * rng.standard_normal(people)
    return (rng.random(people) < LAMBS).astype(np.float64)


def true_fmr(world: str, threshold: float) -> float:
    """The false match rate of fresh people."""
    above = lambda shift, spread=1.0: 1.0 - NormalDist().cdf((threshold - shift) / spread)  # noqa: E731
    if world != "lambs":
        return above(0.0, math.sqrt(1.0 + (2.0 * VARIED**2 if world == "varied" else 0.0)))
    return (1 - LAMBS) ** 2 * above(0.0) + 2 * LAMBS * (1 - LAMBS) * above(1.0) + LAMBS**2 * above(2.0)


def coverage(world: str, people: int, fmr: float, worlds: int, seed: int = 0) -> dict[str, Any]:
    """How often the threshold holds, by the plain bound and by ours, and how often ours carries the FMR at all."""
    rng = np.random.default_rng(seed)
    a, b = np.triu_indices(people, 1)
    pairs = Pairs.of(a, b)
    plain, ours = [], []
    for _ in range(worlds):
        level = draw_levels(world, people, rng)
        scores = level[a] + level[b] + rng.standard_normal(len(a))
        errors = allowed_errors(fmr, len(a))
        assert errors is not None
        threshold = threshold_for_errors(scores, np.ones(len(a)), errors)
        assert threshold is not None
        plain.append(true_fmr(world, threshold))
        kept = dict(kind_evidence(scores, pairs).thresholds)
        if fmr in kept:
            ours.append(true_fmr(world, kept[fmr]))
    return {
        "world": world,
        "people": people,
        "fmr": fmr,
        "plain": float(np.mean(np.array(plain) <= fmr)),
        "plain_p95": float(np.quantile(plain, 0.95) / fmr),
        "ours": float(np.mean(np.array(ours) <= fmr)) if ours else None,
        "ours_p95": float(np.quantile(ours, 0.95) / fmr) if ours else None,
        "carried": len(ours) / worlds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--worlds", type=int, default=200)
    parser.add_argument("--json", type=Path, help="write the figures")
    arguments = parser.parse_args()
    rows = []
    for people, fmr in (
        (10, 0.1),
        (30, 0.02),
        (60, 0.05),
        (60, 0.005),
        (150, 0.001),
        (300, 0.01),
        (300, 0.001),
    ):
        for world in WORLDS:
            row = coverage(world, people, fmr, arguments.worlds)
            rows.append(row)
            ours = (
                "-"
                if row["ours"] is None
                else f"{100 * row['ours']:.1f} % (95 %: {row['ours_p95']:.2f} times)"
            )
            print(
                f"{world:7} {people:4} people, FMR {fmr:<6g} plain bound holds in {100 * row['plain']:.1f} % "
                f"(95 %: {row['plain_p95']:.2f} times), ours in {ours}; carried in {100 * row['carried']:.0f} %",
                flush=True,
            )
    if arguments.json:
        values = {"command": "python -m benchmarks.dependent_pairs", "worlds": arguments.worlds, "rows": rows}
        arguments.json.write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    main()
