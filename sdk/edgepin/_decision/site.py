"""A site's own calibration: a signed file with a fusion, bound to the bundle whose scores it was fitted on."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import _canonical_json
from .._bundle.bundle import Bundle
from .._bundle.signing import SigningKey, trusted_keys
from .._errors import BundleError, EnvironmentFault, IntegrityError
from .._json_fields import count, fields
from .._safe_files import write_atomic
from .._safe_text import unsafe_character
from .fusion import Fusion

FORMAT = 1
MAX_BYTES = 1 << 20
_DOMAIN = b"edgepin site calibration\n"
"""Before what is signed: so no signature of anything else, by the same key, passes for one of these."""
_HINT = "make it again: edgepin calibrate"


@dataclass(frozen=True)
class SiteCalibration:
    """A fusion that was refitted at a site. What `open` returns was signed by a key that this machine trusts.

    `bundle`: digest of the bundle. `fusion`: in place of the bundle's own. `people`: how many were behind it, by
    modality set. `created_by`: the version that made it. `digest`: SHA-256 in hex of the signed part, for logs.
    """

    bundle: str
    fusion: Fusion
    people: Mapping[str, int]
    created_by: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(self._signed()).hexdigest()

    @classmethod
    def of(cls, bundle: Bundle, fusion: Fusion) -> SiteCalibration:
        """A calibration for `bundle`, of this version."""
        people = {name: evidence.people for name, evidence in fusion.evidence.sets.items()}
        return cls(bundle.digest, fusion, people, f"edgepin {metadata.version('edgepin')}")

    def write(self, path: str | os.PathLike[str], key: SigningKey) -> None:
        """Writes the file, whole or not at all. Raises `EnvironmentFault` where that cannot be done."""
        signature = base64.b64encode(key.sign(_DOMAIN + self._signed())).decode()
        wrapper = {"calibration": self._to_json(), "key_id": key.key_id, "signature": signature}
        write_atomic(Path(path), [_canonical_json.encode(wrapper)])

    @classmethod
    def open(cls, path: str | os.PathLike[str], bundle: Bundle) -> SiteCalibration:
        """Reads and checks a file of at most 1 MiB.

        Raises:
            EnvironmentFault: there is no such file, or it cannot be read.
            IntegrityError: it is none, it is damaged or altered, its key is not trusted, it is of another format, or
                it belongs to another bundle.
        """
        path = Path(path)
        data = _read(path)
        try:
            wrapper = fields(_canonical_json.decode(data), ("calibration", "key_id", "signature"), "file")
            raw = base64.b64decode(wrapper["signature"], validate=True)
            if base64.b64encode(raw).decode() != wrapper["signature"] or not isinstance(
                wrapper["key_id"], str
            ):
                raise ValueError("the signature is malformed")
        except (ValueError, TypeError, BundleError) as error:
            raise IntegrityError(f"{path} is not a site calibration: {error}", hint=_HINT) from None
        key = trusted_keys().get(wrapper["key_id"])
        if key is None:
            raise IntegrityError(
                f"{path} is signed by a key that this machine does not trust",
                hint="calibrate on this machine, or trust the key of the one that did: edgepin bundle trust FILE.pub",
            )
        signed = _canonical_json.encode(wrapper["calibration"])
        if not key.verifies(raw, _DOMAIN + signed):
            raise IntegrityError(f"{path} was altered: its signature is wrong", hint=_HINT)
        try:
            found = cls._from_json(wrapper["calibration"])
        except BundleError as error:
            raise IntegrityError(f"{path}: {error}", hint=_HINT) from None
        if found.bundle != bundle.digest:
            raise IntegrityError(
                f"{path} belongs to another bundle ({found.bundle[:12]}…, not {bundle.digest[:12]}…)",
                hint="scores of one bundle say nothing about another's: calibrate this one",
            )
        if found.fusion.model.cross_modal and not bundle.manifest.cross_modal:
            raise IntegrityError(f"{path} weighs cross-modal scores, which the bundle's encoders do not give")
        return found

    def _signed(self) -> bytes:
        return _canonical_json.encode(self._to_json())

    def _to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "bundle": self.bundle,
            "created_by": self.created_by,
            "people": dict(self.people),
            "fusion": self.fusion.to_json(),
        }

    @classmethod
    def _from_json(cls, value: object) -> SiteCalibration:
        found = fields(value, ("format", "bundle", "created_by", "people", "fusion"), "calibration")
        if count(found["format"], "calibration.format") != FORMAT:
            raise BundleError(f"calibration: format {found['format']} is not read by this version")
        for name in ("bundle", "created_by"):
            text = found[name]
            if not isinstance(text, str) or len(text) > 200 or unsafe_character(text) is not None:
                raise BundleError(f"calibration.{name}: a short text is expected")
        fusion = Fusion.from_json(found["fusion"])
        people = {name: evidence.people for name, evidence in fusion.evidence.sets.items()}
        if found["people"] != people:
            raise BundleError("calibration.people: not those of the fusion's evidence")
        return cls(found["bundle"], fusion, people, found["created_by"])


def _read(path: Path) -> bytes:
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise IntegrityError(f"{path} is not a file")
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise EnvironmentFault(
            f"there is no site calibration {path}", hint="make one: edgepin calibrate"
        ) from None
    except (OSError, ValueError) as error:
        raise EnvironmentFault(f"cannot read the site calibration {str(path)!r}: {error}") from error
    if len(data) > MAX_BYTES:
        raise IntegrityError(f"{path} is larger than {MAX_BYTES >> 20} MiB, so no site calibration")
    return data
