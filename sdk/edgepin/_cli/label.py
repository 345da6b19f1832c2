"""`edgepin label`: names for faces by voices, or for voices by faces."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .._errors import UsageError
from .console import Progress, emit_json, exit_codes, say
from .options import FILE, bundle_options, open_pipeline

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@click.command()
@click.option("--faces", type=FILE, help="Folder of faces: <person or group>/<image>, or images alone.")
@click.option("--voices", type=FILE, help="Folder of voices: <person or group>/<sound>, or sounds alone.")
@click.option(
    "--face-npz", type=FILE, help="Instead of a folder: arrays `names` (m,) and `embeddings` (m, d)."
)
@click.option("--voice-npz", type=FILE, help="The same of voices.")
@click.option(
    "--by",
    required=True,
    type=click.Choice(["voices", "faces"]),
    help="Which side is named, by its folders; the other side gets these names.",
)
@click.option("--repeat-names", is_flag=True, help="Let several groups get one name. Default: one to one.")
@click.option("--face-cropped", is_flag=True, help="The images are face crops already.")
@bundle_options
@click.option("--json", "as_json", is_flag=True, help="Print the labels as JSON. Default: tab-separated.")
@exit_codes
def label(
    faces: Path | None,
    voices: Path | None,
    face_npz: Path | None,
    voice_npz: Path | None,
    by: str,
    repeat_names: bool,
    face_cropped: bool,
    as_json: bool,
    **opening: Any,
) -> None:
    """Name a folder of faces by voices, or of voices by faces, in the space that both share.

    \b
    Example:
      edgepin label --faces unknown --voices known --by voices --bundle site.pin
    """
    from .._measurement import Captures
    from .._pins.label import label as label_groups
    from ..evaluation import read_embeddings, unit_rows

    folders, archives = {"faces": faces, "voices": voices}, {"faces": face_npz, "voices": voice_npz}
    for side, folder in folders.items():
        if (folder is None) == (archives[side] is None):
            raise UsageError(f"give the {side} either as a folder or as an npz archive")
    captures: dict[str, tuple[list[str], npt.NDArray[np.float64]]] = {}
    refused: dict[str, dict[str, str]] = {}
    for side, archive in archives.items():
        if archive is not None:
            names, rows = read_embeddings(archive)
            captures[side] = names, unit_rows(rows)
    wanted = {side: folder for side, folder in folders.items() if folder is not None}
    if wanted:
        _, _, pipeline = open_pipeline(shared_space=True, **opening)
        embedding = Captures(pipeline, cropped=face_cropped, gate=False, report=Progress())
        for side, folder in wanted.items():
            found = embedding.embed_folder(side.removesuffix("s"), folder)
            kept = [name for name in found.names if name not in found.refused]
            captures[side] = kept, unit_rows(found.pin[found.usable])
            refused[side] = dict(found.refused)
    unnamed = "faces" if by == "voices" else "voices"
    labels = label_groups(*captures[unnamed], *captures[by], one_to_one=not repeat_names)
    for side, codes in refused.items():
        for name, code in codes.items():
            say(f"{side}: {name} was refused: {code}")
    if as_json:
        emit_json(
            "labels",
            {
                "by": by,
                "one_to_one": not repeat_names,
                "labels": [dataclasses.asdict(one) for one in labels],
                "refused": refused,
            },
        )
        return
    click.echo("group\tname\tscore\tmargin\tagreement")
    for one in labels:
        figures = (one.score, one.margin, one.agreement)
        shown = "\t".join("" if figure is None else f"{figure:.3f}" for figure in figures)
        click.echo(f"{one.group}\t{one.name or ''}\t{shown}")
    say(
        "a cross-modal score names nobody for sure: agreement tells how steady a label is, not how likely it is right"
    )
