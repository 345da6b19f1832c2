"""What a lower precision must keep to be exported: its embeddings, its error rate, and what its scores mean.

All figures are of one modality, on captures of people that the encoder was not trained on and whose captures gave
no range. The reference is the FP32 encoder on the same captures.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepin._decision.logistic import fit_logistic
from edgepin.metrics import cllr, eer

from ._parity import Captured, Parity, compare


@dataclass(frozen=True)
class Limits:
    """What a gate lets through.

    Raises:
        ValueError: a cosine is not in (0, 1], or a rise is negative.
    """

    mean_cosine: float  # to the reference, at least; of identity and of pin
    eer_rise: float  # fraction, at most; what falls passes
    cllr_rise: float  # bits, at most

    def __post_init__(self) -> None:
        if not 0 < self.mean_cosine <= 1:
            raise ValueError(f"mean_cosine must lie in (0, 1], not {self.mean_cosine!r}")
        for name in ("eer_rise", "cllr_rise"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, not {getattr(self, name)!r}")


LIMITS = {
    # FP32 is held against the encoder that it was exported from: the same arithmetic in another order.
    "fp32": Limits(0.99999, 0.0005, 0.001),
    "fp16": Limits(0.9999, 0.001, 0.003),
    "int8": Limits(0.99, 0.003, 0.01),
    # The same encoder behind a front-end of other operators, whose faint mels differ in the fourth digit.
    "portable": Limits(0.9999, 0.001, 0.003),
}
"""By precision. Cllr, of 1 bit at most for scores worth using, moves with the EER: at 5 % it is about 0.2 bits, and a
rise of 0.3 points is one of about 0.01 bits."""


@dataclass(frozen=True)
class GateReport:
    """Figures of one precision of one modality, what was allowed, and what failed."""

    identity: Parity
    pin: Parity
    eer: float  # fraction
    eer_rise: float  # over the reference
    cllr: float  # bits, of LLRs by the calibration that was fitted on the reference
    cllr_rise: float
    genuine: int  # trials
    impostor: int
    limits: Limits
    failures: tuple[str, ...]  # in words; none: it passed

    @property
    def passed(self) -> bool:
        return not self.failures

    def to_json(self) -> dict[str, Any]:
        values = dataclasses.asdict(self)
        for name in ("eer", "eer_rise", "cllr", "cllr_rise"):
            values[name] = round(values[name], 6)
        return {**values, "failures": list(self.failures), "passed": self.passed}


class Gate:
    """Holds embeddings of one modality against the reference's, capture by capture.

    Raises:
        ValueError: the captures have no two of one person, or are all of one.
    """

    def __init__(self, reference: Captured) -> None:
        self.reference = reference
        self._first, self._second = np.triu_indices(len(reference.owner), 1)
        self._genuine = reference.owner[self._first] == reference.owner[self._second]
        if not self._genuine.any() or self._genuine.all():
            raise ValueError("a gate needs two captures of a person, and two people")
        scores = self._scores(reference)
        self._center, self._spread = float(scores.mean()), float(scores.std()) or 1.0
        # Genuine and impostor trials weigh the same, so that log odds are log-likelihood ratios.
        share = np.where(self._genuine, 0.5 / self._genuine.sum(), 0.5 / (~self._genuine).sum())
        weights, self._offset = fit_logistic(
            self._standard(scores)[:, None], self._genuine, share, l2=1e-6, lower=np.array([0.0])
        )
        self._weight = float(weights[0])
        self.eer = eer(scores, self._genuine)
        self.cllr = self._cllr(scores)

    def check(self, other: Captured, limits: Limits) -> GateReport:
        """How `other`, of the same captures in the same order, compares, and whether it may pass.

        An EER cannot tell less than one genuine trial: with few of them the bound on its rise is one trial's worth.

        Raises:
            ValueError: the shapes differ, or an embedding is zero or not finite.
        """
        identity = compare(self.reference.identity, other.identity)
        pin = compare(self.reference.pin, other.pin)
        scores = self._scores(other)
        genuine = int(self._genuine.sum())
        allowed = dataclasses.replace(limits, eer_rise=max(limits.eer_rise, 1 / genuine))
        found_eer, found_cllr = eer(scores, self._genuine), self._cllr(scores)
        eer_rise, cllr_rise = found_eer - self.eer, found_cllr - self.cllr
        failures = [
            f"mean cosine of {name} is {parity.mean_cosine:.5f}, below {allowed.mean_cosine:g}"
            for name, parity in (("identity", identity), ("pin", pin))
            if not parity.mean_cosine >= allowed.mean_cosine
        ]
        if not eer_rise <= allowed.eer_rise:
            failures.append(
                f"EER rises by {100 * eer_rise:.2f} points, more than {100 * allowed.eer_rise:.2f}"
            )
        if not cllr_rise <= allowed.cllr_rise:
            failures.append(f"Cllr rises by {cllr_rise:.4f} bits, more than {allowed.cllr_rise:g}")
        return GateReport(
            identity=identity,
            pin=pin,
            eer=found_eer,
            eer_rise=eer_rise,
            cllr=found_cllr,
            cllr_rise=cllr_rise,
            genuine=genuine,
            impostor=len(self._genuine) - genuine,
            limits=allowed,
            failures=tuple(failures),
        )

    def _scores(self, captured: Captured) -> NDArray[np.float64]:
        cosines = captured.identity.astype(np.float64) @ captured.identity.T.astype(np.float64)
        return np.asarray(cosines[self._first, self._second])

    def _standard(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        return (scores - self._center) / self._spread

    def _cllr(self, scores: NDArray[np.float64]) -> float:
        return cllr(self._standard(scores) * self._weight + self._offset, self._genuine)
