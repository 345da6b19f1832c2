"""`edgepin verify`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .console import emit_json, exit_codes, say
from .options import FILE, bundle_options, open_verifier, store_options


@click.command()
@click.argument("subject", metavar="ID")
@click.option("--face", type=FILE, metavar="F.jpg", help="An image of the face.")
@click.option("--voice", type=FILE, metavar="V.wav", help="A recording of the voice.")
@click.option("--face-cropped", is_flag=True, help="The image is a face crop already.")
@click.option(
    "--policy-fmr",
    type=float,
    metavar="X",
    help="The false match rate to promise, such as 0.001. Default: the lowest that the evidence carries.",
)
@click.option(
    "--allow-voice-alone", is_flag=True, help="Let a voice without a face decide. It is no authentication."
)
@bundle_options
@store_options
@click.option("--json", "as_json", is_flag=True, help="Print the decision as JSON.")
@exit_codes
def verify(
    subject: str,
    face: Path | None,
    voice: Path | None,
    face_cropped: bool,
    policy_fmr: float | None,
    allow_voice_alone: bool,
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
    """Verify that captures are a person's. Exits with 0 for yes and 1 for no.

    An id that is not enrolled is answered like a stranger.

    \b
    Example:
      edgepin verify badge-0042 --face now.jpg --voice now.wav --bundle site.pin --json
    """
    from .._decision.policy import Policy
    from .._errors import UsageError

    if face is None and voice is None:
        raise UsageError("nothing to verify with", hint="give --face, --voice, or both")
    policy = Policy(fmr=policy_fmr, allow_voice_alone=allow_voice_alone)
    with open_verifier(
        bundle,
        store,
        allow_unsigned=allow_unsigned,
        backend=backend,
        require=require,
        precision=precision,
        face_finder=face_finder,
        key_file=key_file,
        policy=policy,
        store_must_exist=True,
    ) as verifier:
        decision = verifier.verify(subject, face=face, voice=voice, cropped=face_cropped)
        about = verifier.about
    if as_json:
        emit_json("decision", {"id": subject, **decision.to_json(), "runtime": about})
    else:
        click.echo("accepted" if decision.accepted else "rejected")
        if decision.llr is not None and decision.threshold is not None:
            say(
                f"LLR {decision.llr:+.2f}, accepted from {decision.threshold:+.2f} "
                f"(false match rate at most {decision.fmr:g} on the bundle's evidence)"
            )
        for reason in decision.reasons:
            say(f"{reason.code}: {reason.text}")
        say("ms: " + ", ".join(f"{stage} {ms:.1f}" for stage, ms in decision.timings.items()))
    sys.exit(0 if decision.accepted else 1)
