"""The verb `edgepin index`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgepin._cli.console import Progress, emit_json, exit_codes, say

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option(
    "--layout",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "folders", "voxceleb1", "voxceleb2"]),
    help="How DIR keeps its captures.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Index to write; with the suffix .gz it is packed. Without it there is a report only.",
)
@click.option(
    "--faces", type=FOLDER, help="Folder under DIR that holds the faces, where it has another name."
)
@click.option("--meta", type=FILE, help="VoxCeleb's vox1_meta.csv: whose face a name is.")
@click.option(
    "--splits", type=FOLDER, help="Folder of the official lists of VoxCeleb1; it has vox1_meta.csv too."
)
@click.option("--face-cropped", is_flag=True, help="The images are face crops already.")
@click.option(
    "--workers",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="Processes that decode. 0: this one alone.",
)
@click.option(
    "--shards",
    type=click.Path(file_okay=False, path_type=Path),
    help="New folder for tar shards of the recordings that have a face and a voice.",
)
@click.option(
    "--shard-size",
    default=512.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Of a shard, in MB.",
)
@click.option(
    "--split",
    type=click.Choice(["train", "validation", "unseenunheard", "seenheard"]),
    help="Of which split the shards are. Default: train, where there are splits.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of the shards' order.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
@exit_codes
def index(
    folder: Path,
    layout: str,
    out: Path | None,
    faces: Path | None,
    meta: Path | None,
    splits: Path | None,
    face_cropped: bool,
    workers: int,
    shards: Path | None,
    shard_size: float,
    split: str | None,
    seed: int,
    as_json: bool,
) -> None:
    """Check every capture of a data set, report what is broken, and write an index to train from."""
    from .index import write_index
    from .layouts import find_layout
    from .scan import scan
    from .shards import lacking_webdataset, write_shards
    from .splits import read_ids, read_splits

    if shards is not None:
        try:
            import webdataset  # noqa: F401  (told before the scan, not after it)
        except ModuleNotFoundError as error:
            raise lacking_webdataset() from error
    progress = Progress()
    found = scan(
        find_layout(folder, layout, faces=faces),
        cropped=face_cropped,
        splits=read_splits(splits) if splits else None,
        ids=read_ids(meta) if meta else None,
        workers=workers,
        progress=lambda done, total: progress("checking captures", done, total),
    )
    progress.close()
    if out is not None:
        write_index(found, out)
    written = None
    if shards is not None:
        made = write_shards(
            found,
            shards,
            shard_bytes=int(shard_size * 1e6),
            seed=seed,
            split=split or ("train" if found.has_splits else None),
            progress=lambda done, total: progress("writing shards", done, total),
        )
        progress.close()
        written = {
            "folder": str(shards),
            "shards": len(made.shards),
            "samples": sum(shard.samples for shard in made.shards),
            "bytes": sum(shard.size for shard in made.shards),
        }
    _say(found.layout, found.report, out, written)
    if as_json:
        emit_json(
            "index",
            {"root": found.root, "layout": found.layout, "index": out, "shards": written, **found.report},
        )


def _say(layout: str, report: dict[str, Any], out: Path | None, shards: dict[str, Any] | None) -> None:
    from .scan import EXAMPLES

    for modality, figures in report["usable"].items():
        hours = f", {figures['hours']:.2f} h" if "hours" in figures else ""
        say(
            f"{modality}s ({layout}): {figures['captures']} captures of {figures['people']} people in "
            f"{figures['recordings']} recordings{hours}"
        )
    say(f"{report['joint_recordings']} recordings have a face and a voice")
    for name, counts in report["splits"].items():
        say(f"split {name}: {counts['people']} people, {counts['faces']} faces, {counts['voices']} voices")
    for code, entry in report["broken"].items():
        paths = entry["paths"]
        say(f"left out as {code}: {entry['count']}")
        for path in paths[:EXAMPLES]:
            say(f"    {path}")
        if len(paths) > EXAMPLES:
            say(f"    and {len(paths) - EXAMPLES} more; --json lists all")
    for modality, people in report["one_modality"].items():
        if people:
            say(f"people with {modality}s only: {len(people)}, such as {', '.join(people[:EXAMPLES])}")
    if report["ignored"]:
        say(
            "not captures: "
            + ", ".join(f"{n} {suffix or 'without suffix'}" for suffix, n in report["ignored"].items())
        )
    for note in report["notes"]:
        say(f"note: {note}")
    if shards is not None:
        say(f"{shards['shards']} shards with {shards['samples']} samples: {shards['folder']}")
    if out is not None:
        say(f"index: {out}\nnext: edgepin train --index {out} --out RUN")
