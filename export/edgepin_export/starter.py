"""The starter's bundle: exported, measured on people it never met, and packed for the wheel.

    python -m edgepin_export.starter runs/starter --data DATA --out sdk/edgepin/_starter

DATA holds the calibration and evaluation people as docs/starter.md describes them. Beside the run comes `starter.pin`, with every
form of the encoders; in OUT the same with INT8 alone, its digest, which the package trusts, and rendered people for the demo.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np

from edgepin import _canonical_json
from edgepin._bundle.bundle import Bundle, write_bundle
from edgepin._bundle.manifest import CARD
from edgepin._bundle.slim import slim_bundle
from edgepin._cli.console import Progress as Bar
from edgepin._cli.console import exit_codes, say
from edgepin._decision.calibration import calibrate
from edgepin._decision.draw import CapturedPeople, draw_people
from edgepin._decision.fusion import Fusion
from edgepin._decision.trials import subject_of
from edgepin._errors import UsageError
from edgepin._measurement import Captures, measure_fused, measure_modality
from edgepin._pipeline import make_pipeline
from edgepin._runtime.backends import open_runtime, processor
from edgepin._safe_files import write_atomic
from edgepin.evaluation import fused_trials, read_chimeras, read_groups, read_trials
from edgepin_training.checkpoint import load_run
from edgepin_training.corpus import read_pairs
from edgepin_training.rendered import write_corpus

from ._card import write_card
from ._export import CalibrationPeople, Progress, export_run
from ._starter_card import USAGE, starter_sections

SECONDS = 3.0
PRECISIONS = ("int8", "fp32")
PEOPLE, CAPTURES, FIRST = 12, 7, 10_000
"""The packaged rendered people, whom neither training nor calibration met."""
CALIBRATION_PEOPLE, CALIBRATION_CAPTURES, CALIBRATION_FIRST = 60, 4, 20_000
"""Other ones, on whom the demo's calibration is fitted."""


def make_bundle(run: Path, data: Path, out: Path, *, command: str, progress: Progress) -> Bundle:
    """Exports the run, calibrated on DATA's calibration people, with a card that has its figures on the evaluation people."""
    loaded = load_run(run)
    people = CalibrationPeople(
        data / "lfwcrop" / "calibration",
        data / "librispeech" / "calibration",
        read_pairs(data / "trials" / "chimeras_calibration.tsv"),
        cropped=True,
        chimeric=True,
        origin="given, not trained on",
        further=True,
    )
    made = export_run(loaded, people, out, name="starter", key=None, progress=progress)
    if made.digest is None or made.fusion is None:
        raise UsageError(f"no bundle was written, since a gate failed: {made.missing}")
    bundle = Bundle.open(out, allow_unsigned=True)
    figures: dict[str, dict[str, Any]] = {}
    for precision in PRECISIONS:
        for modality, measured in measure(bundle, data, precision, progress=progress).items():
            figures.setdefault(modality, {})[precision] = measured
    manifest = dataclasses.replace(
        bundle.manifest, usage=USAGE, evidence={**bundle.manifest.evidence, "trials": figures}
    )
    distilled = loaded.corpus["distilled"]
    card = write_card(manifest, made.fusion, made.missing) + starter_sections(
        figures,
        seconds=SECONDS,
        command=command,
        face=distilled["face"]["teacher"],
        voice=distilled["voice"]["teacher"],
    )
    members = {**{name: bytes(bundle._members[name]) for name in bundle.sizes}, CARD: card.encode()}
    write_bundle(out, manifest, members, None)
    return Bundle.open(out, allow_unsigned=True)


def measure(bundle: Bundle, data: Path, precision: str, *, progress: Progress) -> dict[str, dict[str, Any]]:
    """By modality (`voice`, `face`, `fused`) the figures on DATA's trials, by sex where it is known."""
    chosen = open_runtime(bundle, backend="onnxruntime-cpu", precision=precision)
    captures = Captures(
        make_pipeline(bundle, chosen.runtime), seconds=SECONDS, cropped=True, gate=False, report=progress
    )
    fusion = Fusion.from_json(bundle.manifest.fusion)
    voices, faces, trials = data / "librispeech" / "eval", data / "lfwcrop" / "eval", data / "trials"
    sexes = read_groups(data / "librispeech" / "speakers.tsv", "sex")
    spoken = read_trials(trials / "voice.txt")
    sets = fused_trials(spoken, voices, faces, read_chimeras(trials / "chimeras.tsv"))
    shown = read_trials(trials / "face.txt")
    return {
        "voice": {
            "people": len(set(map(subject_of, spoken.names))),
            **measure_modality(fusion, captures, "voice", voices, spoken, sexes),
        },
        "face": {
            "people": len(set(map(subject_of, shown.names))),
            **measure_modality(fusion, captures, "face", faces, shown),
        },
        "fused": {
            "people": len(sets.people),
            **measure_fused(fusion, captures, sets, voices, faces, sexes),
        },
    }


