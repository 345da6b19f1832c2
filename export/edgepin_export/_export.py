"""From a run to a bundle: ONNX, INT8, parity, calibration, and everything written into one signed file."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepin._bundle import write_bundle
from edgepin._calibration import calibrate
from edgepin._errors import UsageError
from edgepin._faces import HaarFinder
from edgepin._fusion import FACE_AND_VOICE, Fusion
from edgepin._manifest import Manifest
from edgepin._pipeline import Pipeline
from edgepin._runtime import OnnxRuntime, Runtime
from edgepin._signing import SigningKey
from edgepin._trials import IMAGE_SUFFIXES, SOUND_SUFFIXES
from edgepin_kernels import LogMelSpec
from edgepin_training.checkpoint import Run
from edgepin_training.corpus import list_captures, load_faces, load_voices, one_each

from ._card import write_card
from ._onnx import to_onnx
from ._parity import ParityReport, PrecisionReport, calibration_inputs, compare
from ._people import People, Prepared, draw_trials, embed_people, error_rate, prepare_people
from ._quantize import quantize
from ._torch_runtime import TorchRuntime

MODALITIES = ("face", "voice")
QUANTIZATION_CAPTURES = 128
MIN_COSINE = 0.98
"""INT8 embeddings whose mean cosine to FP32 is lower are another encoder's."""
MAX_EER_CHANGE = 0.01
"""By how much INT8 may raise the EER on the calibration people, as a fraction."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class CalibrationPeople:
    """Who the fusion is fitted on: folders, and speaker -> face. They were not trained on."""

    faces: Path
    voices: Path
    pairs: dict[str, str]
    cropped: bool
    chimeric: bool
    origin: str  # said in the bundle


@dataclass(frozen=True)
class Exported:
    digest: str
    fusion: Fusion
    parity: dict[str, ParityReport]
    precisions: tuple[str, ...]
    refusal: str | None
    """Why INT8 was left out, if it was."""


def export_run(
    run: Run, people: CalibrationPeople, out: Path, *, name: str, key: SigningKey | None, progress: Progress
) -> Exported:
    """Writes the bundle. Raises UsageError where there is too little to calibrate on, and nothing is written then."""
    spec = LogMelSpec.preset(run.config.log_mel)
    fp32 = {
        "face": to_onnx(run.face, "face", size=run.config.face_size),
        "voice": to_onnx(run.voice, "voice", mels=spec.num_mels),
    }
    int8 = _quantize(run, fp32, progress)
    runtimes: dict[str, Runtime] = {"fp32": OnnxRuntime(fp32), "int8": OnnxRuntime(int8)}
    pipeline = Pipeline(runtimes["fp32"], HaarFinder(), run.config.face_spec, spec)
    prepared = prepare_people(
        pipeline, people.faces, people.voices, people.pairs, cropped=people.cropped, progress=progress
    )
    embedded = {
        precision: embed_people(runtime, prepared, progress) for precision, runtime in runtimes.items()
    }
    parity = _compare(embed_people(TorchRuntime(run), prepared, progress), embedded)
    refusal = int8_refusal(parity)
    cross_modal = run.corpus["pairs"] > 0
    fusion = calibrate(draw_trials(embedded["fp32"], chimeric=people.chimeric), cross_modal=cross_modal)

    precisions = {"fp32": fp32} if refusal else {"fp32": fp32, "int8": int8}
    members = {
        f"{modality}.{precision}.onnx": models[modality]
        for precision, models in precisions.items()
        for modality in MODALITIES
    }
    manifest = Manifest(
        name=name,
        created_by=f"edgepin {importlib.metadata.version('edgepin')}",
        log_mel=spec,
        face=run.config.face_spec,
        cross_modal=cross_modal,
        fusion=fusion.to_json(),
        evidence=_evidence(fusion, people, prepared),
        accuracy={modality: report.to_json() for modality, report in parity.items()},
        training=_training(run),
        usage={
            "purpose": "evaluation of face-and-voice verification with the people and conditions that it was trained for",
            "restrictions": "no presentation attack detection; not for a production door without site calibration",
        },
    )
    members["card.md"] = write_card(manifest, fusion).encode()
    digest = write_bundle(out, manifest, members, key)
    return Exported(digest, fusion, parity, tuple(precisions), refusal)


def int8_refusal(parity: dict[str, ParityReport]) -> str | None:
    """Why INT8 may not be used, or None."""
    for modality, report in parity.items():
        fp32, int8 = report.precisions["fp32"], report.precisions["int8"]
        if int8.identity.mean_cosine < MIN_COSINE:
            return f"the {modality} encoder's mean cosine to FP32 is {int8.identity.mean_cosine:.4f}, below {MIN_COSINE}"
        if int8.eer is not None and fp32.eer is not None and int8.eer > fp32.eer + MAX_EER_CHANGE:
            return f"the {modality} encoder's EER rises from {fp32.eer:.4f} to {int8.eer:.4f}"
    return None


def _quantize(run: Run, fp32: dict[str, bytes], progress: Progress) -> dict[str, bytes]:
    """INT8 by ranges seen on captures that were trained on: one each of up to 128 people."""
    sources = run.corpus.get("sources") or {}
    held_out: dict[str, str] = run.corpus.get("held_out") or {}
    if not sources:
        raise UsageError(
            f"{run.path} does not say where its captures are", hint="train it again with this version"
        )
    files = {
        "face": {
            name: paths
            for name, paths in list_captures(Path(sources["faces"]), IMAGE_SUFFIXES).items()
            if name not in held_out.values()
        },
        "voice": {
            name: paths
            for name, paths in list_captures(Path(sources["voices"]), SOUND_SUFFIXES).items()
            if name not in held_out
        },
    }
    faces = load_faces(
        one_each(files["face"], QUANTIZATION_CAPTURES, run.config.seed),
        run.config.face_spec,
        cropped=sources["face_cropped"],
        progress=progress,
    )
    voices = load_voices(one_each(files["voice"], QUANTIZATION_CAPTURES, run.config.seed), progress=progress)
    inputs = calibration_inputs(run, faces, voices, QUANTIZATION_CAPTURES, run.config.seed)
    made = {}
    for done, modality in enumerate(MODALITIES, start=1):
        made[modality] = quantize(fp32[modality], inputs[modality])
        progress("quantizing encoders", done, len(MODALITIES))
    return made


def _compare(reference: People, embedded: dict[str, People]) -> dict[str, ParityReport]:
    def report(modality: str) -> ParityReport:
        own = getattr(reference, modality)
        precisions = {}
        for precision, people in embedded.items():
            other = getattr(people, modality)
            precisions[precision] = PrecisionReport(
                compare(own.identity, other.identity),
                compare(own.pin, other.pin),
                round(error_rate(other), 6),
            )
        return ParityReport(round(error_rate(own), 6), precisions)

    return {"face": report("faces"), "voice": report("voices")}


def _evidence(fusion: Fusion, people: CalibrationPeople, prepared: Prepared) -> dict[str, Any]:
    joint = fusion.evidence.sets[FACE_AND_VOICE]
    strictest = joint.strictest
    return {
        "origin": people.origin,
        "people": len(prepared.names),
        "subject_pairs": joint.pairs,
        "chimeric": people.chimeric,
        "lowest_fmr": None if strictest is None else strictest.fmr,
        "captures": {"face": len(prepared.faces), "voice": len(prepared.voices), "refused": prepared.refused},
    }


def _training(run: Run) -> dict[str, Any]:
    """What the run was told and how much it saw; not where on that machine."""
    corpus = {name: value for name, value in run.corpus.items() if name not in ("sources", "held_out")}
    return {"config": run.config.to_json(), "corpus": corpus, "steps": run.step}
