"""What stands behind a threshold: how many distinct pairs of people, and which false match rates they carry.

A false match rate (FMR) is never a bare count of errors here. Its bound is the exact one-sided 95 % upper
confidence bound (Clopper and Pearson, 1934) with the number of *distinct subject pairs* as the number of
trials: more recordings of the same two people are not more evidence. With no error among n pairs the bound is
1 - 0.05^(1/n), the rule of 3: about 3/n. Pairs that share a person are not independent where some people match
everyone more easily than others do; then they count for fewer (`Pairs.effective`).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._errors import BundleError
from .._intervals import binomial_interval
from .._json_fields import count, fields, flag, items, number, rounded_above

FloatArray = NDArray[np.float64]

FMR_LADDER = (
    0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 5e-4, 2e-4, 1e-4, 5e-5, 2e-5, 1e-5, 5e-6, 2e-6, 1e-6,
)  # fmt: skip
"""The FMRs at which thresholds are kept. A policy between two of them gets the stricter one's threshold."""
MAX_SESSION_ATTEMPTS = 5
"""The most attempts of a session: NIST SP 800-63B-4 allows as many failures in a row without a wait."""
USUAL_FNMR = 1 / 3
"""The most genuine attempts that the policy may reject which nobody asked for: `SetEvidence.usual`."""
CONFIDENCE = 0.95
"""Of the one-sided upper bound on an FMR."""
KINDS: Mapping[str, tuple[str, ...]] = {
    "face+voice": ("stranger", "other_voice", "other_face"),
    "face": ("stranger",),
    "voice": ("stranger",),
}
"""The impostors of each modality set; with one modality there is one: the capture is another person's."""


def fmr_upper_bound(errors: int, pairs: int) -> float:
    """The exact one-sided 95 % upper confidence bound on the FMR: `errors` among `pairs` distinct pairs."""
    # The upper end of a two-sided 90 % interval leaves 5 % above it.
    return float(binomial_interval(errors, pairs, 1.0 - 2.0 * (1.0 - CONFIDENCE))[1])


def pairs_needed(fmr: float) -> int:
    """The rule of 3, exactly: how many distinct pairs, none falsely matched, bound the FMR at `fmr`."""
    return math.ceil(math.log(1.0 - CONFIDENCE) / math.log1p(-fmr))


def people_needed(fmr: float) -> int:
    """How many people have `pairs_needed(fmr)` distinct pairs among them, if every pair is tried."""
    return math.ceil((1.0 + math.sqrt(1.0 + 8.0 * pairs_needed(fmr))) / 2.0)


@functools.lru_cache(maxsize=256)
def allowed_errors(fmr: float, pairs: int) -> int | None:
    """The most errors among `pairs` whose upper bound is at most `fmr`; `None` if even 0 is too many."""
    if pairs < 1 or fmr_upper_bound(0, pairs) > fmr:
        return None
    low, high = 0, math.ceil(fmr * pairs) + 1  # the bound lies above the observed rate, so `high` is too many
    while high - low > 1:
        middle = (low + high) // 2
        if middle < pairs and fmr_upper_bound(middle, pairs) <= fmr:
            low = middle
        else:
            high = middle
    return low


def threshold_for_errors(llr: FloatArray, weights: FloatArray, errors: float) -> float | None:
    """The smallest threshold t (to nine digits) at which the weights of `llr >= t` sum to at most `errors`.

    `None` if every trial may pass.
    """
    order = np.argsort(-llr, kind="stable")
    total = np.cumsum(weights[order])
    first_too_many = int(np.searchsorted(total, errors + 1e-9, side="right"))
    if first_too_many == len(llr):
        return None
    return rounded_above(float(llr[order[first_too_many]]))


