"""What sessions of several attempts gain, and what bounds for independent attempts would claim, on simulated scores.

    python -m benchmarks.sessions --json benchmarks/results/sessions.json

Scores are Gaussian with unit variance, `separation` apart between genuine and impostor, and correlated within one pair of
people, so that the optimum of one attempt is LLR = separation * score - separation**2 / 2. A pair's level is drawn once;
`correlation` is its share of the variance. `bad` is how many genuine attempts are bad captures, 2.5 standard deviations
lower.

1. False rejections of one attempt and of sessions of three at the same false match rate *of the whole session*, by what is
   held against the threshold. Thresholds are quantiles of simulated impostor sessions.
2. Wald's sequential test, whose bounds suppose independent attempts: how often it accepts an impostor within three
   attempts, over what it promises.
3. The whole way: people are calibrated on, by `calibrate`; the sessions of fresh people are held against its thresholds.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepin._decision.calibration import calibrate
from edgepin._decision.fusion import Fusion
from edgepin._decision.sessions import SINGLE_MARGIN, session_statistic
from edgepin._decision.trial_set import GENUINE, IMPOSTOR_KINDS, TrialSet

Floats = NDArray[np.float64]
ATTEMPTS = 3
BAD_SHIFT = 2.5
MISS_RATE = 0.05
"""What Wald's test may reject of genuine sessions: its beta."""

STATISTICS: dict[str, Callable[[Floats], Floats]] = {
    "one attempt": lambda llr: llr[:, 0],
    "ours": session_statistic,
    "highest": lambda llr: llr.max(axis=1),
    "mean": lambda llr: llr.mean(axis=1),
    "highest running mean": lambda llr: np.max(
        np.cumsum(llr, axis=1) / np.arange(1, llr.shape[1] + 1), axis=1
    ),
    "mean of best two": lambda llr: np.sort(llr, axis=1)[:, -2:].mean(axis=1),
}


def draw_llrs(
    rng: np.random.Generator,
    sessions: int,
    separation: float,
    correlation: float,
    *,
    genuine: bool,
    bad: float = 0.0,
) -> Floats:
    """(sessions, ATTEMPTS) LLRs of attempts, each session a pair of people of its own."""
    level = math.sqrt(correlation) * rng.standard_normal((sessions, 1))
    score = level + math.sqrt(1.0 - correlation) * rng.standard_normal((sessions, ATTEMPTS))
    if genuine:
        score += separation - BAD_SHIFT * (rng.random((sessions, ATTEMPTS)) < bad)
    return separation * score - 0.5 * separation**2


def false_rejections(
    separation: float,
    correlation: float,
    fmr: float,
    *,
    bad: float = 0.0,
    sessions: int = 200_000,
    seed: int = 0,
) -> dict[str, float]:
    """By statistic the share of genuine sessions rejected where the share `fmr` of impostor sessions is accepted."""
    rng = np.random.default_rng(seed)
    impostor = draw_llrs(rng, sessions, separation, correlation, genuine=False)
    genuine = draw_llrs(rng, sessions, separation, correlation, genuine=True, bad=bad)
    return {
        name: float(np.mean(statistic(genuine) < np.quantile(statistic(impostor), 1.0 - fmr)))
        for name, statistic in STATISTICS.items()
    }


def wald_false_matches(
    separation: float, correlation: float, fmr: float, *, sessions: int = 1_000_000, seed: int = 0
) -> float:
    """How often Wald's test with the bounds (1 - beta) / alpha and beta / (1 - alpha), alpha = `fmr`, accepts an impostor."""
    rng = np.random.default_rng(seed)
    total = np.cumsum(draw_llrs(rng, sessions, separation, correlation, genuine=False), axis=1)
    accept, reject = math.log((1.0 - MISS_RATE) / fmr), math.log(MISS_RATE / (1.0 - fmr))
    open_still, accepted = np.ones(sessions, bool), np.zeros(sessions, bool)
    for sums in total.T:
        accepted |= open_still & (sums >= accept)
        open_still &= (sums < accept) & (sums > reject)
    return float(accepted.mean())