def calibrate_on_rendered(bundle: Bundle, *, progress: Progress) -> Fusion:
    """A fusion for the rendered people: to encoders of real people they look alike, so that they are a site of their own."""
    runtime = open_runtime(bundle, backend="onnxruntime-cpu", precision="int8").runtime
    captures = Captures(make_pipeline(bundle, runtime), cropped=False, gate=True, report=progress)
    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder) / "people"
        write_corpus(
            drawn,
            people=CALIBRATION_PEOPLE,
            seed=0,
            first=CALIBRATION_FIRST,
            faces=CALIBRATION_CAPTURES,
            voices=CALIBRATION_CAPTURES,
            progress=lambda done, total: progress("rendering people to calibrate on", done, total),
        )
        people = {}
        for modality in ("face", "voice"):
            made = captures.embed_folder(modality, drawn / f"{modality}s")
            owner = np.array([int(subject_of(name).removeprefix("person-")) for name in made.names], np.int64)
            usable = made.usable
            people[modality] = CapturedPeople(made.identity[usable], made.pin[usable], owner[usable])
    trials, alone = draw_people(people["face"], people["voice"], chimeric=False)
    assert trials is not None
    return calibrate(trials, cross_modal=False, alone=alone)


def write_people(out: Path) -> None:
    """Rendered people in the folders that `edgepin demo` reads: faces as JPEG, voices as Ogg Vorbis, to be small."""
    import soundfile

    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder) / "people"
        write_corpus(drawn, people=PEOPLE, seed=0, first=FIRST, faces=CAPTURES, voices=CAPTURES)
        for path in sorted(drawn.glob("*/*/*.*")):
            place = out / path.relative_to(drawn)
            place.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".wav":
                pcm, rate = soundfile.read(path, dtype="int16")
                soundfile.write(place.with_suffix(".ogg"), pcm, rate, format="OGG", subtype="VORBIS")
            else:
                write_atomic(place, [path.read_bytes()])


_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("run", type=_FOLDER)
@click.option("--data", type=_FOLDER, required=True, help="Calibration and evaluation people.")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="For the package."
)
@click.option("--command", default="make starter DATA=data", help="What made it, for the card.")
@click.option(
    "--json", "results", type=click.Path(dir_okay=False, path_type=Path), help="Also write all figures here."
)
@exit_codes
def main(run: Path, data: Path, out: Path, command: str, results: Path | None) -> None:
    """Export the run RUN, measure it, and write what the package holds."""
    out.mkdir(parents=True, exist_ok=True)
    bundle = make_bundle(run, data, run / "starter.pin", command=command, progress=Bar())
    digest = slim_bundle(bundle, out / "starter.pin", ["int8"], portable=False, signing_key=None)
    write_atomic(out / "starter.digest", [f"{digest}\n".encode()])
    fusion = calibrate_on_rendered(bundle, progress=Bar())
    write_atomic(
        out / "people.calibration.json",
        [_canonical_json.encode({"bundle": digest, "fusion": fusion.to_json()})],
    )
    write_people(out / "people")
    point = fusion.evidence.sets["face+voice"].usual
    say(f"rendered people: {point}")
    figures = bundle.manifest.evidence["trials"]
    if results is not None:
        manifest = bundle.manifest
        told = {
            "what": "the packaged starter on people who are in none of its data",
            "digest": digest,
            "machine": {"processor": processor(), "python": platform.python_version()},
            "versions": {
                name: version(name) for name in ("edgepin", "numpy", "onnxruntime", "torch", "onnx")
            },
            "command": command,
            "training": manifest.training,
            "calibration": {name: value for name, value in manifest.evidence.items() if name != "trials"},
            "accuracy": manifest.accuracy,
            "trials": figures,
        }
        write_atomic(results, [(json.dumps(told, indent=1) + "\n").encode()])
    for modality, forms in figures.items():
        one = forms["int8"]
        say(
            f"{modality:6} INT8 EER {100 * one['eer']:.2f} %, Cllr {one['cllr']:.3f} (lowest {one['min_cllr']:.3f})"
        )
    say(
        f"{run / 'starter.pin'}: every form; {out}: INT8, {(out / 'starter.pin').stat().st_size / 2**20:.2f} MiB"
    )


if __name__ == "__main__":
    main()
