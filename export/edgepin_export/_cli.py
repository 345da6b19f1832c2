"""The verb `edgepin export`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgepin._cli.console import Progress, emit_json, exit_codes, say

from ._foreign_cli import ForeignOptions, foreign_options

if TYPE_CHECKING:
    from ._export import CalibrationPeople, Exported

OPTIONAL = ("fp16", "int8", "portable")
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("run", type=FOLDER, required=False)
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
@click.option(
    "--further",
    is_flag=True,
    help="Who is in these folders and in no pair was not trained on either: evidence for one modality alone.",
)
@click.option("--face-cropped", is_flag=True, help="The calibration images are face crops already.")
@click.option(
    "--allow-missing",
    multiple=True,
    type=click.Choice(OPTIONAL),
    help="Write the bundle without this form if its gate fails. May be repeated.",
)
@click.option(
    "--qat",
    type=click.Choice(["auto", "never", "always"]),
    default="auto",
    show_default=True,
    help="Fine-tune under quantization: if nothing else makes INT8 pass, never, or at once.",
)
@click.option("--qat-steps", type=click.IntRange(1), default=200, show_default=True, help="Steps of it.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write everything that was measured to this file, as JSON, also if a gate fails.",
)
@click.option(
    "--plugin-onnx",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the voice encoder with a LogMel node, for a TensorRT plugin, to this file.",
)
@click.option("--unsigned", is_flag=True, help="Do not sign; opening it will need --allow-unsigned.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@foreign_options
@exit_codes
def export(
    run: Path | None,
    out: Path,
    name: str | None,
    calibration: Path | None,
    calibration_faces: Path | None,
    calibration_voices: Path | None,
    pairs: Path | None,
    chimeric: bool,
    further: bool,
    face_cropped: bool,
    allow_missing: tuple[str, ...],
    qat: Any,
    qat_steps: int,
    report: Path | None,
    plugin_onnx: Path | None,
    unsigned: bool,
    as_json: bool,
    foreign: ForeignOptions,
) -> None:
    """Make a bundle of a training run, or of encoders that were trained elsewhere.

    Its encoders are written as ONNX in FP32, FP16 and INT8, and the voice encoder once more with the front-end inside
    (portable). On people who were not trained on, each form is held against FP32: mean cosine of the embeddings, error
    rate, and what the scores mean (Cllr). A form that fails its gate ends the export with 1, and nothing is written but
    the report, unless --allow-missing names it. The bundle is signed with this machine's key, which is made at first
    use.

    \b
    Examples:
      edgepin export runs/site --out site.pin --report site.json
      edgepin export runs/site --out site.pin --calibration people --chimeric
      edgepin export runs/site --out site.pin --allow-missing int8 --qat never
      edgepin export runs/site --voice-onnx campp.onnx --voice-spec 3d-speaker --out site.pin
    """
    from edgepin._bundle.signing import SigningKey
    from edgepin._errors import UsageError
    from edgepin._safe_files import write_atomic
    from edgepin_kernels import LogMelSpec
    from edgepin_training.checkpoint import load_run

    from ._export import export_run
    from ._foreign_cli import export_with_foreign
    from ._portable import plugin_voice
    from ._qat import QatOptions

    if run is None and not foreign.given:
        raise UsageError(
            "there is nothing to export",
            hint="give the folder of a training run, or --face-onnx and --voice-onnx",
        )
    loaded = None if run is None else load_run(run)
    if loaded is not None and loaded.config.encoders == "vggm":
        raise UsageError(
            "the paper's encoders take spectrograms, which no device computes",
            hint='train with encoders = "small" or "edge" to export',
        )
    if loaded is not None and loaded.config.norm == "group":
        raise UsageError(
            "group normalization cannot be folded into the layers beside it, as a device needs it",
            hint='train with norm = "batch", or norm = "frozen", to export',
        )
    corpus = {} if loaded is None else loaded.corpus
    people = _people(
        corpus,
        calibration,
        calibration_faces,
        calibration_voices,
        pairs,
        chimeric=chimeric,
        further=further,
        cropped=face_cropped,
    )
    if loaded is None or foreign.given:
        made, spec = export_with_foreign(
            foreign, loaded, people, out, name=name, unsigned=unsigned, qat=qat, allow_missing=allow_missing
        )
    else:
        spec = LogMelSpec.preset(loaded.config.log_mel)
        made = export_run(
            loaded,
            people,
            out,
            name=name or out.stem,
            key=None if unsigned else SigningKey.load_or_create(),
            allow_missing=allow_missing,
            qat=qat,
            qat_options=QatOptions(steps=qat_steps, seed=loaded.config.seed),
            progress=Progress(),
        )
    if plugin_onnx is not None and made.digest is not None:
        write_atomic(plugin_onnx, [plugin_voice(made.variants.models["fp32"]["voice"], spec)])
    finish(made, out, report, as_json=as_json)


def finish(made: Exported, out: Path, report: Path | None, *, as_json: bool) -> None:
    """Writes the report, says what came out, and exits with 1 if a gate failed that must not."""
    from edgepin._decision.fusion import FACE_AND_VOICE
    from edgepin._safe_files import write_atomic

    from ._report import accuracy_table, full_report, int8_story, manifest_accuracy

    fusion = made.fusion
    usual = None if fusion is None else fusion.evidence.sets[FACE_AND_VOICE].usual
    result = {
        "bundle": None if made.digest is None else str(out),
        "digest": made.digest,
        "precisions": list(made.precisions),
        "missing": made.missing,
        "default_fmr": None if usual is None else usual.fmr,
    }
    if report is not None:
        text = json.dumps(
            {"schema": "edgepin.export_report/1", **result, **full_report(made.variants)}, indent=2
        )
        write_atomic(report, [text.encode() + b"\n"])
    if as_json:
        emit_json("export", {**result, "accuracy": manifest_accuracy(made.variants)})
    say(int8_story(made.variants))
    say()
    say(accuracy_table(made.variants))
    for precision, reasons in made.missing.items():
        say(f"{precision} {'failed' if precision in made.forbidden else 'is left out'}: {'; '.join(reasons)}")
    if made.digest is None:
        say("no bundle was written")
        allowed = [name for name in made.forbidden if name in OPTIONAL]
        if allowed == list(made.forbidden):
            say(f"hint: {' '.join(f'--allow-missing {name}' for name in allowed)} writes one without")
        sys.exit(1)
    if usual is None:
        say("the evidence carries no policy: nobody will be accepted until more people calibrate it")
    else:
        say(
            f"default policy: false match rate {usual.fmr:g}; rejects {100 * usual.fnmr:.1f} % of genuine attempts"
        )
    say(f"bundle: {out}  sha256 {made.digest[:16]}…")


def _people(
    corpus: dict[str, Any],
    calibration: Path | None,
    faces: Path | None,
    voices: Path | None,
    pairs: Path | None,
    *,
    chimeric: bool,
    further: bool,
    cropped: bool,
) -> CalibrationPeople:
    """Who to calibrate on: those given, else those that the training held out."""
    from edgepin._decision.trials import IMAGE_SUFFIXES, SOUND_SUFFIXES
    from edgepin._errors import UsageError
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
        return CalibrationPeople(faces, voices, wanted, cropped, chimeric, "given, not trained on", further)
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
