"""A smaller bundle of another: fewer precisions of the same encoders, everything else as it was.

A device that only ever runs INT8 need not carry FP32 and FP16. What the bundle promises was measured on all of its
forms, and stays written as it is; the result says whose figures they are.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Sequence
from typing import Any

from .._decision.fusion import Fusion
from .._errors import UsageError
from .bundle import Bundle, write_bundle
from .manifest import CARD, MODALITIES, PORTABLE_VOICE, PRECISIONS, Manifest
from .signing import SigningKey

SLIM_OF = "slim_of"
"""The key in the manifest's `usage` that says what a slim bundle was made of."""


def slim_bundle(
    bundle: Bundle,
    path: str | os.PathLike[str],
    precisions: Collection[str],
    *,
    portable: bool,
    signing_key: SigningKey | None,
) -> str:
    """Writes `bundle` with these precisions alone and returns the new digest. The same arguments give the same bytes.

    The encoders stay byte for byte, and the manifest but for `members` and `usage["slim_of"]`: `digest` and
    `precisions` of `bundle`. The card gets a last paragraph that says the same. Enrollments of `bundle` do not carry
    over, since a store belongs to one digest.

    Args:
        bundle: an opened bundle.
        path: where to; another file there is replaced, and only by a whole one.
        precisions: what to keep, at least one, each of which `bundle` has.
        portable: whether to keep the voice encoder that takes PCM.
        signing_key: None leaves the result unsigned.

    Raises:
        BundleError: the fusion of `bundle` cannot be read.
        UsageError: a precision or form that `bundle` lacks, nothing to leave out, or `path` is `bundle`'s own file.
        EnvironmentFault: the place cannot be written.
    """
    kept = check_slim(bundle, path, precisions, portable=portable)
    names = [f"{modality}.{precision}.onnx" for modality in MODALITIES for precision in kept]
    members = {name: bundle._members[name] for name in (*names, *([PORTABLE_VOICE] if portable else []))}
    card = _slim_card(bundle, kept, portable).encode()
    return write_bundle(path, _slim_manifest(bundle), {CARD: memoryview(card), **members}, signing_key)


def check_slim(
    bundle: Bundle, path: str | os.PathLike[str], precisions: Collection[str], *, portable: bool
) -> tuple[str, ...]:
    """The precisions that `slim_bundle` would keep, best first; raises as it does, with nothing written."""
    Fusion.from_json(bundle.manifest.fusion)  # no signature for what no verifier would open
    kept = _kept(bundle, precisions, portable)
    if os.path.realpath(path) == os.path.realpath(bundle.path):
        raise UsageError(
            f"{os.fspath(path)} is the bundle itself, and would lose what is left out",
            hint="name another file: --out FILE.pin",
        )
    return kept


def left_out(bundle: Bundle, slim: Bundle) -> list[str]:
    """The members of `bundle` that `slim`, which was made of it, lacks."""
    return [name for name in bundle.sizes if name not in slim.sizes]


def _kept(bundle: Bundle, precisions: Collection[str], portable: bool) -> tuple[str, ...]:
    here = bundle.precisions(MODALITIES[0])
    there_is = f"there is {', '.join(here)}"
    if not precisions:
        raise UsageError("at least one precision must be kept", hint=there_is)
    for precision in precisions:
        if precision not in PRECISIONS:
            raise UsageError(f"there is no precision {precision!r}", hint=f"choose {', '.join(PRECISIONS)}")
        if precision not in here:
            raise UsageError(f"the bundle has no {precision} encoders", hint=there_is)
    if portable and bundle.portable_voice is None:
        raise UsageError("the bundle has no portable voice encoder", hint="leave --portable out")
    kept = tuple(precision for precision in here if precision in precisions)
    if kept == here and portable == (bundle.portable_voice is not None):
        raise UsageError("that is all that the bundle has: nothing would be left out", hint=there_is)
    return kept


def _slim_manifest(bundle: Bundle) -> Manifest:
    origin: dict[str, Any] = {"digest": bundle.digest, "precisions": list(bundle.precisions(MODALITIES[0]))}
    return dataclasses.replace(bundle.manifest, usage={**bundle.manifest.usage, SLIM_OF: origin})


def _slim_card(bundle: Bundle, kept: Sequence[str], portable: bool) -> str:
    card = bundle.card if bundle.card.endswith("\n") else bundle.card + "\n"
    all_forms = _in_words(bundle.precisions(MODALITIES[0]), bundle.portable_voice is not None)
    return (
        f"{card}\n## Slim\n\n"
        f"This is the bundle `{bundle.digest}` ({all_forms}) with {_in_words(kept, portable)} alone. Those encoders "
        "are its own, byte for byte. What is said above of other forms, and of calibration, was measured on that bundle. "
        "Whoever was enrolled with it must be enrolled with this one anew.\n"
    )


def _in_words(precisions: Sequence[str], portable: bool) -> str:
    """Such as `FP32, INT8 and a portable voice encoder`."""
    forms = [precision.upper() for precision in precisions]
    forms += ["a portable voice encoder"] if portable else []
    return " and ".join([", ".join(forms[:-1]), forms[-1]] if len(forms) > 1 else forms)
