"""Templates that grow by themselves, where the policy allows it: a face and a voice change with the years."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from ._decision.decision import Decision
from ._decision.fusion import FACE, FACE_AND_VOICE, VOICE
from ._errors import EdgePinError
from ._pipeline import Capture
from ._store.template import Template

if TYPE_CHECKING:
    from ._verifier import Verifier

LEARNED_CAPTURES = 10
"""Captures of a modality up to which a template grows."""
LEARNING_MARGIN = 10.0
"""How many times stricter a false match rate an attempt must reach for its captures to enter the template."""
LEARNING_FMR = 0.01
"""The loosest false match rate at which anything is learned, whatever the policy is."""


def learn(
    verifier: Verifier,
    subject: str,
    enrolled: Mapping[str, Template],
    captures: Mapping[str, Sequence[Capture]],
    decision: Decision,
) -> None:
    """Lets the template grow by an accepted attempt, where the policy allows it and the attempt was beyond doubt."""
    if not verifier.policy.policy.adaptive_update or not decision.accepted or decision.fmr is None:
        return
    if set(captures) != {FACE, VOICE} or decision.scores.captured != FACE_AND_VOICE:
        return
    point = verifier.fusion.evidence.sets[FACE_AND_VOICE].at(
        min(decision.fmr / LEARNING_MARGIN, LEARNING_FMR)
    )
    if point is None or not verifier.fusion.llr(decision.scores) >= point.threshold:
        return
    grown = {}
    for modality, group in captures.items():
        room = LEARNED_CAPTURES - len(enrolled[modality].identity) if modality in enrolled else 0
        if room > 0:
            first = group[0].embedding
            grown[modality] = Template(first.identity[None], first.pin[None])
    if not grown:
        return
    # The person was accepted and told so; that nothing could be learned does not change it.
    with suppress(EdgePinError):
        verifier.store.append(subject, grown, to=enrolled)
        verifier.guard.note("learned", subject, {f"{modality}s": 1 for modality in grown})
