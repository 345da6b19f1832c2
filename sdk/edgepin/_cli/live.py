"""`edgepin live`: enroll and verify from a camera and a microphone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .console import emit_json, exit_codes, say
from .options import bundle_options, decision_options, open_verifier
from .store_access import Access, store_access

if TYPE_CHECKING:
    from .._capture.camera import Camera
    from .._capture.face_stream import FrameState
    from .._capture.microphone import Microphone
    from .._capture.session import LiveCapture
    from .._capture.voice_stream import StreamState
    from .._pipeline import Pipeline

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def live() -> None:
    """Enroll and verify from a camera and a microphone.

    \b
    Examples:
      edgepin live enroll badge-0042 --consent "form 7, 2026-11-23" --bundle site.pin
      edgepin live verify badge-0042 --door north --bundle site.pin
    """


def _source_options(verb: F) -> F:
    """--camera, --microphone, --frames, --seconds, --timeout, --require-motion: all of a `Sources`."""
    for option in reversed(
        (
            click.option(
                "--camera",
                metavar="SOURCE",
                default="0",
                show_default=True,
                help="A device's number, a GStreamer pipeline, a video file or an image sequence; none for no face.",
            ),
            click.option(
                "--microphone",
                metavar="SOURCE",
                default="default",
                show_default=True,
                help="default, a device's number, device:NAME or a sound file; none for no voice.",
            ),
            click.option(
                "--frames",
                type=click.IntRange(1, 32),
                default=5,
                show_default=True,
                help="Good frames that are enough.",
            ),
            click.option(
                "--seconds",
                type=click.FloatRange(1.0, 15.0),
                default=3.0,
                show_default=True,
                help="Seconds of speech that are enough.",
            ),
            click.option(
                "--timeout",
                type=click.FloatRange(1.0, 60.0),
                default=20.0,
                show_default=True,
                help="Seconds after which a capture gives up.",
            ),
            click.option(
                "--require-motion",
                is_flag=True,
                help="Reject frames that do not move, or move as a flat picture does. It is no proof of life.",
            ),
        )
    ):
        verb = option(verb)
    return verb


@live.command("enroll")
@click.argument("subject", metavar="ID")
@_source_options
@click.option("--consent", help="What the person agreed to, and when; kept encrypted beside the templates.")
@click.option("--replace", is_flag=True, help="Replace the templates of an id that is enrolled already.")
@bundle_options
@store_access
@click.option("--json", "as_json", is_flag=True, help="Print states and the result as JSON lines.")
@exit_codes
def enroll(
    subject: str,
    camera: str,
    microphone: str,
    frames: int,
    seconds: float,
    timeout: float,
    require_motion: bool,
    consent: str | None,
    replace: bool,
    access: Access,
    as_json: bool,
    **opening: Any,
) -> None:
    """Enroll the person before the camera.

    \b
    Example:
      edgepin live enroll badge-0042 --bundle site.pin --consent "form 7, 2026-11-23"
    """
    from .._capture.liveness import FrameMotion
    from .._errors import CaptureError

    wanted = Wanted(camera, microphone, frames, seconds, timeout, require_motion)
    with open_verifier(access, **opening) as verifier, Sources(wanted) as sources:
        session = verifier.enroll(subject, consent=consent, replace=replace)
        captured = sources.capture(verifier.pipeline, Teller(as_json))
        try:
            if require_motion:
                verdict = FrameMotion().check(captured.in_order, captured.voice)
                if not verdict.live:
                    raise CaptureError(
                        "the face does not move as a living one does",
                        code=verdict.code or "flat",
                        hint="turn your head a little while you speak",
                    )
            for crop in captured.best:
                session.add_face(crop, cropped=True)
            if captured.voice is not None:
                session.add_voice(captured.voice, sample_rate=16_000)
            enrolled = session.commit()
        finally:
            captured.wipe()
        advice = session.feedback.advice
    if as_json:
        emit_json("enrollment", {**enrolled.to_json(), "consent": consent, "advice": list(advice)})
        return
    say(f"enrolled {subject}: {enrolled.faces} face and {enrolled.voices} voice captures")
    if advice:
        say(f"for a good template: {'; '.join(advice)}")


@live.command("verify")
@click.argument("subject", metavar="ID")
@_source_options
@click.option(
    "--attempts",
    type=click.IntRange(1, 5),
    default=1,
    show_default=True,
    help="Samples that may be taken before the answer is no.",
)
@decision_options
@bundle_options
@store_access
@click.option("--json", "as_json", is_flag=True, help="Print states and decisions as JSON lines.")
@exit_codes
def verify(
    subject: str,
    camera: str,
    microphone: str,
    frames: int,
    seconds: float,
    timeout: float,
    require_motion: bool,
    attempts: int,
    door: str,
    access: Access,
    as_json: bool,
    **opening: Any,
) -> None:
    """Verify the person before the camera. Exits with 0 for yes and 1 for no.

    \b
    Example:
      edgepin live verify badge-0042 --bundle site.pin --camera 0 --microphone default --json
    """
    from .._capture.liveness import FrameMotion

    wanted = Wanted(camera, microphone, frames, seconds, timeout, require_motion)
    motion = FrameMotion() if require_motion else None
    with (
        open_verifier(access, store_must_exist=True, liveness=motion, **opening) as verifier,
        Sources(wanted) as sources,
    ):
        session = verifier.attempts(subject, door=door, max_attempts=attempts)
        while session.outcome == "another":
            captured = sources.capture(verifier.pipeline, Teller(as_json))
            try:
                decision = session.verify(
                    face=captured.in_order or None,
                    voice=captured.voice,
                    sample_rate=None if captured.voice is None else 16_000,
                    cropped=True,
                )
            finally:
                captured.wipe()
            if as_json:
                emit_json("decision", {"id": subject, **decision.to_json(), "runtime": verifier.about})
            else:
                words = "another sample, please" if session.outcome == "another" else session.outcome
                click.echo(words)
                for reason in decision.reasons:
                    say(f"{reason.code}: {reason.text}")
    sys.exit(0 if session.outcome == "accepted" else 1)


@dataclass(frozen=True)
class Wanted:
    """What `_source_options` gave."""

    camera: str
    microphone: str
    frames: int
    seconds: float
    timeout: float
    require_motion: bool


class Sources:
    """The opened camera and microphone. Raises as `Camera` and `open_microphone`, and UsageError for options that
    contradict each other.
    """

    def __init__(self, wanted: Wanted) -> None:
        from .._capture.liveness import FrameMotion
        from .._errors import UsageError

        least = FrameMotion().min_frames
        if wanted.require_motion and (wanted.camera == "none" or wanted.frames < least):
            raise UsageError(f"--require-motion needs a camera, and --frames {least} or more")
        if wanted.camera == "none" and wanted.microphone == "none":
            raise UsageError("nothing to capture", hint="give a camera, a microphone, or both")
        self._wanted, self._stack = wanted, ExitStack()
        self._camera: Camera | None = None
        self._microphone: Microphone | None = None

    def __enter__(self) -> Sources:
        from .._capture.camera import Camera
        from .._capture.microphone import open_microphone

        with ExitStack() as stack:
            if self._wanted.camera != "none":
                self._camera = stack.enter_context(Camera(self._wanted.camera))
            if self._wanted.microphone != "none":
                self._microphone = open_microphone(self._wanted.microphone)
                stack.callback(self._microphone.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def capture(self, pipeline: Pipeline, tell: Teller) -> LiveCapture:
        """One sample; the person is told what to do. Raises as `capture_live`."""
        from .._capture.face_stream import FaceStream
        from .._capture.session import capture_live
        from .._capture.voice_stream import VoiceStream, VoiceStreamLimits

        wanted, faces, voice = self._wanted, None, None
        if self._camera is not None:
            faces = FaceStream(pipeline.finder, pipeline.face_spec, keep=wanted.frames)
        if self._microphone is not None:
            limits = VoiceStreamLimits(
                speech_seconds=wanted.seconds, max_seconds=max(wanted.timeout, wanted.seconds)
            )
            voice = VoiceStream(self._microphone.sample_rate, limits=limits)
        return capture_live(self._camera, faces, self._microphone, voice, timeout=wanted.timeout, tell=tell)


class Teller:
    """Tells each new state once: in words on stderr, and as JSON lines on stdout."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._last: tuple[object, ...] | None = None

    def __call__(self, seen: FrameState | None, heard: StreamState | None) -> None:
        now = (
            None if seen is None else (seen.code, seen.kept),
            None if heard is None else (heard.code, int(heard.speech_seconds)),
        )
        if now == self._last:
            return
        self._last = now
        if seen is not None:
            say(f"face {seen.kept}: {seen.hint}")
        if heard is not None:
            say(f"voice {heard.speech_seconds:.1f} s: {heard.hint}")
        if self._as_json:
            emit_json(
                "live",
                {
                    "face": None if seen is None else _face_json(seen),
                    "voice": None if heard is None else _voice_json(heard),
                },
            )


def _face_json(seen: FrameState) -> dict[str, Any]:
    return {
        "code": seen.code,
        "hint": seen.hint,
        "faces": seen.faces,
        "kept": seen.kept,
        "enough": seen.enough,
        "measurements": {name: round(value, 3) for name, value in seen.measurements.items()},
    }


def _voice_json(heard: StreamState) -> dict[str, Any]:
    return {
        "code": heard.code,
        "hint": heard.hint,
        "seconds": round(heard.seconds, 2),
        "speech_seconds": round(heard.speech_seconds, 2),
        "level": round(heard.level, 1),
        "enough": heard.enough,
    }
