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

FOLDER = Path(__file__).parent
BUNDLE, DIGEST, PEOPLE = FOLDER / "starter.pin", FOLDER / "starter.digest", FOLDER / "people"
CALIBRATION = FOLDER / "people.calibration.json"


def open_starter() -> Bundle:
    """The packaged bundle, checked as any other.

    Raises:
        BundleNotFoundError: this installation was made without one.
        BundleError: it is damaged, or not the one that belongs here.
    """
    try:
        digest = DIGEST.read_text("ascii").strip()
    except OSError:
        raise BundleNotFoundError(
            "this installation has no packaged starter bundle",
            hint="make a bundle: edgepin train --data DIR --out RUN && edgepin export RUN --out site.pin; "
            "then give --bundle site.pin",
        ) from None
    except UnicodeDecodeError:
        digest = ""
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise BundleError("the packaged starter's digest is damaged", hint="install the package again")
    try:
        return Bundle.open(BUNDLE, trusted_digests=(digest,))
    except BundleNotFoundError:
        raise
    except BundleError as error:
        raise BundleError(f"the packaged starter: {error}", hint="install the package again") from error


def people_calibration(bundle: Bundle) -> SiteCalibration:
    """The packaged bundle's calibration for the packaged people, fitted on other rendered ones.

    Raises BundleError if it is not there or damaged.
    """
    try:
        fusion = Fusion.from_json(_canonical_json.decode(CALIBRATION.read_bytes()))
    except (OSError, ValueError, BundleError) as error:
        raise BundleError(
            f"the packaged people's calibration cannot be used: {error}", hint="install the package again"
        ) from error
    return SiteCalibration.of(bundle, fusion)
