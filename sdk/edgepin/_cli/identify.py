"""`edgepin identify`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from .console import emit_json, exit_codes, say
from .options import FILE, bundle_options, open_verifier
from .store_access import Access, store_access


@click.command()
@click.option(
    "--face",
    "faces",
    type=FILE,
    multiple=True,
    metavar="F.jpg",
    help="An image of the face, or several of one person.",
)
@click.option("--voice", type=FILE, metavar="V.wav", help="A recording of the voice.")
@click.option("--face-cropped", is_flag=True, help="The images are face crops already.")
@click.option("--top", type=click.IntRange(1, 1000), default=5, show_default=True, help="Candidates to list.")
@click.option(
    "--allow-identification",
    is_flag=True,
    help="Search everybody who is enrolled. Without it this verb refuses: 1:N is another thing than 1:1, in law too.",
)
@click.option(
    "--policy-fmr",
    type=float,
    metavar="X",
    help="The chance to promise for a stranger to be taken for anybody. Default: that of the bundle's default policy for 1:1.",
)
@click.option(
    "--calibration",
    type=FILE,
    metavar="SITE.cal",
    envvar="EDGEPIN_CALIBRATION",
    show_envvar=True,
    help="A site's own calibration (edgepin calibrate) in place of the bundle's.",
)
@bundle_options
@store_access
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@exit_codes
def identify(
    faces: tuple[Path, ...],
    voice: Path | None,
    face_cropped: bool,
    top: int,
    access: Access,
    as_json: bool,
    **opening: Any,
) -> None:
    """Search everybody who is enrolled for a person (1:N). Exits with 0 for a match and 1 for none.

    \b
    Example:
      edgepin identify --face now.jpg --voice now.wav --allow-identification --bundle site.pin
    """
    from .._errors import PolicyError, UsageError

    if not opening["allow_identification"]:
        raise PolicyError(
            "identification (1:N) is off",
            hint="verify an id instead, or allow it knowingly: --allow-identification",
        )
    if not faces and voice is None:
        raise UsageError("nothing to search with", hint="give --face, --voice, or both")
    with open_verifier(access, store_must_exist=True, **opening) as verifier:
        found = verifier.identify(face=list(faces) or None, voice=voice, cropped=face_cropped, top=top)
    if as_json:
        emit_json("identification", found.to_json())
    else:
        click.echo(found.match or "no match")
        for candidate in found.candidates:
            say(f"LLR {candidate.llr:+7.2f}  {candidate.subject}")
        if found.reason == "insufficient_evidence":
            say(
                f"the evidence carries no match among {found.searched} people at this policy; these are candidates "
                "for a human to look at"
            )
    sys.exit(0 if found.match is not None else 1)
