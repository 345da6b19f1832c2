"""Options that several verbs share, and opening a verifier from them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .._bundle.bundle import Bundle
from .._capture.faces import FaceFinder, HaarFinder, YuNetFinder
from .._decision.policy import Policy
from .._errors import EnvironmentFault, UsageError
from .._pipeline import make_pipeline
from .._runtime.backends import BACKENDS, PRECISION_CHOICES, REQUIREMENTS, OpenedRuntime, open_runtime
from .._starter import is_starter, open_starter
from .._verifier import Verifier
from .console import say

if TYPE_CHECKING:
    from .._capture.liveness import LivenessCheck
    from .._pipeline import Pipeline
    from .store_access import Access

F = TypeVar("F", bound=Callable[..., Any])

FILE = click.Path(path_type=Path)  # existence is checked by the decoders, with their exit codes


def bundle_options(verb: F, precision: str = "auto") -> F:
    """--bundle, --allow-unsigned, --backend, --require, --precision (with its default), --face-finder."""
    for option in reversed(
        (
            click.option(
                "--bundle",
                type=FILE,
                envvar="EDGEPIN_BUNDLE",
                show_envvar=True,
                help="The .pin bundle to use. Default: the packaged starter.",
            ),
            click.option(
                "--allow-unsigned", is_flag=True, help="Use a bundle that no trusted key has signed."
            ),
            click.option(
                "--backend",
                type=click.Choice(BACKENDS),
                default="auto",
                show_default=True,
                help="What runs the encoders. auto: the best that runs here.",
            ),
            click.option(
                "--require",
                type=click.Choice(tuple(REQUIREMENTS)),
                help="Fail rather than run the encoders on anything less.",
            ),
            click.option(
                "--precision",
                type=click.Choice(PRECISION_CHOICES),
                default=precision,
                show_default=True,
                help="Which of the bundle's encoders to run. auto: the fastest, measured once on this device. highest: the "
                "highest that the bundle has.",
            ),
            click.option(
                "--face-finder",
                type=FILE,
                metavar="YUNET.onnx",
                envvar="EDGEPIN_FACE_FINDER",
                show_envvar=True,
                help="A YuNet face detector file. Default: OpenCV's Haar cascades.",
            ),
        )
    ):
        verb = option(verb)
    return verb


def store_options(verb: F) -> F:
    """--store, --key-file."""
    for option in reversed(
        (
            click.option(
                "--store",
                type=FILE,
                envvar="EDGEPIN_STORE",
                show_envvar=True,
                help="The enrollment database. Default: this user's.",
            ),
            click.option(
                "--key-file",
                type=FILE,
                envvar="EDGEPIN_KEY_FILE",
                show_envvar=True,
                help="The file of the key that locks the store. Default: this user's, made at first use.",
            ),
        )
    ):
        verb = option(verb)
    return verb


def open_bundle(path: Path | None, *, allow_unsigned: bool) -> Bundle:
    """The bundle at `path`, or without one the packaged starter."""
    return (
        open_starter()
        if path is None or is_starter(path)
        else Bundle.open(path, allow_unsigned=allow_unsigned)
    )


def make_finder(path: Path | None) -> FaceFinder:
    return YuNetFinder(path) if path is not None else HaarFinder()


def open_pipeline(
    *,
    bundle: Path | None,
    allow_unsigned: bool,
    backend: str,
    require: str | None,
    precision: str,
    face_finder: Path | None,
    shared_space: bool = False,
) -> tuple[Bundle, OpenedRuntime, Pipeline]:
    """From what `bundle_options` gave; says what runs. With `shared_space` UsageError unless faces and voices compare."""
    opened = open_bundle(bundle, allow_unsigned=allow_unsigned)
    if shared_space and not opened.manifest.cross_modal:
        raise UsageError(
            f"{bundle or 'the packaged starter'} does not compare faces with voices",
            hint="its encoders were trained without anyone who has both",
        )
    chosen = open_runtime(opened, backend=backend, require=require, precision=precision)
    say(chosen.about)
    return opened, chosen, make_pipeline(opened, chosen.runtime, make_finder(face_finder))


def decision_options(verb: F) -> F:
    """What a decision goes by: --door, --policy-fmr, --calibration, what may decide alone, --adaptive-update, --deadline."""
    for option in reversed(
        (
            click.option(
                "--door",
                default="",
                metavar="NAME",
                help="The place or caller of the attempt, by which failures are counted too.",
            ),
            click.option(
                "--policy-fmr",
                type=float,
                metavar="X",
                help="The false match rate to promise, such as 0.001. Default: the lowest that the evidence carries and that "
                "rejects at most a third of the right attempts.",
            ),
            click.option(
                "--calibration",
                type=FILE,
                metavar="SITE.cal",
                envvar="EDGEPIN_CALIBRATION",
                show_envvar=True,
                help="A site's own calibration (edgepin calibrate) in place of the bundle's.",
            ),
            click.option(
                "--allow-voice-alone",
                is_flag=True,
                help="Let a voice without a face decide. It is no authentication.",
            ),
            click.option("--no-face-alone", is_flag=True, help="Let no face without a voice decide."),
            click.option(
                "--adaptive-update",
                is_flag=True,
                help="Let a template grow by what was accepted beyond doubt, with both modalities.",
            ),
            click.option(
                "--deadline",
                type=click.FloatRange(0.1),
                default=10.0,
                show_default=True,
                metavar="S",
                help="Seconds that a verification may take; after that the answer is no.",
            ),
        )
    ):
        verb = option(verb)
    return verb


def open_verifier(
    access: Access,
    *,
    bundle: Path | None,
    allow_unsigned: bool,
    backend: str,
    require: str | None,
    precision: str,
    face_finder: Path | None,
    policy_fmr: float | None = None,
    calibration: Path | None = None,
    allow_voice_alone: bool = False,
    no_face_alone: bool = False,
    adaptive_update: bool = False,
    allow_identification: bool = False,
    deadline: float = 10.0,
    liveness: LivenessCheck | None = None,
    store_must_exist: bool = False,
) -> Verifier:
    """A verifier from what `bundle_options`, `store_access` and `decision_options` gave."""
    opened = open_bundle(bundle, allow_unsigned=allow_unsigned)
    policy = Policy(
        fmr=policy_fmr,
        allow_face_alone=not no_face_alone,
        allow_voice_alone=allow_voice_alone,
        allow_identification=allow_identification,
        adaptive_update=adaptive_update,
    )
    if store_must_exist and not os.path.exists(access.path):  # before a key is asked for
        raise EnvironmentFault(
            f"there is no store at {access.path}", hint="enroll someone first: edgepin enroll ID …"
        )
    return Verifier.open(
        opened,
        access.path,
        policy=policy,
        calibration=calibration,
        backend=backend,
        require=require,
        precision=precision,
        finder=make_finder(face_finder),
        key=access.key(create=not store_must_exist),
        counter=access.counter(),
        guard_counter=access.guard_counter(),
        deadline=deadline,
        liveness=liveness,
        store_must_exist=store_must_exist,
    )
