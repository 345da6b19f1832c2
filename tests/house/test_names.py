"""The public names. To change one is to break someone's program: this list changes with the changelog."""

from __future__ import annotations

import importlib

import pytest

import edgepin

NAMES = {
    "edgepin": [
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
    ],
    "edgepin_kernels": [
        "CudaError",
        "CudaLogMel",
        "CudaUnavailableError",
        "DeviceArray",
        "LogMel",
        "LogMelSpec",
        "available_kernels",
        "log_mel_onnx",
        "prepend_log_mel",
        "reference_log_mel",
    ],
}


@pytest.mark.parametrize("package", NAMES)
def test_the_public_names_are_these(package: str) -> None:
    assert sorted(importlib.import_module(package).__all__) == NAMES[package]


@pytest.mark.parametrize("package", NAMES)
def test_every_public_name_is_there_and_documented(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__doc__
    for name in NAMES[package]:
        assert (getattr(module, name).__doc__ or "").strip(), name


def test_every_public_name_of_the_device_is_where_the_package_says() -> None:
    homes = {name for names in edgepin._PLACES.values() for name in names}
    assert homes == set(edgepin.__all__)
    for name in edgepin.__all__:
        assert getattr(edgepin, name).__name__ == name
    assert set(edgepin.__all__) <= set(dir(edgepin))
    with pytest.raises(AttributeError, match="nonsense"):
        edgepin.nonsense  # noqa: B018
