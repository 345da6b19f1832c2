"""Options that several verbs share, and opening a verifier from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from .._bundle.bundle import Bundle
from .._capture.faces import FaceFinder, HaarFinder, YuNetFinder
from .._decision.policy import Policy
from .._errors import BundleNotFoundError
from .._runtime.backends import BACKENDS, PRECISION_CHOICES, REQUIREMENTS
from .._verifier import Verifier

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


def open_verifier(
    bundle: Path | None,
    store: Path | None,
    *,
    allow_unsigned: bool,
    backend: str,
    require: str | None,
    precision: str,
    face_finder: Path | None,
    key_file: Path | None,
    policy: Policy | None = None,
    store_must_exist: bool = False,
) -> Verifier:
    from .._store.keys import KeyFile

    opened = Bundle.open(find_bundle(bundle), allow_unsigned=allow_unsigned)
    return Verifier.open(
        opened,
        store,
        policy=policy,
        backend=backend,
        require=require,
        precision=precision,
        finder=make_finder(face_finder),
        key=KeyFile(key_file) if key_file else None,
        store_must_exist=store_must_exist,
    )
