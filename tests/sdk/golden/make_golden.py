"""Make the golden bundles in this folder: what `write_bundle` wrote when format 1 was set.

    python -m tests.sdk.golden.make_golden

They may change only with the format version. Nothing in them depends on a library: the models are written byte by
byte (`tests/sdk/tiny_onnx.py`), the fusion is made up, and Ed25519 signatures are the same everywhere. The key is made
of a fixed seed: anyone can sign with it, so no machine may trust it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from edgepin._bundle.bundle import write_bundle
from edgepin._bundle.manifest import Manifest
from edgepin._bundle.signing import SigningKey
from edgepin._capture.crop import FaceSpec
from edgepin_kernels import LogMelSpec

from ..tiny_onnx import encoder

FOLDER = Path(__file__).resolve().parent
SEED = hashlib.sha256(b"the golden bundles of EdgePIN: trust nothing that this key signs").digest()

CARD = "# Tür 7\n\nA tiny bundle for tests. It recognizes nobody.\n".encode()
MINIMAL = {"card.md": CARD, "face.fp32.onnx": encoder("face", 1), "voice.fp32.onnx": encoder("voice", 2)}
FULL = {
    **MINIMAL,
    "face.fp16.onnx": encoder("face", 3),
    "face.int8.onnx": encoder("face", 4),
    "voice.fp16.onnx": encoder("voice", 5),
    "voice.int8.onnx": encoder("voice", 6),
    "voice.portable.onnx": encoder("portable", 7),
}


def key() -> SigningKey:
    """The key that signs them."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return SigningKey(Ed25519PrivateKey.from_private_bytes(SEED))


def _kind(people: int, thresholds: list[list[float]]) -> dict[str, Any]:
    pairs = people * (people - 1) // 2
    rows = [[*row, pairs - 35] for row in thresholds]  # some of the pairs are dependent
    return {"pairs": pairs, "people": people, "trials": 4 * pairs, "thresholds": rows}


def fusion() -> dict[str, Any]:
    """A made-up fusion: nobody was calibrated on, and nothing that it promises is so."""
    low = [[0.1, 1.0], [0.05, 2.0], [0.02, 3.5]]
    high = [[0.1, 2.0], [0.05, 3.25], [0.02, 5.0]]
    joint = {"stranger": _kind(30, low), "other_voice": _kind(30, high), "other_face": _kind(30, low)}
    calibration = {"center": 0.25, "scale": 0.3, "slope": 4.0, "offset": -0.5}

    def evidence(kinds: dict[str, Any], thresholds: list[list[float]]) -> dict[str, Any]:
        points = [[*row, 0.125] for row in thresholds]
        return {"people": 30, "genuine_trials": 120, "kinds": kinds, "points": points}

    return {
        "format": 2,
        "cross_modal": False,
        "face": calibration,
        "voice": {**calibration, "slope": 3.5},
        "joint": {
            "center": [0.0, 0.0, 0.0, 0.0, -1.5],
            "scale": [2.0, 2.0, 1.0, 1.0, 2.5],
            "weights": [1.0, 0.75, 0.0, 0.0, 1.5],
            "offset": -1.0,
        },
        "evidence": {
            "chimeric": True,
            "folds": 5,
            "floors": {"face": -2.0, "voice": -2.5},
            "sets": {
                "face+voice": evidence(joint, high),
                "face": evidence({"stranger": _kind(30, low)}, low),
                "voice": evidence({"stranger": _kind(30, high)}, high),
            },
            "sessions": {"face+voice": [evidence(joint, high)] * 2, "face": [], "voice": []},
        },
    }


def manifest(name: str) -> Manifest:
    return Manifest(
        name=name,
        created_by="edgepin 0.1.0",
        log_mel=LogMelSpec(),
        face=FaceSpec(size=16),
        cross_modal=False,
        fusion=fusion(),
        evidence={
            "origin": "made up",
            "people": 30,
            "subject_pairs": 435,
            "chimeric": True,
            "lowest_fmr": 0.02,
        },
        accuracy={
            "face": {"precisions": {"fp32": {"eer": 0.5}}},
            "voice": {"precisions": {"fp32": {"eer": 0.5}}},
        },
        training={"steps": 0},
        usage={"purpose": "tests", "restrictions": "recognizes nobody; signed by a key that everyone has"},
    )


BUNDLES: dict[str, tuple[dict[str, bytes], bool]] = {
    "minimal.pin": (MINIMAL, True),
    "full.pin": (FULL, True),
    "unsigned.pin": (MINIMAL, False),
}
"""File name -> its members, and whether it is signed."""


def write(name: str, path: Path) -> str:
    """Writes one of them and returns its digest."""
    members, signed = BUNDLES[name]
    return write_bundle(
        path, manifest(f"golden {name.removesuffix('.pin')}"), members, key() if signed else None
    )


if __name__ == "__main__":
    for name in BUNDLES:
        print(f"{write(name, FOLDER / name)} {name}: {(FOLDER / name).stat().st_size} bytes")
