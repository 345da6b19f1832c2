"""The public names. To change one is to break someone's program: this list changes with the changelog."""

from __future__ import annotations

import importlib

import pytest

NAMES = {
    "edgepin": [
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
