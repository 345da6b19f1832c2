"""Encoders of the project's own export, and TensorRT for RTX to build them with. It needs no GPU to build."""

from __future__ import annotations

import importlib

import pytest

from edgepin._runtime.tensorrt_api import Log, TensorRT

from ..sdk.conftest import device, pins  # noqa: F401

PACKAGES = ("tensorrt_rtx_bindings", "tensorrt_rtx")


@pytest.fixture(scope="session")
def tensorrt():
    for name in PACKAGES:
        try:
            module = importlib.import_module(name)
        except Exception as error:  # ImportError, or what its loader raises without its libraries
            reason = error
        else:
            return TensorRT(module, "tensorrt-rtx", module.__version__, Log(module))
    pytest.skip(f"TensorRT for RTX is not here: {reason}")


@pytest.fixture(scope="session")
def models(tensorrt):
    """(form, precision) -> ONNX. The weights are random: what they compute does not matter here, and where types change
    does not depend on them."""
    torch = pytest.importorskip("torch", reason="making encoders needs torch")
    from edgepin_export._fp16 import to_fp16
    from edgepin_export._onnx import to_onnx
    from edgepin_export._portable import portable_voice
    from edgepin_export._quantize import observe, quantize
    from edgepin_kernels import LogMelSpec
    from edgepin_training.encoders import FaceEncoder, VoiceEncoder

    from ..export.conftest import lived_in, make_feed

    torch.manual_seed(0)
    made = {
        ("face", "fp32"): to_onnx(lived_in(FaceEncoder(0.25, size=32)), "face", size=32),
        ("voice", "fp32"): to_onnx(lived_in(VoiceEncoder(0.25, mels=80)), "voice"),
    }
    for form in ("face", "voice"):
        fp32 = made[form, "fp32"]
        feeds = [make_feed(form, 2, 98, seed) for seed in range(3)]
        made[form, "fp16"] = to_fp16(fp32, feeds).model
        made[form, "int8"] = quantize(fp32, observe(fp32, feeds))
    made["voice.portable", "fp32"] = portable_voice(made["voice", "fp32"], LogMelSpec())
    return made
