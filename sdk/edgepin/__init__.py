"""Face-and-voice verification that runs on the device itself.

verifier = edgepin.Verifier.open("site.pin", store="enrollments.db")
with verifier.enroll("badge-0042", consent="form 7, 2026-11-23") as session:
    session.add_face("ada.jpg")
    session.add_voice(pcm, sample_rate=16000)
decision = verifier.verify("badge-0042", face="now.jpg", voice="now.wav")
decision.accepted, decision.llr, decision.reasons
"""

from ._bundle.bundle import Bundle
from ._capture.faces import Face, FaceFinder, FaceSpec, HaarFinder, YuNetFinder
from ._decision.fusion import Scores
from ._decision.policy import Policy, Reason
from ._errors import (
    AlreadyEnrolledError,
    BundleError,
    BundleNotFoundError,
    CaptureError,
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
from ._runtime.runtime import Runtime
from ._store.keys import KeyFile, KeyProvider, MemoryKey
from ._store.store import Store
from ._verifier import Decision, Enrollment, Verifier

__all__ = [
    "AlreadyEnrolledError",
    "Bundle",
    "BundleError",
    "BundleNotFoundError",
    "CaptureError",
    "Decision",
    "EdgePinError",
    "Enrollment",
    "EnvironmentFault",
    "Face",
    "FaceFinder",
    "FaceSpec",
    "HaarFinder",
    "IntegrityError",
    "KeyFile",
    "KeyProvider",
    "LockedOutError",
    "MemoryKey",
    "MissingExtraError",
    "Policy",
    "PolicyError",
    "Reason",
    "Runtime",
    "Scores",
    "Store",
    "StoreError",
    "UnknownSubjectError",
    "UsageError",
    "Verifier",
    "YuNetFinder",
]
