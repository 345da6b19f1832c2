"""`edgepin enroll`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from .console import emit_json, exit_codes, say
from .options import FILE, bundle_options, open_verifier
from .store_access import Access, store_access


@click.command()
@click.argument("subject", metavar="ID")
@click.option(
    "--face",
    "faces",
    type=FILE,
    multiple=True,
    metavar="F.jpg",
    help="An image of the face; may be repeated.",
)
@click.option(
    "--voice",
    "voices",
    type=FILE,
    multiple=True,
    metavar="V.wav",
    help="A recording of the voice; may be repeated.",
)
@click.option("--face-cropped", is_flag=True, help="The images are face crops already.")
@click.option("--consent", help="What the person agreed to, and when; kept encrypted beside the templates.")
@click.option("--replace", is_flag=True, help="Replace the templates of an id that is enrolled already.")
@click.option(
    "--consent-days",
    type=click.IntRange(1, 36_500),
    metavar="N",
    help="After how many days the consent runs out (edgepin store expire).",
)
@click.option(
    "--check-duplicates",
    is_flag=True,
    help="Compare with everybody who is enrolled, and report who looks like the same person.",
)
@bundle_options
@store_access
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@exit_codes
def enroll(
    subject: str,
    faces: tuple[Path, ...],
    voices: tuple[Path, ...],
    face_cropped: bool,
    consent: str | None,
    replace: bool,
    consent_days: int | None,
    check_duplicates: bool,
    access: Access,
    as_json: bool,
    **opening: Any,
) -> None:
    """Enroll a person from images and recordings.

    All captures must be usable, or nothing is enrolled. Both a face and a voice are wanted: one alone verifies less surely.

    \b
    Example:
      edgepin enroll badge-0042 --face ada.jpg --voice ada.wav --bundle site.pin --consent "form 7, 2026-11-23"
    """
    from .._errors import CaptureError, UsageError

    if not faces and not voices:
        raise UsageError("nothing to enroll from", hint="give --face, --voice, or both; each may be repeated")
    if consent_days is not None and consent is None:
        raise UsageError("--consent-days needs --consent", hint="say what the person agreed to")
    expires = None if consent_days is None else time.time() + 86_400.0 * consent_days
    with open_verifier(access, **opening) as verifier:
        session = verifier.enroll(
            subject, consent=consent, expires=expires, replace=replace, check_duplicates=check_duplicates
        )
        for kind, path in [("face", path) for path in faces] + [("voice", path) for path in voices]:
            try:
                told = (
                    session.add_face(path, cropped=face_cropped)
                    if kind == "face"
                    else session.add_voice(path)
                )
            except CaptureError as error:
                raise CaptureError(f"{path}: {error}", code=error.code, hint=error.hint) from error
            if not told.agrees:
                say(f"{path}: does not look like the same person as the {kind}s before it")
        enrolled = session.commit()
        advice = session.feedback.advice
    if as_json:
        emit_json("enrollment", {**enrolled.to_json(), "consent": consent, "advice": list(advice)})
        return
    say(
        f"enrolled {subject}: {enrolled.faces} face and {enrolled.voices} voice captures"
        + ("" if consent else "; no consent on record (--consent)")
    )
    if enrolled.left_out:
        say(f"left out, as they do not agree with the others: {', '.join(enrolled.left_out)}")
    if advice:
        say(f"for a good template: {'; '.join(advice)}")
    if enrolled.duplicates:
        say(f"looks like the same person: {', '.join(enrolled.duplicates)}")
