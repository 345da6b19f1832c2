"""Do error rates hold on people who were never calibrated on?

    python -m benchmarks.error_rates BUNDLE DATA --json benchmarks/results/error_rates.json

`DATA` holds `lfwcrop/{calibration,eval}/<person>`, `librispeech/{calibration,eval}/<speaker>` and
`trials/chimeras{_calibration,}.tsv`. The encoders are the bundle's; its fusion is not used. A fusion is calibrated on the
calibration people (all of their faces alone, and the chimeric people), and every threshold that it keeps is held
against trials among the eval people. Nothing is chosen by what those show.

A row is wrong where the 95 % interval of a measured false match rate, by subject bootstrap, lies above the policy's.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgepin._bundle.bundle import Bundle
from edgepin._capture.faces import HaarFinder
from edgepin._decision.calibration import calibrate
from edgepin._decision.comparison import apply_fusion, interval
from edgepin._decision.draw import CapturedPeople, draw_modality_trials, draw_trials
from edgepin._decision.evidence import KINDS, SetEvidence
from edgepin._decision.fusion import LLR_LIMIT, Fusion
from edgepin._decision.measure import MeasuredSet
from edgepin._decision.pairs import Pairs
from edgepin._decision.trial_set import GENUINE, ModalityTrials, TrialSet
from edgepin._decision.trials import IMAGE_SUFFIXES, SOUND_SUFFIXES, list_captures, read_chimeras
from edgepin._errors import CaptureError
from edgepin._pipeline import Pipeline, make_pipeline
from edgepin._runtime.backends import open_runtime
from edgepin.metrics import rate_by_subject

ATTEMPTS = 3


@dataclass(frozen=True)
class Split:
    """People of one split: trials of faces alone, of voices alone, and of chimeric people."""

    faces: ModalityTrials
    voices: ModalityTrials
    chimeric: TrialSet
    people: dict[str, int]


def embed_split(pipeline: Pipeline, data: Path, split: str) -> dict[str, np.ndarray]:
    """Arrays for `make_split`: embeddings and owners (names of folders) of all usable captures."""
    arrays: dict[str, np.ndarray] = {}
    for modality, root, suffixes in (
        ("face", data / "lfwcrop" / split, IMAGE_SUFFIXES),
        ("voice", data / "librispeech" / split, SOUND_SUFFIXES),
    ):
        rows: list[tuple[str, np.ndarray, np.ndarray]] = []
        for person in sorted(entry.name for entry in root.iterdir() if entry.is_dir()):
            for name in list_captures(root, person, suffixes):
                try:
                    made = (
                        pipeline.face(root / name, cropped=True)
                        if modality == "face"
                        else pipeline.voice(root / name)
                    )
                except CaptureError:
                    continue
                rows.append((person, made.identity, made.pin))
        owners, identity, pin = zip(*rows, strict=True)
        arrays[f"{modality}_owner"] = np.array(owners)
        arrays[f"{modality}_identity"], arrays[f"{modality}_pin"] = np.stack(identity), np.stack(pin)
    return arrays


def make_split(arrays: dict[str, np.ndarray], chimeras: dict[str, str]) -> Split:
    """Trials among the people; a speaker of `chimeras` (speaker -> face) is the same person as that face."""
    number = {name: index for index, name in enumerate(np.unique(arrays["face_owner"]).tolist())}
    speakers = np.unique(arrays["voice_owner"]).tolist()
    of_speaker = {
        name: number[chimeras[name]] if name in chimeras else len(number) + index
        for index, name in enumerate(speakers)
    }

    def people(modality: str, numbers: dict[str, int], keep: set[int] | None = None) -> CapturedPeople:
        owner = np.array([numbers[name] for name in arrays[f"{modality}_owner"].tolist()])
        mask = np.ones(len(owner), bool) if keep is None else np.isin(owner, list(keep))
        return CapturedPeople(
            arrays[f"{modality}_identity"][mask], arrays[f"{modality}_pin"][mask], owner[mask]
        )

    paired = {of_speaker[name] for name in speakers if name in chimeras}
    chimeric = draw_trials(
        people("face", number, paired), people("voice", of_speaker, paired), chimeric=True, attempts=ATTEMPTS
    )
    return Split(
        faces=draw_modality_trials(people("face", number), attempts=ATTEMPTS),
        voices=draw_modality_trials(people("voice", of_speaker), attempts=ATTEMPTS),
        chimeric=chimeric,
        people={"face": len(number), "voice": len(speakers), "face+voice": len(paired)},
    )


def calibrated(split: Split) -> Fusion:
    """The fusion of the calibration people: chimeric for face and voice, all faces for faces alone."""
    paired = np.unique(split.chimeric.subject_a)
    # Pairs of chimeric people are in the joint trials already.
    new = ~(np.isin(split.faces.subject_a, paired) & np.isin(split.faces.subject_b, paired))
    return calibrate(
        split.chimeric, cross_modal=False, alone={"face": split.faces.subset(new)}, max_attempts=ATTEMPTS
    )


def measured_rates(fusion: Fusion, split: Split, replicates: int = 1000) -> Iterator[dict[str, Any]]:
    """A row for every set, number of attempts, FMR that is promised, and kind of impostor."""
    sets = apply_fusion(fusion, split.chimeric)
    alone = {"face": split.faces, "voice": split.voices}
    for name, evidence in fusion.evidence.sets.items():
        measured = sets[name]
        if name in alone:
            measured = _alone(fusion, name, alone[name])
        yield from _rows(name, 1, measured, evidence, replicates)
        for attempts, table in enumerate(fusion.evidence.sessions[name].tables, start=2):
            floored = replace(measured, llr=np.where(measured.cleared, measured.llr, -LLR_LIMIT))
            sessions = floored.sessions(KINDS[name], attempts)
            if sessions is not None:
                yield from _rows(name, attempts, sessions, table, replicates)


def _alone(fusion: Fusion, modality: str, trials: ModalityTrials) -> MeasuredSet:
    calibration = fusion.model.face if modality == "face" else fusion.model.voice
    llr = calibration.llr(trials.score)
    kind = np.where(trials.genuine, GENUINE, "stranger")
    floor = fusion.evidence.floors[modality]
    return MeasuredSet(llr, trials.subject_a, trials.subject_b, kind, llr >= floor, trials.enrollment)


def _rows(
    name: str, attempts: int, measured: MeasuredSet, evidence: SetEvidence, replicates: int
) -> Iterator[dict[str, Any]]:
    genuine = measured.kind == GENUINE
    pairs = {
        kind: len(
            Pairs.of(measured.subject_a[measured.kind == kind], measured.subject_b[measured.kind == kind])
        )
        for kind in KINDS[name]
    }
    for point in evidence.points:
        passed = (measured.llr >= point.threshold) & measured.cleared
        missed = rate_by_subject(
            ~passed[genuine], measured.subject_a[genuine], measured.subject_a[genuine], replicates=replicates
        )
        for kind in KINDS[name]:
            mask = measured.kind == kind
            a, b = measured.subject_a[mask], measured.subject_b[mask]
            found = rate_by_subject(passed[mask], a, b, replicates=replicates)
            yield {
                "set": name,
                "attempts": attempts,
                "kind": kind,
                "fmr": point.fmr,
                "threshold": point.threshold,
                "calibration_pairs": evidence.kinds[kind].pairs,
                "measured": interval(found),
                "trials": int(mask.sum()),
                "pairs": pairs[kind],
                "fnmr_calibration": point.fnmr,
                "fnmr": interval(missed),
                "genuine": int(genuine.sum()),
                "holds": found.low <= point.fmr,
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--json", type=Path, help="write the rows and what they were measured on")
    parser.add_argument(
        "--npz", type=Path, help="keep the embeddings in this file, and use them if it is there"
    )
    arguments = parser.parse_args()
    bundle = Bundle.open(arguments.bundle, allow_unsigned=True)
    start = time.perf_counter()
    arrays = _embedded(bundle, arguments.data, arguments.npz)
    embedded = time.perf_counter()
    chimeras = {
        split: {name: one.face for name, one in read_chimeras(arguments.data / "trials" / file).items()}
        for split, file in (("calibration", "chimeras_calibration.tsv"), ("eval", "chimeras.tsv"))
    }
    splits = {split: make_split(arrays[split], chimeras[split]) for split in chimeras}
    fusion = calibrated(splits["calibration"])
    fitted = time.perf_counter()
    rows = list(measured_rates(fusion, splits["eval"]))
    for row in rows:
        low, high = row["measured"]["low"], row["measured"]["high"]
        print(
            f"{row['set']:10} {row['attempts']} {row['kind']:11} FMR <= {row['fmr']:<7g} measured "
            f"{row['measured']['rate']:.2e} ({low:.2e} to {high:.2e}) on {row['pairs']} pairs; FNMR "
            f"{100 * row['fnmr']['rate']:.1f} % ({100 * row['fnmr_calibration']:.1f} % in calibration) "
            f"{'' if row['holds'] else 'ABOVE THE POLICY'}"
        )
    wrong = sum(not row["holds"] for row in rows)
    print(f"{len(rows)} rates, {wrong} above the policy", file=sys.stderr)
    if arguments.json:
        values = {
            "command": "python -m benchmarks.error_rates BUNDLE DATA",
            "bundle": {"name": bundle.manifest.name, "digest": bundle.digest},
            "machine": platform.machine(),
            "numpy": np.__version__,
            "people": {split: made.people for split, made in splits.items()},
            "note": "face+voice: chimeric people, who measure the decision and not whether faces and voices go together",
            "seconds": {
                "embedding": round(embedded - start, 1),
                "calibration": round(fitted - embedded, 1),
                "measuring": round(time.perf_counter() - fitted, 1),
            },
            "above_policy": wrong,
            "rows": rows,
        }
        arguments.json.write_text(json.dumps(values, indent=1) + "\n")
    sys.exit(1 if wrong else 0)


def _embedded(bundle: Bundle, data: Path, cache: Path | None) -> dict[str, dict[str, np.ndarray]]:
    splits = ("calibration", "eval")
    if cache is not None and cache.exists():
        with np.load(cache, allow_pickle=False) as kept:
            if str(kept["bundle"]) == bundle.digest:
                return {
                    split: {key.split("/")[1]: kept[key] for key in kept if key.startswith(f"{split}/")}
                    for split in splits
                }
    runtime = open_runtime(bundle, backend="onnxruntime-cpu", precision="fp32").runtime
    pipeline = make_pipeline(bundle, runtime, HaarFinder())
    arrays = {split: embed_split(pipeline, data, split) for split in splits}
    if cache is not None:
        flat = {f"{split}/{key}": value for split, part in arrays.items() for key, value in part.items()}
        np.savez(cache, bundle=np.array(bundle.digest), **flat)
    return arrays


if __name__ == "__main__":
    main()
