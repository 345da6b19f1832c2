"""What `edgepin bundle inspect` and `verify` tell of a bundle. Nothing here runs a model."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._decision.fusion import FACE_AND_VOICE, Fusion
from .._errors import BundleError
from .bundle import CHECKS, Bundle, open_checked
from .manifest import MODALITIES

ALL_CHECKS = (*CHECKS, "fusion")
"""What `verify_bundle` checks, in this order: what opening does, and the fusion, which `Verifier.open` reads."""


@dataclass(frozen=True)
class BundleVerification:
    """What became of the checks.

    `passed` names those that the bundle passed, in order; `failed` the first that it did not, and `error` why.
    `bundle` is there unless opening failed.
    """

    path: Path
    passed: tuple[str, ...]
    failed: str | None
    error: BundleError | None
    bundle: Bundle | None

    @property
    def intact(self) -> bool:
        """Whether every check passed. Whether anyone vouches for the bundle is another question."""
        return self.failed is None

    @property
    def trusted(self) -> bool:
        """Whether a key that this machine trusts has signed it, or its digest is vouched for."""
        return self.bundle is not None and self.bundle.signature in ("trusted", "pinned")

    def to_json(self) -> dict[str, Any]:
        """Plain values; `signature`, `key_id`, `name` and `digest` are null where opening failed."""
        bundle, error = self.bundle, self.error
        return {
            "path": str(self.path),
            "intact": self.intact,
            "trusted": self.trusted and self.intact,
            "signature": None if bundle is None else bundle.signature,
            "key_id": None if bundle is None else bundle.key_id,
            "name": None if bundle is None else bundle.manifest.name,
            "digest": None if bundle is None else bundle.digest,
            "passed": list(self.passed),
            "failed": self.failed,
            "error": None if error is None else str(error),
            "hint": None if error is None else error.hint,
        }


def verify_bundle(
    path: str | os.PathLike[str], *, trusted_digests: Collection[str] = ()
) -> BundleVerification:
    """Does all checks on a bundle, trusted or not.

    A bundle that fails is answered, not raised. Raises `EnvironmentFault` if the file is not there or cannot be
    read, or a trusted key is unusable.
    """
    passed: list[str] = []
    bundle: Bundle | None = None
    try:
        bundle = open_checked(
            path, allow_unsigned=True, trusted_digests=trusted_digests, passed=passed.append
        )
        Fusion.from_json(bundle.manifest.fusion)
        passed.append("fusion")
    except BundleError as error:
        return BundleVerification(Path(path), tuple(passed), ALL_CHECKS[len(passed)], error, bundle)
    return BundleVerification(Path(path), tuple(passed), None, None, bundle)


def describe_bundle(bundle: Bundle) -> dict[str, Any]:
    """Everything that a bundle says, as plain values. Raises `BundleError` if its fusion cannot be read."""
    manifest, sizes = bundle.manifest, bundle.sizes
    fusion = Fusion.from_json(manifest.fusion)
    usual = fusion.evidence.sets[FACE_AND_VOICE].usual
    return {
        "path": str(bundle.path),
        "name": manifest.name,
        "digest": bundle.digest,
        "signature": bundle.signature,
        "key_id": bundle.key_id,
        "format_version": manifest.format_version,
        "created_by": manifest.created_by,
        "members": {name: {"bytes": size, "sha256": manifest.members[name]} for name, size in sizes.items()},
        "precisions": {modality: list(bundle.precisions(modality)) for modality in MODALITIES},
        "portable_voice": bundle.portable_voice is not None,
        "embedding_dim": manifest.embedding_dim,
        "cross_modal": manifest.cross_modal,
        "log_mel": manifest.log_mel.to_json(),
        "face": manifest.face.to_json(),
        "policies": _policies(fusion),
        "default_fmr": None if usual is None else usual.fmr,
        "evidence": dict(manifest.evidence),
        "accuracy": dict(manifest.accuracy),
        "fusion": dict(manifest.fusion),
        "training": dict(manifest.training),
        "usage": dict(manifest.usage),
        "card": bundle.card,
    }


def _policies(fusion: Fusion) -> list[dict[str, float]]:
    """What may be promised with face and voice, loosest first, and what each costs in right people rejected."""
    points = fusion.evidence.sets[FACE_AND_VOICE].points
    return [{"fmr": point.fmr, "threshold": point.threshold, "fnmr": point.fnmr} for point in points]
