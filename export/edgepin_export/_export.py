"""From a run to a bundle: every form of its encoders, their gates, calibration, and all of it in one signed file."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepin._bundle.bundle import write_bundle
from edgepin._bundle.manifest import MODALITIES, PORTABLE_VOICE, Manifest
from edgepin._bundle.signing import SigningKey
from edgepin._capture.faces import FaceSpec, HaarFinder
from edgepin._decision.calibration import calibrate
from edgepin._decision.fusion import FACE_AND_VOICE, Fusion
from edgepin._decision.trials import IMAGE_SUFFIXES, SOUND_SUFFIXES
from edgepin._errors import UsageError
from edgepin._pipeline import Pipeline
from edgepin._runtime.runtime import OnnxRuntime
from edgepin_kernels import LogMelSpec
from edgepin_training.checkpoint import Run
from edgepin_training.corpus import list_captures, load_faces, load_voices, one_each

from ._card import write_card
from ._int8 import Qat, Tune
from ._onnx import to_onnx
from ._parity import Captured, Feed, batched, calibration_inputs
from ._people import Batch, People, Prepared, draw_trials, prepare_people
from ._qat import QatOptions, fine_tune
from ._quantize import QuantizeSpec
from ._ranges import Histogram
from ._report import manifest_accuracy
from ._torch_runtime import TorchRuntime
from ._variants import Captures, Variants, make_variants

RANGE_CAPTURES = 128
CHOICE_CAPTURES = 64
QAT_CAPTURES = 512
PORTABLE_PEOPLE = 24
"""Of how many held-apart people two voices each go through the portable encoder."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class CalibrationPeople:
    """Who the fusion is fitted on and the gates look at: folders, and speaker -> face. They were not trained on."""

    faces: Path
    voices: Path
    pairs: dict[str, str]
    cropped: bool
    chimeric: bool
    origin: str  # said in the bundle
    further: bool = False
    """Whether those in the folders who are in no pair were not trained on either: evidence for one modality alone."""


@dataclass(frozen=True)
class Exported:
    """`digest` and `fusion` are None where a gate failed that was not allowed to: then nothing was written."""

    variants: Variants
    digest: str | None
    fusion: Fusion | None
    precisions: tuple[str, ...]
    missing: dict[str, list[str]]
    """What the bundle lacks, or would lack, and why."""
    forbidden: tuple[str, ...]
    """Those of `missing` that were not allowed to be."""


def export_run(
    run: Run,
    people: CalibrationPeople,
    out: Path,
    *,
    name: str,
    key: SigningKey | None,
    allow_missing: Sequence[str] = (),
    qat: Qat = "auto",
    qat_options: QatOptions | None = None,
    progress: Progress,
) -> Exported:
    """Writes the bundle, if every gate passes but those of `allow_missing`.

    Raises:
        UsageError: there is too little to calibrate on; nothing is written then.
    """
    spec = LogMelSpec.preset(run.config.log_mel)
    fp32 = {
        "face": to_onnx(run.face, "face", size=run.config.face_size),
        "voice": to_onnx(run.voice, "voice", mels=spec.num_mels),
    }
    pipeline = Pipeline(OnnxRuntime(fp32), HaarFinder(), run.config.face_spec, spec)
    prepared = prepare_people(
        pipeline,
        people.faces,
        people.voices,
        people.pairs,
        cropped=people.cropped,
        further=people.further,
        progress=progress,
    )
    inputs = _training_inputs(run, RANGE_CAPTURES + CHOICE_CAPTURES, progress)
    captures = {modality: split_captures(inputs[modality], modality, prepared) for modality in MODALITIES}
    clips, clip_owner = held_apart_clips(people, prepared, progress)
    variants = make_variants(
        fp32,
        captures,
        spec,
        clips,
        clip_owner,
        trained={modality: _embed_trained(run, modality, captures[modality]) for modality in MODALITIES},
        tune=_tuners(run, qat_options or QatOptions(), progress),
        qat=qat,
        progress=progress,
    )
    return write_export(
        variants,
        prepared,
        people,
        out,
        name=name,
        key=key,
        log_mel=spec,
        face=run.config.face_spec,
        cross_modal=run.corpus["pairs"] > 0,
        training=_training(run),
        allow_missing=allow_missing,
    )


