"""Verification trials among simulated people whose best possible LLR is known.

The four scores are Gaussian, with one mean where the captures are the enrolled person's and another where
they are not. They are independent given that, so the optimum has a closed form.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgepin._decision.calibration import TrialSet

KINDS = ("stranger", "other_voice", "other_face")
# Which capture is the enrolled person's: (face, voice).
OWN = {
    "genuine": (True, True),
    "stranger": (False, False),
    "other_voice": (True, False),
    "other_face": (False, True),
}


@dataclass(frozen=True)
class World:
    """Per score: its mean for the enrolled person, its mean for another, the standard deviation of both."""

    face: tuple[float, float, float] = (0.55, 0.10, 0.14)
    voice: tuple[float, float, float] = (0.60, 0.10, 0.17)
    cross: tuple[float, float, float] = (0.25, 0.10, 0.15)

    def trials(self, people: int, *, seed: int, attempts: int | None = None, repeats: int = 1) -> TrialSet:
        """Every ordered pair (or `attempts` of them) with each kind, `repeats` times, and ten genuine attempts a person."""
        random = np.random.default_rng(seed)
        a, b = (side.ravel() for side in np.meshgrid(np.arange(people), np.arange(people), indexing="ij"))
        a, b = a[a != b], b[a != b]
        if attempts is not None:
            chosen = random.choice(len(a), attempts, replace=False)
            a, b = a[chosen], b[chosen]
        a, b = np.tile(a, repeats), np.tile(b, repeats)
        own = np.repeat(np.arange(people), 10)
        parts = [self._kind("genuine", own, own, random), *(self._kind(kind, a, b, random) for kind in KINDS)]
        joined = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("face", "voice", "face_voice", "voice_face", "subject_a", "subject_b", "kind")
        }
        return TrialSet(**joined, enrollment=joined["subject_a"])

    def _kind(self, kind: str, a: NDArray, b: NDArray, random: np.random.Generator) -> TrialSet:
        own_face, own_voice = OWN[kind]

        def draw(moments: tuple[float, float, float], own: bool) -> NDArray:
            return random.normal(moments[0] if own else moments[1], moments[2], len(a))

        return TrialSet(
            face=draw(self.face, own_face),
            voice=draw(self.voice, own_voice),
            face_voice=draw(self.cross, own_voice),  # enrolled face × probe voice
            voice_face=draw(self.cross, own_face),  # enrolled voice × probe face
            subject_a=a,
            subject_b=b,
            kind=np.full(len(a), kind),
        )

    def best_llr(self, trials: TrialSet, *, cross_modal: bool) -> NDArray:
        """(trials,) log of p(scores | genuine) over the equal mixture of the three kinds."""

        def ratio(scores: NDArray, moments: tuple[float, float, float]) -> NDArray:
            own, other, spread = moments
            return ((scores - other) ** 2 - (scores - own) ** 2) / (2.0 * spread**2)

        face, voice = ratio(trials.face, self.face), ratio(trials.voice, self.voice)
        if cross_modal:
            face, voice = (
                face + ratio(trials.voice_face, self.cross),
                voice + ratio(trials.face_voice, self.cross),
            )
        return np.log(3.0) - np.logaddexp.reduce([-face - voice, -face, -voice])


def balanced_cllr(llr: NDArray, trials: TrialSet) -> float:
    """Cllr (bits) with every kind of impostor a third of the impostors."""
    costs = {
        kind: np.mean(
            np.logaddexp(0.0, -llr[trials.kind == kind] if kind == "genuine" else llr[trials.kind == kind])
        )
        for kind in ("genuine", *KINDS)
    }
    return float((costs["genuine"] + np.mean([costs[kind] for kind in KINDS])) / (2.0 * np.log(2.0)))
