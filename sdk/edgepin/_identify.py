"""Identification (1:N): who of all enrolled people it could be. Exact, by one matrix-vector product a modality.

It is another thing than verification, in law too: off unless the policy allows it by name. The more people are
searched, the more of them can be mistaken, so a match must reach the threshold of an N times stricter false match
rate; where the evidence does not carry that, candidates are listed and nobody is a match.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._decision.fusion import FACE, FACE_AND_VOICE, VOICE, Fusion
from ._decision.policy import ResolvedPolicy, ResolvedSet

if TYPE_CHECKING:
    from ._pipeline import Embedding
    from ._store.store import Store

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Candidate:
    """One of the enrolled whom the captures could be of: `llr` is the fused log-likelihood ratio of that."""

    subject: str
    llr: float


@dataclass(frozen=True)
class Identification:
    """The answer to a search. `match` is None where nobody reaches the threshold, or none can be promised.

    `candidates`: likeliest first. `searched`: how many people were compared. `fmr`: the bound on taking a stranger
    for anybody of them, None if the evidence carries none. `reason`: `match`, `no_match` or `insufficient_evidence`.
    """

    match: str | None
    candidates: tuple[Candidate, ...]
    searched: int
    fmr: float | None
    threshold: float | None
    reason: str
    timings: dict[str, float] = field(compare=False, default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "match": self.match,
            "reason": self.reason,
            "candidates": [
                {"id": candidate.subject, "llr": round(candidate.llr, 4)} for candidate in self.candidates
            ],
            "searched": self.searched,
            "policy_fmr": self.fmr,
            "threshold": None if self.threshold is None else round(self.threshold, 4),
            "timings_ms": {name: round(value, 3) for name, value in self.timings.items()},
        }


@dataclass(frozen=True)
class ModalityIndex:
    """Everybody's mean rows in one modality: the mean of cosines is the cosine with the mean row's direction, times
    its length, so nothing is lost. `subjects` are sorted. `identity` and `pin`: float32 (people, 256), C order.
    """

    subjects: tuple[str, ...]
    identity: FloatArray
    pin: FloatArray


class TemplateIndex:
    """A store's templates in memory, to be searched. As private as the store itself: it holds templates in the clear."""

    def __init__(self, modalities: Mapping[str, ModalityIndex]) -> None:
        self._modalities = dict(modalities)
        everybody = sorted({subject for index in modalities.values() for subject in index.subjects})
        self.subjects: tuple[str, ...] = tuple(everybody)
        self._places: dict[str, NDArray[np.int64] | None] = {}
        for modality, index in self._modalities.items():
            # Where everybody has the modality, in the same order, there is nothing to look up.
            self._places[modality] = (
                None
                if index.subjects == self.subjects
                else np.searchsorted(np.array(everybody, dtype=object), list(index.subjects)).astype(np.int64)
            )

    @classmethod
    def of(cls, store: Store) -> TemplateIndex:
        """Decrypts all templates of `store`. Raises StoreError."""
        made = {}
        for modality in (FACE, VOICE):
            subjects, identity, pin = store.means(modality)
            made[modality] = ModalityIndex(tuple(subjects), identity, pin)
        return cls(made)

    def __len__(self) -> int:
        return len(self.subjects)

    def cosines(self, enrolled: str, captured: FloatArray, head: str = "identity") -> FloatArray:
        """(256,) -> (people,) cosines with the `enrolled` modality's rows; NaN for who has none."""
        index = self._modalities[enrolled]
        # Reads the rows once, at the speed of the memory; the matrix library's product of a matrix with one vector takes
        # more than twice as long (benchmarks/device).
        scores: FloatArray = np.einsum("ij,j->i", getattr(index, head), captured)
        places = self._places[enrolled]
        if places is None:
            return scores
        spread = np.full(len(self.subjects), np.nan, np.float32)
        spread[places] = scores
        return spread

    def llrs(self, probe: Mapping[str, Embedding], fusion: Fusion) -> tuple[NDArray[np.float64], str]:
        """(people,) LLRs of the probe being each one, and the set of modalities that was compared.

        With both captured only people with both are compared, by the joint model; -inf for the others.
        """
        captured = [modality for modality in (FACE, VOICE) if modality in probe]
        identity = {
            modality: self.cosines(modality, probe[modality].identity).astype(np.float64)
            for modality in captured
        }
        if len(captured) == 1:
            modality = captured[0]
            model = fusion.model.face if modality == FACE else fusion.model.voice
            llr = model.llr(identity[modality])
            return np.where(np.isnan(llr), -np.inf, llr), modality
        cross = (
            [
                self.cosines(FACE, probe[VOICE].pin, "pin").astype(np.float64),
                self.cosines(VOICE, probe[FACE].pin, "pin").astype(np.float64),
            ]
            if fusion.model.cross_modal
            else [np.zeros(len(self)), np.zeros(len(self))]
        )
        missing = np.isnan(identity[FACE]) | np.isnan(identity[VOICE])
        columns = [np.where(missing, 0.0, scores) for scores in (identity[FACE], identity[VOICE], *cross)]
        return np.where(missing, -np.inf, fusion.model.joint_llr(*columns)), FACE_AND_VOICE

    def identify(
        self, probe: Mapping[str, Embedding], fusion: Fusion, policy: ResolvedPolicy, *, top: int = 5
    ) -> Identification:
        """The `top` likeliest people, and the match if one may be promised. Raises UsageError for an empty probe."""
        if not len(self):
            return Identification(None, (), 0, None, None, "no_match")
        llr, captured = self.llrs(probe, fusion)
        count = min(top, len(llr))
        best = np.argpartition(-llr, count - 1)[:count]
        best = best[np.lexsort((best, -llr[best]))]
        candidates = tuple(Candidate(self.subjects[i], float(llr[i])) for i in best if np.isfinite(llr[i]))
        searched = int(np.isfinite(llr).sum())
        # A stranger has as many chances as people are searched (the union bound).
        asked = policy.sets[captured]
        point = None
        if asked.point is not None and searched:
            point = fusion.evidence.sets[captured].at(asked.point.fmr / searched)
        if point is None:
            return Identification(None, candidates, searched, None, None, "insufficient_evidence")
        assert isinstance(asked, ResolvedSet)
        matched = bool(candidates) and candidates[0].llr >= point.threshold
        for modality in (FACE, VOICE) if captured == FACE_AND_VOICE else (captured,):
            if not matched:
                break
            model = fusion.model.face if modality == FACE else fusion.model.voice
            score = self.cosines(modality, probe[modality].identity)[best[0]]
            matched = bool(model.llr(np.array([score], np.float64))[0] >= policy.floors[modality])
        return Identification(
            candidates[0].subject if matched else None,
            candidates,
            searched,
            point.fmr * searched,
            point.threshold,
            "match" if matched else "no_match",
        )
