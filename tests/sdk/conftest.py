"""A small bundle that works, and a home of its own for every test that asks for one."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from edgepin._bundle.bundle import write_bundle
from edgepin._bundle.manifest import Manifest
from edgepin._bundle.signing import SigningKey
from edgepin._capture.faces import FaceSpec
from edgepin._decision.calibration import calibrate
from edgepin_kernels import LogMelSpec

from .simulated_people import World

DATA = Path(__file__).resolve().parent / "data"
# The spread of what the tiny encoders answer to synthetic captures: far apart, as the tests are of the ways
# and not of the encoders.
APART = World(face=(0.85, 0.0, 0.13), voice=(0.95, 0.2, 0.14))


class Pins(NamedTuple):
    """Two signed bundles of the same encoders, and the public key (PEM) of their maker."""

    site: Path
    other: Path
    maker: bytes


@pytest.fixture(scope="session")
def pins(tmp_path_factory: pytest.TempPathFactory) -> Pins:
    folder, key = tmp_path_factory.mktemp("bundles"), SigningKey.generate()
    fusion = calibrate(APART.trials(30, seed=1, repeats=3), cross_modal=False)
    manifest = Manifest(
        name="tiny",
        created_by="0.1.0",
        log_mel=LogMelSpec(),
        face=FaceSpec(),
        cross_modal=False,
        fusion=fusion.to_json(),
        evidence={"subject_pairs": fusion.evidence.sets["face+voice"].pairs},
        accuracy={},
        training={},
        usage={"purpose": "tests", "restrictions": "for tests alone"},
    )
    members = {
        "card.md": b"# A tiny bundle for tests\n",
        "face.fp32.onnx": (DATA / "face.onnx").read_bytes(),
        "voice.fp32.onnx": (DATA / "voice.onnx").read_bytes(),
    }
    made = Pins(folder / "site.pin", folder / "other.pin", key.public_key.to_pem())
    write_bundle(made.site, manifest, members, key)
    write_bundle(made.other, replace(manifest, name="other"), members, key)
    return made


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pins: Pins) -> Path:
    """`EDGEPIN_HOME`: an empty home but for the trusted key of the bundles' maker. Nothing else is inherited."""
    home = tmp_path / "home"
    (home / "trusted").mkdir(parents=True, mode=0o700)
    (home / "trusted" / "maker.pub").write_bytes(pins.maker)
    for variable in [name for name in os.environ if name.startswith("EDGEPIN_")]:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("EDGEPIN_HOME", str(home))
    return home
