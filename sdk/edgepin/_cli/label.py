"""`edgepin label`: names for faces by voices, or for voices by faces."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .._errors import UsageError
from .console import emit_json, exit_codes, say
from .options import FILE, bundle_options, find_bundle, make_finder

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
    bundle: Path | None,
    allow_unsigned: bool,
    backend: str,
    require: str | None,
    precision: str,
    face_finder: Path | None,
    as_json: bool,
) -> None:
    """Name a folder of faces by voices, or of voices by faces, in the space that both share.

    \b
    Example:
      edgepin label --faces unknown --voices known --by voices --bundle site.pin
    """
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
        embed = _Embedder(
            find_bundle(bundle), allow_unsigned, backend, require, precision, face_finder, face_cropped
        )
        for side, folder in wanted.items():
            names, rows, refused[side] = embed(side, folder)
            captures[side] = names, unit_rows(rows)
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


class _Embedder:
    """Pins of a folder's captures by a bundle whose encoders share a space."""

    def __init__(
        self,
        path: Path,
        allow_unsigned: bool,
        backend: str,
        require: str | None,
        precision: str,
        face_finder: Path | None,
        cropped: bool,
    ) -> None:
        from .._bundle.bundle import Bundle
        from .._runtime.backends import open_runtime
        from .._verifier import make_pipeline
        from .evaluate import Captures

        opened = Bundle.open(path, allow_unsigned=allow_unsigned)
        if not opened.manifest.cross_modal:
            raise UsageError(
                f"{path} does not compare faces with voices",
                hint="its encoders were trained without anyone who has both",
            )
        chosen = open_runtime(opened, backend=backend, require=require, precision=precision)
        say(chosen.about)
        pipeline = make_pipeline(opened, chosen.runtime, make_finder(face_finder))
        self._captures = Captures(pipeline, seconds=None, cropped=cropped, gate=False)

    def __call__(self, side: str, folder: Path) -> tuple[list[str], Any, dict[str, str]]:
        from .._decision.trials import IMAGE_SUFFIXES, SOUND_SUFFIXES
        from ..evaluation import embed_captures, list_captures, paths_under

        names = list_captures(folder, ".", IMAGE_SUFFIXES if side == "faces" else SOUND_SUFFIXES)
        if not names:
            raise UsageError(f"there are no {side} in {folder}")
        modality = side.removesuffix("s")
        embed = self._captures.embed(modality, paths_under(folder, names))
        found = embed_captures(names, embed, self._captures.progress(modality))
        kept = [name for name in found.names if name not in found.refused]
        return kept, found.pin[found.usable], dict(found.refused)