@dataclass(frozen=True)
class KindEvidence:
    """One kind of impostor: distinct unordered pairs, the people in them, trials (or sessions), and thresholds.

    `thresholds` are `(fmr, threshold)` for each FMR of the ladder that the pairs carry; they run
    from the loosest FMR to the strictest and never fall on the way. `effective_pairs` says for each of them how
    many independent pairs it counts on: at most `pairs`.
    """

    pairs: int
    people: int
    trials: int
    thresholds: tuple[tuple[float, float], ...]
    effective_pairs: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "pairs": self.pairs,
            "people": self.people,
            "trials": self.trials,
            "thresholds": [
                [fmr, threshold, effective]
                for (fmr, threshold), effective in zip(self.thresholds, self.effective_pairs, strict=True)
            ],
        }

    @classmethod
    def from_json(cls, value: object, where: str) -> KindEvidence:
        found = fields(value, ("pairs", "people", "trials", "thresholds"), where)
        pairs = count(found["pairs"], f"{where}.pairs", low=1)
        people = count(found["people"], f"{where}.people", low=2)
        if pairs > people * (people - 1) // 2:
            raise BundleError(f"{where}: {people} people do not make {pairs} pairs")
        place = f"{where}.thresholds"
        rows, counted = [], []
        for row in items(found["thresholds"], place):
            fmr, threshold, effective = items(row, place, length=3)
            rows.append((number(fmr, place), number(threshold, place)))
            counted.append(count(effective, place))
        _check_ladder(rows, where)
        for (fmr, _), effective in zip(rows, counted, strict=True):
            if effective > pairs or allowed_errors(fmr, effective) is None:
                raise BundleError(f"{where}: {min(effective, pairs)} pairs do not carry an FMR of {fmr:g}")
        return cls(
            pairs=pairs,
            people=people,
            trials=count(found["trials"], f"{where}.trials", low=pairs),
            thresholds=tuple(rows),
            effective_pairs=tuple(counted),
        )


@dataclass(frozen=True)
class OperatingPoint:
    """What one FMR costs: the threshold (the highest over the kinds of impostor) and the FNMR measured there.

    The false non-match rate (FNMR) is the mean over people of the fraction of genuine attempts rejected, by
    the threshold *or by a floor*.
    """

    fmr: float
    threshold: float
    fnmr: float


@dataclass(frozen=True)
class SetEvidence:
    """One modality set: the genuine trials, the kinds of impostor, the operating points (loosest first).

    For sessions, trials are sessions.
    """

    people: int
    genuine_trials: int
    kinds: Mapping[str, KindEvidence]
    points: tuple[OperatingPoint, ...]

    @property
    def pairs(self) -> int:
        """Distinct pairs behind the least supported kind of impostor."""
        return min(kind.pairs for kind in self.kinds.values())

    @property
    def strictest(self) -> OperatingPoint | None:
        """The point of the lowest FMR that the evidence carries; `None` if it carries none."""
        return self.points[-1] if self.points else None

    @property
    def usual(self) -> OperatingPoint | None:
        """What holds where nothing is asked for: the point of the lowest FMR at which at most a third of the genuine attempts are
        rejected, or of the highest FMR if none is so kind; `None` if the evidence carries no FMR.

        The last rungs that little evidence carries lie beyond its highest impostor, where nobody passes.
        """
        kind = [point for point in self.points if point.fnmr <= USUAL_FNMR]
        return kind[-1] if kind else next(iter(self.points), None)

    def at(self, fmr: float) -> OperatingPoint | None:
        """The loosest point that keeps `fmr`; `None` if the evidence carries none so strict."""
        allowed = fmr * (1.0 + 1e-9)  # a third of 0.3 is 0.1
        return next((point for point in self.points if point.fmr <= allowed), None)

    def to_json(self) -> dict[str, Any]:
        return {
            "people": self.people,
            "genuine_trials": self.genuine_trials,
            "kinds": {name: kind.to_json() for name, kind in self.kinds.items()},
            "points": [[point.fmr, point.threshold, point.fnmr] for point in self.points],
        }

    @classmethod
    def from_json(cls, value: object, where: str, names: tuple[str, ...]) -> SetEvidence:
        found = fields(value, ("people", "genuine_trials", "kinds", "points"), where)
        listed = fields(found["kinds"], names, f"{where}.kinds")
        kinds = {name: KindEvidence.from_json(listed[name], f"{where}.kinds.{name}") for name in names}
        points = []
        for row in items(found["points"], f"{where}.points"):
            fmr, threshold, fnmr = items(row, f"{where}.points", length=3)
            points.append(
                OperatingPoint(
                    number(fmr, f"{where}.points"),
                    number(threshold, f"{where}.points"),
                    number(fnmr, f"{where}.points", low=0.0, high=1.0),
                )
            )
        if [(point.fmr, point.threshold) for point in points] != worst_thresholds(kinds):
            raise BundleError(f"{where}: the points are not those of the worst kind of impostor")
        people = count(found["people"], f"{where}.people", low=1)
        trials = count(found["genuine_trials"], f"{where}.genuine_trials", low=people)
        return cls(people, trials, kinds, tuple(points))


