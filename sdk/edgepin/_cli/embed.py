"""`edgepin embed`: a folder of captures to a numpy archive of embeddings."""

from __future__ import annotations

import functools
import io
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .._errors import UsageError
from .console import Progress, emit_json, exit_codes, say
from .options import FILE, bundle_options, open_pipeline

if TYPE_CHECKING:
    from ..evaluation import EmbeddedCaptures


@click.command()
@click.option("--modality", required=True, type=click.Choice(["face", "voice"]))
@click.option("--root", required=True, type=FILE, metavar="DIR", help="Folder of images or of sounds.")
@click.option("--out", required=True, type=FILE, metavar="FILE.npz", help="Where to write the archive.")
@click.option(
    "--head",
    type=click.Choice(["identity", "pin"]),
    default="identity",
    show_default=True,
    help="identity: to compare within the modality. pin: in the space that faces and voices share.",
)
@click.option("--seconds", type=click.FloatRange(0.1, 60), help="Take the first seconds of each clip only.")
@click.option(
    "--find-faces", is_flag=True, help="Find and align faces. Default: the images are crops already."
)
# As for `evaluate`: what is measured must not depend on what was the fastest.
@functools.partial(bundle_options, precision="highest")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@exit_codes
def embed(
    modality: str,
    root: Path,
    out: Path,
    head: str,
    seconds: float | None,
    find_faces: bool,
    as_json: bool,
    **opening: Any,
) -> None:
    """Embed every capture of a folder with a bundle's encoder, for `evaluate embeddings` and `evaluate pins`.

    \b
    Example:
      edgepin embed --modality face --root faces --head pin --out faces.npz --bundle site.pin
    """
    from .._decision.trials import require_folder
    from .._measurement import Captures
    from .._safe_files import write_atomic

    if modality == "face" and seconds is not None:
        raise UsageError("--seconds is of voices")
    if modality == "voice" and find_faces:
        raise UsageError("--find-faces is of faces")
    # Told before the work, not after it.
    if not os.path.isdir(out.parent):
        raise UsageError(f"there is no folder {out.parent}")
    if os.path.isdir(out):
        raise UsageError(f"{out} is a folder", hint="give the name of a file in it")
    require_folder(root)
    opened, chosen, pipeline = open_pipeline(shared_space=head == "pin", **opening)
    captures = Captures(pipeline, seconds=seconds, cropped=not find_faces, gate=False, report=Progress())
    found = captures.embed_folder(modality, root)
    archive, count = _archive(found, head)
    write_atomic(out, [archive])
    refused = dict(sorted(Counter(found.refused.values()).items()))
    if as_json:
        emit_json(
            "embeddings",
            {
                "out": str(out),
                "modality": modality,
                "head": head,
                "backend": chosen.backend,
                "precision": chosen.precision,
                "seconds": seconds,
                "bundle": opened.digest,
                "embedded": count,
                "refused": refused,
                "ms_per_capture": captures.median_times(),
            },
        )
        return
    click.echo(f"{out}: embedded {count}")
    if refused:
        say("left out, as refused: " + ", ".join(f"{code} {number}" for code, number in refused.items()))


def _archive(found: EmbeddedCaptures, head: str) -> tuple[memoryview, int]:
    """The usable captures as an npz archive, and how many they are. The same captures give the same bytes."""
    import numpy as np

    usable = found.usable
    target = io.BytesIO()
    np.savez(target, names=np.array(found.names)[usable], embeddings=getattr(found, head)[usable])
    return target.getbuffer(), int(usable.sum())