def correlated_people(
    people: int, *, separation: float, correlation: float, seed: int, attempts: int = ATTEMPTS
) -> TrialSet:
    """Trials of every kind among all pairs: face and voice scores with a level of their own for each pair."""
    rng = np.random.default_rng(seed)
    a, b = np.triu_indices(people, 1)
    columns: list[tuple[NDArray[Any], ...]] = []
    for kind in (GENUINE, *IMPOSTOR_KINDS):
        first, second, series = (a, b, 1) if kind != GENUINE else (np.arange(people), np.arange(people), 4)
        first, second = np.repeat(first, series), np.repeat(second, series)
        enrollment = np.tile(np.arange(series), len(first) // series)

        def scores(own: bool, count: int = len(first)) -> Floats:
            level = math.sqrt(correlation) * rng.standard_normal((count, 1))
            drawn = level + math.sqrt(1.0 - correlation) * rng.standard_normal((count, attempts))
            return 0.1 * (drawn + (separation if own else 0.0)).ravel()

        each = np.repeat(np.column_stack([first, second, enrollment]), attempts, axis=0)
        columns.append(
            (
                scores(kind in (GENUINE, "other_voice")),
                scores(kind in (GENUINE, "other_face")),
                *each.T,
                np.full(len(each), kind),
            )
        )
    face, voice, one, other, enrollment, kinds = (np.concatenate(part) for part in zip(*columns, strict=True))
    nothing = np.zeros(len(face))
    return TrialSet(face, voice, nothing, nothing, one, other, kinds, enrollment=enrollment)


def whole_way(
    fusion: Fusion, *, separation: float, correlation: float, people: int, seed: int
) -> list[dict[str, Any]]:
    """For each number of attempts and each FMR: what fresh people's sessions show of it."""
    fresh = correlated_people(people, separation=separation, correlation=correlation, seed=seed)
    llr = fusion.model.joint_llr(fresh.face, fresh.voice, fresh.face_voice, fresh.voice_face)
    llr, kinds = llr.reshape(-1, ATTEMPTS), fresh.kind.reshape(-1, ATTEMPTS)[:, 0]
    rows = []
    tables = [fusion.evidence.sets["face+voice"], *fusion.evidence.sessions["face+voice"].tables]
    for attempts, table in enumerate(tables, start=1):
        statistic = llr[:, 0] if attempts == 1 else session_statistic(llr[:, :attempts])
        for point in table.points:
            passed = statistic >= point.threshold
            rows.append(
                {
                    "attempts": attempts,
                    "fmr": point.fmr,
                    "false_match": max(float(passed[kinds == kind].mean()) for kind in IMPOSTOR_KINDS),
                    "false_rejection": 1.0 - float(passed[kinds == GENUINE].mean()),
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures")
    arguments = parser.parse_args()
    rejections, wald = [], []
    print("false rejections in %, at the same false match rate of the whole session of three")
    print(f"{'sep. corr. bad  FMR':22}" + "".join(f"{name:>22}" for name in STATISTICS))
    for separation in (2.5, 3.5, 4.5):
        for correlation in (0.0, 0.5, 0.8):
            for bad in (0.0, 0.1):
                for fmr in (0.01, 0.001):
                    found = false_rejections(separation, correlation, fmr, bad=bad)
                    rejections.append(
                        {
                            "separation": separation,
                            "correlation": correlation,
                            "bad": bad,
                            "fmr": fmr,
                            "false_rejections": found,
                        }
                    )
                    values = "".join(f"{100 * value:22.2f}" for value in found.values())
                    print(f"{separation:<5}{correlation:<6}{bad:<5}{fmr:<6}{values}")
    print("\nWald's test: impostor sessions accepted, over what it promises")
    for separation in (2.5, 3.5):
        for correlation in (0.0, 0.5, 0.8):
            for fmr in (0.01, 0.001, 0.0001):
                rate = wald_false_matches(separation, correlation, fmr)
                wald.append(
                    {
                        "separation": separation,
                        "correlation": correlation,
                        "promised": fmr,
                        "false_match": rate,
                        "times": rate / fmr,
                    }
                )
                print(f"{separation:<5}{correlation:<6}{fmr:<8g}{rate:.6f}  {rate / fmr:.1f} times")
    print("\ncalibrated on 100 people, held against 400 fresh ones (correlation 0.8)")
    settings = {"separation": 5.0, "correlation": 0.8}
    fusion = calibrate(correlated_people(100, seed=1, **settings), cross_modal=False)
    rows = whole_way(fusion, people=400, seed=2, **settings)
    for row in rows:
        print(
            f"{row['attempts']} attempts, FMR <= {row['fmr']:<6g} measured {row['false_match']:.5f}, "
            f"false rejections {100 * row['false_rejection']:.1f} %"
        )
    if arguments.json:
        values = {
            "command": "python -m benchmarks.sessions",
            "numpy": np.__version__,
            "attempts": ATTEMPTS,
            "single_margin": SINGLE_MARGIN,
            "bad_shift": BAD_SHIFT,
            "wald_beta": MISS_RATE,
            "false_rejections": rejections,
            "wald": wald,
            "whole_way": {**settings, "calibration_people": 100, "fresh_people": 400, "rows": rows},
        }
        arguments.json.write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    main()
