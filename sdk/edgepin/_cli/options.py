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
from .._errors import BundleNotFoundError, EnvironmentFault
from .._runtime.backends import BACKENDS, PRECISION_CHOICES, REQUIREMENTS
from .._verifier import Verifier

if TYPE_CHECKING:
    from .._capture.liveness import LivenessCheck
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
                help="Which of the bundle's encoders to run. auto: the fastest, measured once on this device.",
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


def find_bundle(path: Path | None) -> Path:
    """The bundle to use; there is no packaged starter yet, so without a path this says how to make one."""
    if path is None:
        raise BundleNotFoundError(
            "there is no packaged starter bundle in this version",
            hint="make one: edgepin train --data DIR --out RUN && edgepin export RUN --out site.pin; "
            "then give --bundle site.pin",
        )
    return path


def make_finder(path: Path | None) -> FaceFinder:
    return YuNetFinder(path) if path is not None else HaarFinder()


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
                help="The false match rate to promise, such as 0.001. Default: the lowest that the evidence carries.",
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
    opened = Bundle.open(find_bundle(bundle), allow_unsigned=allow_unsigned)
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
