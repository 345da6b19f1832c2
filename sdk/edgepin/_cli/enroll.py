"""`edgepin enroll`."""

from __future__ import annotations

from pathlib import Path

import click

from .console import emit_json, exit_codes, say
from .options import FILE, bundle_options, open_verifier, store_options


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
@bundle_options
@store_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@exit_codes
def enroll(
    subject: str,
    faces: tuple[Path, ...],
    voices: tuple[Path, ...],
    face_cropped: bool,
    consent: str | None,
    replace: bool,
    bundle: Path | None,
    allow_unsigned: bool,
    backend: str,
    require: str | None,
    precision: str,
    face_finder: Path | None,
    store: Path | None,
    key_file: Path | None,
    as_json: bool,
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
    with open_verifier(
        bundle,
        store,
        allow_unsigned=allow_unsigned,
        backend=backend,
        require=require,
        precision=precision,
        face_finder=face_finder,
        key_file=key_file,
    ) as verifier:
        session = verifier.enroll(subject, consent=consent, replace=replace)
        for kind, path in [("face", path) for path in faces] + [("voice", path) for path in voices]:
            try:
                if kind == "face":
                    session.add_face(path, cropped=face_cropped)
                else:
                    session.add_voice(path)
            except CaptureError as error:
                raise CaptureError(f"{path}: {error}", code=error.code, hint=error.hint) from error
        session.commit()
    if as_json:
        emit_json(
            "enrollment", {"id": subject, "faces": len(faces), "voices": len(voices), "consent": consent}
        )
    else:
        say(
            f"enrolled {subject}: {len(faces)} face and {len(voices)} voice captures"
            + ("" if consent else "; no consent on record (--consent)")
        )
