"""`edgepin verify`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from .console import emit_json, exit_codes, say
from .options import FILE, bundle_options, decision_options, open_verifier
from .store_access import Access, store_access


@click.command()
@click.argument("subject", metavar="ID", required=False)
@click.option(
    "--face",
    "faces",
    type=FILE,
    multiple=True,
    metavar="F.jpg",
    help="An image of the face; more than one are frames of one person, of which the mean decides.",
)
@click.option("--voice", type=FILE, metavar="V.wav", help="A recording of the voice.")
@click.option("--face-cropped", is_flag=True, help="The images are face crops already.")
@click.option(
    "--loop",
    is_flag=True,
    help="Keep the models open: requests as JSON lines from stdin, answers as JSON lines to stdout (docs/loop.md).",
)
@decision_options
@bundle_options
@store_access
@click.option("--json", "as_json", is_flag=True, help="Print the decision as JSON.")
@exit_codes
def verify(
    subject: str | None,
    faces: tuple[Path, ...],
    voice: Path | None,
    face_cropped: bool,
    loop: bool,
    door: str,
    access: Access,
    as_json: bool,
    **opening: Any,
) -> None:
    """Verify that captures are a person's. Exits with 0 for yes and 1 for no.

    An id that is not enrolled is answered like a stranger. After five failures in a row each further attempt has to
    wait (4).

    \b
    Examples:
      edgepin verify badge-0042 --face now.jpg --voice now.wav --bundle site.pin --json
      edgepin verify --loop --door north --bundle site.pin
    """
    from .._errors import UsageError

    if loop:
        if subject is not None or faces or voice is not None or face_cropped:
            raise UsageError(
                "--loop takes ids and captures from stdin",
                hint="leave out ID, --face, --voice and --face-cropped",
            )
        _serve(access, door, opening)
        return
    if subject is None:
        raise UsageError("whom should it be?", hint="edgepin verify ID --face F.jpg --voice V.wav")
    if not faces and voice is None:
        raise UsageError("nothing to verify with", hint="give --face, --voice, or both")
    with open_verifier(access, store_must_exist=True, **opening) as verifier:
        decision = verifier.verify(
            subject, face=list(faces) or None, voice=voice, cropped=face_cropped, door=door
        )
        about = verifier.about
    if as_json:
        emit_json("decision", {"id": subject, **decision.to_json(), "runtime": about})
    else:
        click.echo("accepted" if decision.accepted else "rejected")
        if decision.llr is not None and decision.threshold is not None:
            say(
                f"LLR {decision.llr:+.2f}, accepted from {decision.threshold:+.2f} "
                f"(false match rate at most {decision.fmr:g} on the evidence)"
            )
        for reason in decision.reasons:
            say(f"{reason.code}: {reason.text}")
        say("ms: " + ", ".join(f"{stage} {ms:.1f}" for stage, ms in decision.timings.items()))
    sys.exit(0 if decision.accepted else 1)


def _serve(access: Access, door: str, opening: dict[str, Any]) -> None:
    import json

    from .._loop import read_lines, serve

    def write(answer: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(answer, allow_nan=False) + "\n")
        sys.stdout.flush()

    with open_verifier(access, store_must_exist=True, **opening) as verifier:
        say(f"{verifier.about}; ready")
        serve(verifier, read_lines(sys.stdin.buffer), write, door=door)
