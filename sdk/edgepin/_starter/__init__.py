"""The packaged starter: a bundle of our own that is there after a plain install, and rendered people to try it on.

It needs no signature: its digest lies beside it, in files as trustworthy as the code that reads them.
"""

from __future__ import annotations

import re
from pathlib import Path

from .. import _canonical_json
from .._bundle.bundle import Bundle
from .._decision.fusion import Fusion
from .._decision.site import SiteCalibration
from .._errors import BundleError, BundleNotFoundError
from .._json_fields import fields

FOLDER = Path(__file__).parent
BUNDLE, DIGEST, PEOPLE = FOLDER / "starter.pin", FOLDER / "starter.digest", FOLDER / "people"
CALIBRATION = FOLDER / "people.calibration.json"


def starter_digest() -> str:
    """SHA-256 in hex of the packaged bundle's manifest; raises as `open_starter`."""
    try:
        digest = DIGEST.read_text("ascii").strip()
    except FileNotFoundError:
        raise BundleNotFoundError(
            "this installation has no packaged starter bundle",
            hint="make a bundle: edgepin train --data DIR --out RUN && edgepin export RUN --out site.pin; "
            "then give --bundle site.pin",
        ) from None
    except (OSError, UnicodeDecodeError):
        digest = ""
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise _damaged("its digest cannot be read")
    return digest


def open_starter() -> Bundle:
    """The packaged bundle, checked as any other.

    Raises:
        BundleNotFoundError: this installation was made without one.
        BundleError: it is damaged, or not the one that belongs here.
    """
    digest = starter_digest()
    try:
        bundle = Bundle.open(BUNDLE, allow_unsigned=True, trusted_digests=(digest,))
    except BundleNotFoundError:
        raise _damaged("its file is missing") from None
    except BundleError as error:
        raise _damaged(str(error)) from error
    if bundle.digest != digest:  # whoever signed it
        raise _damaged("it is another bundle than the one that belongs here")
    return bundle


def is_starter(path: Path) -> bool:
    """Whether `path` leads to the packaged bundle's own file."""
    try:
        return path.samefile(BUNDLE)
    except (OSError, ValueError):
        return False


def people_calibration(bundle: Bundle) -> SiteCalibration:
    """The packaged bundle's calibration for the packaged people, fitted on other rendered ones.

    Raises BundleError if it is not there, damaged, or of another bundle.
    """
    try:
        found = fields(_canonical_json.decode(CALIBRATION.read_bytes()), ("bundle", "fusion"), "calibration")
        fusion = Fusion.from_json(found["fusion"])
    except (OSError, ValueError, BundleError) as error:
        raise _damaged(f"the calibration of its people cannot be used: {error}") from error
    if found["bundle"] != bundle.digest:
        raise _damaged("the calibration of its people belongs to another bundle")
    return SiteCalibration.of(bundle, fusion)


def _damaged(why: str) -> BundleError:
    return BundleError(f"the packaged starter is damaged: {why}", hint="install the package again")
