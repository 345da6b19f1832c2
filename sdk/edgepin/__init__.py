"""Face-and-voice verification that runs on the device itself.

verifier = edgepin.Verifier.open("site.pin", store="enrollments.db")
with verifier.enroll("badge-0042", consent="form 7, 2026-11-23") as session:
    session.add_face("ada.jpg")
    session.add_voice(pcm, sample_rate=16000)
decision = verifier.verify("badge-0042", face="now.jpg", voice="now.wav")
decision.accepted, decision.llr, decision.reasons
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._attempts import AttemptSession
    from ._bundle.bundle import Bundle
    from ._capture.challenge import Challenge, DigitChallenge
    from ._capture.crop import Face, FaceSpec
    from ._capture.face_stream import FaceStream, FrameState
    from ._capture.faces import FaceFinder, HaarFinder, YuNetFinder
    from ._capture.liveness import FrameMotion, Liveness, LivenessCheck
    from ._capture.quality import Quality, QualityLimits
    from ._capture.silero import SileroDetector
    from ._capture.voice_stream import StreamState, VoiceStream, VoiceStreamLimits
    from ._decision.decision import Decision
    from ._decision.fusion import Scores
    from ._decision.policy import Policy, Reason
    from ._decision.site import SiteCalibration
    from ._enrollment import CaptureFeedback, Enrolled, Enrollment, EnrollmentFeedback
    from ._errors import (
        AlreadyEnrolledError,
        BundleError,
        BundleNotFoundError,
        CaptureError,
        DeadlineExceededError,
        EdgePinError,
        EnvironmentFault,
        IntegrityError,
        LockedOutError,
        MissingExtraError,
        PolicyError,
        StoreError,
        UnknownSubjectError,
        UsageError,
    )
    from ._guard.clock import Clock, SystemClock
    from ._guard.guard import Guard
    from ._guard.limits import GuardLimits
    from ._identify import Candidate, Identification
    from ._pipeline import Pipeline
    from ._runtime.runtime import Runtime
    from ._store.consent import Consent
    from ._store.counter import MonotonicCounter
    from ._store.credential import SystemdCredential
    from ._store.keys import KeyFile, KeyProvider, MemoryKey, open_key
    from ._store.passphrase import PassphraseFile
    from ._store.store import Store
    from ._store.tpm import TpmCounter, TpmKey
    from ._verifier import Verifier

# Where each public name is. A name's module is imported when the name is first used: `import edgepin` costs next to
# nothing, and a program pays for what it uses.
_PLACES = {
    "_attempts": ("AttemptSession",),
    "_bundle.bundle": ("Bundle",),
    "_capture.challenge": (
        "Challenge",
        "DigitChallenge",
    ),
    "_capture.crop": (
        "Face",
        "FaceSpec",
    ),
    "_capture.face_stream": (
        "FaceStream",
        "FrameState",
    ),
    "_capture.faces": (
        "FaceFinder",
        "HaarFinder",
        "YuNetFinder",
    ),
    "_capture.liveness": (
        "FrameMotion",
        "Liveness",
        "LivenessCheck",
    ),
    "_capture.quality": (
        "Quality",
        "QualityLimits",
    ),
    "_capture.silero": ("SileroDetector",),
    "_capture.voice_stream": (
        "StreamState",
        "VoiceStream",
        "VoiceStreamLimits",
    ),
    "_decision.decision": ("Decision",),
    "_decision.fusion": ("Scores",),
    "_decision.policy": (
        "Policy",
        "Reason",
    ),
    "_decision.site": ("SiteCalibration",),
    "_enrollment": (
        "CaptureFeedback",
        "Enrolled",
        "Enrollment",
        "EnrollmentFeedback",
    ),
    "_errors": (
        "AlreadyEnrolledError",
        "BundleError",
        "BundleNotFoundError",
        "CaptureError",
        "DeadlineExceededError",
        "EdgePinError",
        "EnvironmentFault",
        "IntegrityError",
        "LockedOutError",
        "MissingExtraError",
        "PolicyError",
        "StoreError",
        "UnknownSubjectError",
        "UsageError",
    ),
    "_guard.clock": (
        "Clock",
        "SystemClock",
    ),
    "_guard.guard": ("Guard",),
    "_guard.limits": ("GuardLimits",),
    "_identify": (
        "Candidate",
        "Identification",
    ),
    "_pipeline": ("Pipeline",),
    "_runtime.runtime": ("Runtime",),
    "_store.consent": ("Consent",),
    "_store.counter": ("MonotonicCounter",),
    "_store.credential": ("SystemdCredential",),
    "_store.keys": (
        "KeyFile",
        "KeyProvider",
        "MemoryKey",
        "open_key",
    ),
    "_store.passphrase": ("PassphraseFile",),
    "_store.store": ("Store",),
    "_store.tpm": (
        "TpmCounter",
        "TpmKey",
    ),
    "_verifier": ("Verifier",),
}
_HOMES = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "AlreadyEnrolledError",
    "AttemptSession",
    "Bundle",
    "BundleError",
    "BundleNotFoundError",
    "Candidate",
    "CaptureError",
    "CaptureFeedback",
    "Challenge",
    "Clock",
    "Consent",
    "DeadlineExceededError",
    "Decision",
    "DigitChallenge",
    "EdgePinError",
    "Enrolled",
    "Enrollment",
    "EnrollmentFeedback",
    "EnvironmentFault",
    "Face",
    "FaceFinder",
    "FaceSpec",
    "FaceStream",
    "FrameMotion",
    "FrameState",
    "Guard",
    "GuardLimits",
    "HaarFinder",
    "Identification",
    "IntegrityError",
    "KeyFile",
    "KeyProvider",
    "Liveness",
    "LivenessCheck",
    "LockedOutError",
    "MemoryKey",
    "MissingExtraError",
    "MonotonicCounter",
    "PassphraseFile",
    "Pipeline",
    "Policy",
    "PolicyError",
    "Quality",
    "QualityLimits",
    "Reason",
    "Runtime",
    "Scores",
    "SileroDetector",
    "SiteCalibration",
    "Store",
    "StoreError",
    "StreamState",
    "SystemClock",
    "SystemdCredential",
    "TpmCounter",
    "TpmKey",
    "UnknownSubjectError",
    "UsageError",
    "Verifier",
    "VoiceStream",
    "VoiceStreamLimits",
    "YuNetFinder",
    "open_key",
]


def __getattr__(name: str) -> Any:
    module = _HOMES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
