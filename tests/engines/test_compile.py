"""`edgepin compile` with a TensorRT that really builds."""

from __future__ import annotations

import dataclasses
import json

import pytest

from edgepin._bundle.bundle import Bundle, write_bundle
from edgepin._capture.faces import FaceSpec
from edgepin._runtime import tensorrt_api as _tensorrt_api
from edgepin._runtime.engine_cache import EngineCache

from ..sdk.commands import INTEGRITY, YES, invoke


@pytest.fixture
def bundle(pins, device, tensorrt, models, tmp_path, monkeypatch):
    manifest = dataclasses.replace(Bundle.open(pins.site).manifest, face=FaceSpec(size=32))
    members = {
        f"{form}.{precision}.onnx": model for (form, precision), model in models.items() if "." not in form
    }
    members |= {"card.md": b"# engines\n", "voice.portable.onnx": models["voice.portable", "fp32"]}
    write_bundle(tmp_path / "b.pin", manifest, members, None)
    monkeypatch.setattr(_tensorrt_api, "load_tensorrt", lambda: tensorrt)
    return tmp_path / "b.pin"


def test_a_bundle_compiles_and_what_is_there_is_kept(bundle, models, tmp_path):
    arguments = ("compile", bundle, "--allow-unsigned", "--target", "sm_86", "--json")
    for state in ("built", "kept"):
        result = invoke(*arguments, "--report", tmp_path / "report.json")
        assert result.exit_code == YES, result.output
        engines = json.loads(result.stdout)["engines"]
        assert {(engine["form"], engine["precision"]) for engine in engines} == set(models)
        assert {engine["state"] for engine in engines} == {state}
    report = json.loads((tmp_path / "report.json").read_text())
    assert all(len(engine["report"]["layers"]) > 10 for engine in report["engines"])
    assert sum(path.stat().st_size for path in EngineCache().folder.glob("*.engine")) > 1 << 20


def test_an_altered_engine_is_told_and_built_anew(bundle):
    arguments = ("compile", bundle, "--allow-unsigned", "--target", "sm_86", "--precision", "int8", "--json")
    invoke(*arguments)
    path = next(EngineCache().folder.glob("face.int8.*"))
    whole = path.read_bytes()
    path.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    states = {engine["form"]: engine["state"] for engine in json.loads(invoke(*arguments).stdout)["engines"]}
    assert states == {"face": "built", "voice": "kept"}


def test_a_bundle_that_nobody_vouches_for_is_not_compiled(bundle):
    assert invoke("compile", bundle, "--target", "sm_86").exit_code == INTEGRITY
    assert not EngineCache().folder.exists()