def write_export(
    variants: Variants,
    prepared: Prepared,
    people: CalibrationPeople,
    out: Path,
    *,
    name: str,
    key: SigningKey | None,
    log_mel: LogMelSpec,
    face: FaceSpec,
    cross_modal: bool,
    training: Mapping[str, Any],
    allow_missing: Sequence[str] = (),
) -> Exported:
    """Calibrates on FP32's embeddings and writes what passed; nothing if something failed that must not."""
    missing = variants.failures
    forbidden = tuple(precision for precision in missing if precision not in allow_missing)
    precisions = tuple(precision for precision in ("fp32", "fp16", "int8") if precision not in missing)
    if forbidden:
        return Exported(variants, None, None, precisions, missing, forbidden)
    embedded = People(prepared.names, variants.fp32["face"], variants.fp32["voice"])
    more = {
        modality: _embed(variants.models["fp32"][modality], modality, batches)
        for modality, batches in prepared.more.items()
        if batches
    }
    trials, alone = draw_trials(embedded, more, chimeric=people.chimeric)
    fusion = calibrate(trials, cross_modal=cross_modal, alone=alone)
    members = {
        f"{modality}.{precision}.onnx": variants.models[precision][modality]
        for precision in precisions
        for modality in MODALITIES
    }
    if "portable" not in missing:
        members[PORTABLE_VOICE] = variants.models["portable"]["voice"]
    manifest = Manifest(
        name=name,
        created_by=f"edgepin {importlib.metadata.version('edgepin')}",
        log_mel=log_mel,
        face=face,
        cross_modal=cross_modal,
        fusion=fusion.to_json(),
        evidence=_evidence(fusion, people, prepared),
        accuracy=manifest_accuracy(variants),
        training=training,
        usage={
            "purpose": "evaluation of face-and-voice verification with the people and conditions that it was trained for",
            "restrictions": "no presentation attack detection; not for a production door without site calibration",
        },
    )
    members["card.md"] = write_card(manifest, fusion, missing).encode()
    digest = write_bundle(out, manifest, members, key)
    return Exported(variants, digest, fusion, precisions, missing, ())


def split_captures(inputs: Sequence[Feed], modality: str, prepared: Prepared) -> Captures:
    """Two thirds of the inputs for ranges and the rest to choose on, and the held-apart captures beside them."""
    held = prepared.faces if modality == "face" else prepared.voices
    key = "face" if modality == "face" else "log_mel"
    cut = max(1, len(inputs) * RANGE_CAPTURES // (RANGE_CAPTURES + CHOICE_CAPTURES))
    return Captures(
        inputs[:cut],
        inputs[cut:] or inputs[:cut],
        [{key: batch} for _, batch in held],
        np.array([number for number, _ in held], np.int64),
    )


def held_apart_clips(
    people: CalibrationPeople, prepared: Prepared, progress: Progress
) -> tuple[list[NDArray[np.int16]], NDArray[np.int64]]:
    """Two voices each of some held-apart people, as PCM, and whose they are."""
    files = list_captures(people.voices, SOUND_SUFFIXES)
    few = {name: files[name][:2] for name in prepared.names[:PORTABLE_PEOPLE]}
    voices = load_voices(few, progress=progress)
    return [np.asarray(item, np.int16) for item in voices.items], voices.labels


def _training_inputs(run: Run, count: int, progress: Progress) -> dict[str, list[Feed]]:
    """Encoder inputs of captures that were trained on: one each of up to `count` people."""
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
        one_each(files["face"], count, run.config.seed),
        run.config.face_spec,
        cropped=sources["face_cropped"],
        progress=progress,
    )
    voices = load_voices(one_each(files["voice"], count, run.config.seed), progress=progress)
    return calibration_inputs(run, faces, voices, count, run.config.seed)


def _embed(model: bytes, modality: str, batches: Sequence[Batch]) -> Captured:
    runtime = OnnxRuntime({modality: model})
    rows = [runtime.encode(modality, batch) for _, batch in batches]
    return Captured(
        np.concatenate([identity for identity, _ in rows]),
        np.concatenate([pin for _, pin in rows]),
        np.array([number for number, _ in batches], np.int64),
    )


def _embed_trained(run: Run, modality: str, captures: Captures) -> Captured:
    runtime = TorchRuntime(run)
    rows = [runtime.encode(modality, next(iter(feed.values()))) for feed in batched(captures.held_apart)]
    return Captured(
        np.concatenate([identity for identity, _ in rows]),
        np.concatenate([pin for _, pin in rows]),
        captures.owner,
    )


def _tuners(run: Run, options: QatOptions, progress: Progress) -> dict[str, Tune]:
    """Fine-tuning of the run's encoders; the captures for it are read when the first one asks."""
    read: dict[str, list[Feed]] = {}

    def tuner(modality: str) -> Tune:
        def tune(model: bytes, observed: Mapping[str, Histogram], spec: QuantizeSpec) -> bytes:
            if not read:
                read.update(_training_inputs(run, QAT_CAPTURES, progress))
            encoder = run.face if modality == "face" else run.voice
            label = f"{modality}: fine-tuning for INT8"
            tuned = fine_tune(
                encoder, model, observed, spec, read[modality], options, label=label, progress=progress
            )
            mels = LogMelSpec.preset(run.config.log_mel).num_mels
            return to_onnx(tuned, modality, size=run.config.face_size, mels=mels)  # type: ignore[arg-type]

        return tune

    return {modality: tuner(modality) for modality in MODALITIES}


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
        "alone": {
            modality: {
                "people": fusion.evidence.sets[modality].kinds["stranger"].people,
                "subject_pairs": fusion.evidence.sets[modality].pairs,
                "captures": len(batches),
            }
            for modality, batches in prepared.more.items()
            if batches
        },
    }


def _training(run: Run) -> dict[str, Any]:
    """What the run was told and how much it saw; not where on that machine."""
    corpus = {name: value for name, value in run.corpus.items() if name not in ("sources", "held_out")}
    return {"config": run.config.to_json(), "corpus": corpus, "steps": run.step}