def worst_thresholds(kinds: Mapping[str, KindEvidence]) -> list[tuple[float, float]]:
    """`(fmr, highest threshold over the kinds)` for each FMR that every kind carries."""
    tables = [dict(kind.thresholds) for kind in kinds.values()]
    return [
        (fmr, max(table[fmr] for table in tables))
        for fmr in FMR_LADDER
        if all(fmr in table for table in tables)
    ]


@dataclass(frozen=True)
class SessionEvidence:
    """One modality set over several attempts: for 2, 3, … of them what `SetEvidence` is for one.

    Its trials are whole sessions of that many attempts of one person on one enrollment, so a threshold bounds
    how often *any* of the attempts is falsely accepted. `tables[0]` is for two attempts. Empty where the
    trials held too few attempts of a pair.
    """

    tables: tuple[SetEvidence, ...] = ()

    @property
    def max_attempts(self) -> int:
        """The longest session that has evidence; 1 if there is none beyond the single attempt."""
        return len(self.tables) + 1

    def to_json(self) -> list[dict[str, Any]]:
        return [table.to_json() for table in self.tables]

    @classmethod
    def from_json(cls, value: object, where: str, names: tuple[str, ...]) -> SessionEvidence:
        tables = items(value, where)
        if len(tables) >= MAX_SESSION_ATTEMPTS:
            raise BundleError(f"{where}: sessions of more than {MAX_SESSION_ATTEMPTS} attempts")
        return cls(
            tuple(
                SetEvidence.from_json(table, f"{where}.{number}", names)
                for number, table in enumerate(tables, start=2)
            )
        )


@dataclass(frozen=True)
class Evidence:
    """All that a fusion knows of its own errors.

    `chimeric`: the people were put together from one person's face and another's voice. `folds`: into how
    many groups of people the cross-fitting was split. `floors`: per modality, the LLR below which its capture
    is refused whatever the other says. `sets`: by modality set. `sessions`: by modality set, for more attempts
    than one.
    """

    chimeric: bool
    folds: int
    floors: Mapping[str, float]
    sets: Mapping[str, SetEvidence]
    sessions: Mapping[str, SessionEvidence]

    def to_json(self) -> dict[str, Any]:
        return {
            "chimeric": self.chimeric,
            "folds": self.folds,
            "floors": dict(self.floors),
            "sets": {name: evidence.to_json() for name, evidence in self.sets.items()},
            "sessions": {name: evidence.to_json() for name, evidence in self.sessions.items()},
        }

    @classmethod
    def from_json(cls, value: object, where: str) -> Evidence:
        found = fields(value, ("chimeric", "folds", "floors", "sets", "sessions"), where)
        floors = fields(found["floors"], ("face", "voice"), f"{where}.floors")
        sets = fields(found["sets"], tuple(KINDS), f"{where}.sets")
        sessions = fields(found["sessions"], tuple(KINDS), f"{where}.sessions")
        return cls(
            chimeric=flag(found["chimeric"], f"{where}.chimeric"),
            folds=count(found["folds"], f"{where}.folds", low=2),
            floors={name: number(floors[name], f"{where}.floors.{name}") for name in ("face", "voice")},
            sets={
                name: SetEvidence.from_json(sets[name], f"{where}.sets.{name}", kinds)
                for name, kinds in KINDS.items()
            },
            sessions={
                name: SessionEvidence.from_json(sessions[name], f"{where}.sessions.{name}", kinds)
                for name, kinds in KINDS.items()
            },
        )


def _check_ladder(rows: list[tuple[float, float]], where: str) -> None:
    """The FMRs are the ladder's, strictly falling, and the thresholds do not fall with them."""
    for fmr, _ in rows:
        if fmr not in FMR_LADDER:
            raise BundleError(f"{where}: {fmr:g} is not an FMR of the ladder")
    for (fmr, threshold), (stricter, higher) in itertools.pairwise(rows):
        if stricter >= fmr or higher < threshold:
            raise BundleError(f"{where}: the thresholds do not rise as the FMR falls")
