"""The verb `edgepin export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgepin._cli.console import Progress, emit_json, exit_codes, say

if TYPE_CHECKING:
    from ._export import CalibrationPeople

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("run", type=FOLDER)
@click.option(
    "--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The bundle to write."
)
@click.option("--name", default=None, help="What people call the bundle. Default: the file's name.")
@click.option(
    "--calibration",
    type=FOLDER,
    help="Folder with faces/ and voices/ of people to calibrate on. Default: those the training held out.",
)
@click.option("--calibration-faces", type=FOLDER, help="Faces from here instead of CALIBRATION/faces.")
@click.option("--calibration-voices", type=FOLDER, help="Voices from here instead of CALIBRATION/voices.")
@click.option(
    "--pairs",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TSV with columns speaker and face. Default: equal names are one person.",
)
@click.option(
    "--chimeric", is_flag=True, help="The pairs are made up: one person's face with another's voice."
)
@click.option("--face-cropped", is_flag=True, help="The calibration images are face crops already.")
@click.option("--unsigned", is_flag=True, help="Do not sign; opening it will need --allow-unsigned.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@exit_codes
def export(
    run: Path,
    out: Path,
    name: str | None,
    calibration: Path | None,
    calibration_faces: Path | None,
    calibration_voices: Path | None,
    pairs: Path | None,
    chimeric: bool,
    face_cropped: bool,
    unsigned: bool,
    as_json: bool,
) -> None:
    """Make a bundle of a training run: ONNX, INT8, parity, calibration, signature.

    INT8 encoders are in the bundle only if they agree with FP32. The bundle is signed with this machine's key, which is
    made at first use.
    """
    from edgepin._fusion import FACE_AND_VOICE
    from edgepin._signing import SigningKey
    from edgepin_training.checkpoint import load_run

    from ._export import export_run

    loaded = load_run(run)
    people = _people(
        loaded.corpus, calibration, calibration_faces, calibration_voices, pairs, chimeric, face_cropped
    )
    key = None if unsigned else SigningKey.load_or_create()
    made = export_run(loaded, people, out, name=name or out.stem, key=key, progress=Progress())
    parity = {modality: report.to_json() for modality, report in made.parity.items()}
    strictest = made.fusion.evidence.sets[FACE_AND_VOICE].strictest
    if as_json:
        emit_json(
            "export",
            {
                "bundle": str(out),
                "digest": made.digest,
                "precisions": list(made.precisions),
                "int8_refusal": made.refusal,
                "parity": parity,
                "default_fmr": None if strictest is None else strictest.fmr,
            },
        )
    for modality, report in made.parity.items():
        for precision, figures in report.precisions.items():
            say(
                f"{modality} {precision}: cosine to the trained encoder {figures.identity.mean_cosine:.5f} "
                f"(lowest {figures.identity.min_cosine:.5f}), EER {100 * (figures.eer or 0):.2f} %"
            )
    if made.refusal:
        say(f"INT8 is left out: {made.refusal}")
    if strictest is None:
        say("the evidence carries no policy: nobody will be accepted until more people calibrate it")
    else:
        say(
            f"default policy: false match rate {strictest.fmr:g}; rejects {100 * strictest.fnmr:.1f} % of genuine attempts"
        )
    say(f"bundle: {out}  sha256 {made.digest[:16]}…")


def _people(
    corpus: dict[str, Any],
    calibration: Path | None,
    faces: Path | None,
    voices: Path | None,
    pairs: Path | None,
    chimeric: bool,
    cropped: bool,
) -> CalibrationPeople:
    """Who to calibrate on: those given, else those that the training held out."""
    from edgepin._errors import UsageError
    from edgepin._trials import IMAGE_SUFFIXES, SOUND_SUFFIXES
    from edgepin_training.corpus import list_captures, match_people, read_pairs

    from ._export import CalibrationPeople

    faces, voices = (
        faces or (calibration and calibration / "faces"),
        voices or (calibration and calibration / "voices"),
    )
    if faces and voices:
        names = list(list_captures(voices, SOUND_SUFFIXES))
        known = set(list_captures(faces, IMAGE_SUFFIXES))
        wanted = match_people(names, known, read_pairs(pairs) if pairs else None)
        return CalibrationPeople(faces, voices, wanted, cropped, chimeric, "given, not trained on")
    sources, held_out = corpus.get("sources"), corpus.get("held_out")
    if faces or voices or not sources or not held_out:
        raise UsageError(
            "there is nobody to calibrate on",
            hint="give --calibration DIR with faces/ and voices/ of people who were not trained on; a run keeps some "
            "apart only where it has at least 10 pairs to spare",
        )
    return CalibrationPeople(
        Path(sources["faces"]),
        Path(sources["voices"]),
        held_out,
        sources["face_cropped"],
        chimeric,
        "held out of the training corpus",
    )
