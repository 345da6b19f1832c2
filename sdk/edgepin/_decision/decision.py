"""`Decision`: the answer to one attempt, as programs and people get it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from .fusion import Scores
from .policy import Reason

Outcome = Literal["accepted", "rejected", "another"]


@dataclass(frozen=True)
class Decision:
    """The answer to one attempt.

    `outcome` is `accepted`, `rejected`, or `another`: not accepted yet, and the session takes another sample.
    `llr` is the fused log-likelihood ratio (natural logarithm) that `threshold` was held against: in a session that of
    all attempts so far. Accepted at the threshold and above, if every captured modality clears its floor. `fmr` is the
    false match rate that the policy promises for the whole session, on the bundle's evidence. These three are None
    where nothing could be decided, which is a rejection.
    `scores` are cosines, `timings` milliseconds by stage. `attempt` counts within the session, from 1;
    `attempts_left` says how many more samples the session would take.
    """

    outcome: Outcome
    llr: float | None
    threshold: float | None
    fmr: float | None
    reasons: tuple[Reason, ...]
    scores: Scores
    timings: dict[str, float] = field(compare=False, default_factory=dict)
    attempt: int = 1
    attempts_left: int = 0

    @property
    def accepted(self) -> bool:
        """Whether the person was let in by this attempt."""
        return self.outcome == "accepted"

    def to_json(self) -> dict[str, Any]:
        return {
            "accepted": self.accepted,
            "outcome": self.outcome,
            "llr": _rounded(self.llr),
            "threshold": _rounded(self.threshold),
            "policy_fmr": self.fmr,
            "reasons": [{"code": reason.code, "text": reason.text} for reason in self.reasons],
            "scores": {name: _rounded(value) for name, value in vars(self.scores).items()},
            "attempt": self.attempt,
            "attempts_left": self.attempts_left,
            "timings_ms": {name: round(value, 3) for name, value in self.timings.items()},
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 4)
