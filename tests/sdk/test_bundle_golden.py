"""Format 1 is these bytes: a bundle written years ago opens, and the same inputs still give the same file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgepin import Bundle, BundleError, Verifier
from edgepin._bundle.manifest import FORMAT_VERSION
from edgepin._store.keys import MemoryKey

from .golden.make_golden import BUNDLES, FOLDER, key, manifest, write
from .synthetic_captures import voice

# Of the stored manifests, and through them of everything. They change with the format version and never else.
DIGESTS = {
    "minimal.pin": "a84d956ecac9d9e445fb1d77a53aec0fec102f3bdf487b6b709cf51de166b128",
    "full.pin": "fa15cda7e17be2ad9e3762bcfa40ea96b4fde9cb34bc86a5b32050456fee568b",
    "unsigned.pin": "b88c6de15740a0c9a978f7e6dd18d3385b95833593408aadefcade316c7ad9d1",
}
WHAT_TO_DO = (
    "the bytes of format 1 have changed: restore them, or give the format another version and new goldens"
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that trusts the golden key."""
    home = tmp_path / "home"
    (home / "trusted").mkdir(parents=True, mode=0o700)
    (home / "trusted" / "golden.pub").write_bytes(key().public_key.to_pem())
    monkeypatch.setenv("EDGEPIN_HOME", str(home))
    return home


def test_the_goldens_are_of_this_format_and_all_are_here() -> None:
    assert FORMAT_VERSION == 1, WHAT_TO_DO
    assert {path.name for path in FOLDER.glob("*.pin")} == BUNDLES.keys() == DIGESTS.keys()
    assert all(path.stat().st_size < 16_000 for path in FOLDER.glob("*.pin"))


@pytest.mark.parametrize("name", BUNDLES)
def test_todays_code_writes_exactly_these_bytes(name: str, tmp_path: Path) -> None:
    assert write(name, tmp_path / name) == DIGESTS[name], WHAT_TO_DO
    assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes(), WHAT_TO_DO


@pytest.mark.parametrize("name", BUNDLES)
def test_a_golden_bundle_opens_with_all_that_was_put_in(name: str) -> None:
    members, signed = BUNDLES[name]
    bundle = Bundle.open(FOLDER / name, allow_unsigned=not signed)
    assert (bundle.digest, bundle.signature) == (DIGESTS[name], "trusted" if signed else "unsigned")
    assert bundle.key_id == (key().key_id if signed else None)
    assert bundle.sizes == {member: len(members[member]) for member in bundle.sizes}
    assert bundle.sizes.keys() == members.keys()
    assert bundle.manifest.to_json() == {
        **manifest(f"golden {name.removesuffix('.pin')}").to_json(), "members": bundle.manifest.members
    }  # fmt: skip
    assert bundle.card.startswith("# Tür 7\n")


def test_the_precisions_of_a_bundle_without_int8_and_of_one_with_everything() -> None:
    minimal, full = Bundle.open(FOLDER / "minimal.pin"), Bundle.open(FOLDER / "full.pin")
    for modality in ("face", "voice"):
        assert minimal.precisions(modality) == ("fp32",)
        assert full.precisions(modality) == ("fp32", "fp16", "int8")
        for precision in full.precisions(modality):
            assert full.model(modality, precision) == BUNDLES["full.pin"][0][f"{modality}.{precision}.onnx"]
    assert minimal.portable_voice is None
    assert full.portable_voice == BUNDLES["full.pin"][0]["voice.portable.onnx"]


def test_a_golden_bundle_enrolls_and_verifies(tmp_path: Path) -> None:
    picture = np.random.default_rng(5).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    store = tmp_path / "store.db"
    with Verifier.open(FOLDER / "full.pin", store, key=MemoryKey(bytes(32))) as verifier:
        with verifier.enroll("ada") as session:
            session.add_face(picture, cropped=True)
            session.add_voice(voice(1, 0), sample_rate=16_000)
        decision = verifier.verify("ada", face=picture, voice=voice(1, 0), sample_rate=16_000, cropped=True)
    # The same captures again: as alike as can be, in both modalities.
    assert decision.scores.face == pytest.approx(1.0, abs=1e-5)
    assert decision.scores.voice == pytest.approx(1.0, abs=1e-5)


def test_the_golden_key_is_trusted_nowhere_by_itself(home: Path) -> None:
    (home / "trusted" / "golden.pub").unlink()
    with pytest.raises(BundleError, match="does not trust"):
        Bundle.open(FOLDER / "full.pin")


def test_the_golden_models_are_onnx() -> None:
    onnx = pytest.importorskip("onnx", reason="needs the onnx package")
    for members, _ in BUNDLES.values():
        for name, data in members.items():
            if name.endswith(".onnx"):
                onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
