"""From foreign encoders to a bundle: checks, projections, and then what our own encoders go through."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgepin._bundle.bundle import MAX_BUNDLE_BYTES
from edgepin._bundle.manifest import EMBEDDING_DIM, MODALITIES
from edgepin._bundle.signing import SigningKey
from edgepin._capture.audio import load_voice
from edgepin._capture.faces import HaarFinder
from edgepin._decision.trials import IMAGE_SUFFIXES, SOUND_SUFFIXES
from edgepin._errors import UsageError
from edgepin._pipeline import Pipeline
from edgepin._runtime.runtime import OnnxRuntime
from edgepin_training.corpus import list_captures

from ._export import (
    CHOICE_CAPTURES,
    RANGE_CAPTURES,
    CalibrationPeople,
    Exported,
    held_apart_clips,
    split_captures,
    write_export,
)
from ._foreign_graph import adapt
from ._foreign_open import ForeignEncoder
from ._foreign_people import FitCaptures, FitPeople, choose_people, load_fit_faces, load_fit_voices
from ._foreign_projection import Embedded, Pins, Projection, fit_identity, fit_pins, kept_energy
from ._foreign_reference import OriginalEncoder
from ._foreign_spec import ForeignFace, ForeignVoice
from ._foreign_trial import Tried, check_runs, check_tells_apart, embed, error_rate, try_faces, try_voices
from ._parity import Captured
from ._people import Batch, Prepared, prepare_people
from ._quantize import quantizable_nodes
from ._variants import Variants, make_variants

MAX_PROJECTION_RISE = 0.01
"""By how much the projection to 256 dimensions may raise the EER on the calibration people, as a fraction."""
TRIED_CAPTURES = 60
"""On so many, of the calibration people in turn, other specs are tried."""
GOOD_EER = 0.01
"""Below it nothing else is tried."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ForeignExport:
    """What came out; `training` is what the manifest says of the encoders, `advice` is for people."""

    exported: Exported
    training: dict[str, Any]
    advice: tuple[str, ...]


def export_foreign(
    encoders: Mapping[str, ForeignEncoder],
    people: CalibrationPeople,
    fit: FitPeople | None,
    out: Path,
    *,
    name: str,
    key: SigningKey | None,
    about: Mapping[str, Any] | None = None,
    allow_missing: Sequence[str] = (),
    seed: int = 0,
    progress: Progress,
) -> ForeignExport:
    """Writes a bundle of two encoders that were opened, if every gate passes but those of `allow_missing`.

    Args:
        encoders: by modality, `face` and `voice`.
        people: whom to calibrate on.
        fit: whom to fit projections and INT8 ranges on; None takes some of those given in `people`.
        about: what else the manifest says of how the encoders came to be.
        seed: of every drawing; the same arguments give the same bytes.

    Raises:
        UsageError: an encoder does not work, in a way that the message names with its figure; or there are too few
            people. Nothing is written then.
    """
    face, voice = encoders["face"].spec, encoders["voice"].spec
    assert isinstance(face, ForeignFace)
    assert isinstance(voice, ForeignVoice)
    pairs, fit = choose_people(
        list_captures(people.faces, IMAGE_SUFFIXES),
        list_captures(people.voices, SOUND_SUFFIXES),
        people.pairs,
        fit,
        seed,
    )
    people = dataclasses.replace(people, pairs=pairs)
    captures = {
        "face": load_fit_faces(fit, face, cropped=people.cropped, progress=progress, seed=seed),
        "voice": load_fit_voices(fit, voice, progress=progress, seed=seed),
    }
    for modality in MODALITIES:
        check_runs(encoders[modality], captures[modality].feeds, progress=progress)
    fitted = {
        modality: _embed_fit(encoders[modality], captures[modality], progress) for modality in MODALITIES
    }
    pins = fit_pins(fitted["face"], fitted["voice"], _numbered(fit, captures, people.chimeric), seed)
    projections = {
        modality: Projection(
            fitted[modality].dim,
            fit_identity(fitted[modality], seed),
            getattr(pins, modality) if isinstance(pins, Pins) else None,
        )
        for modality in MODALITIES
    }
    fp32 = {modality: adapt(encoders[modality], projections[modality]) for modality in MODALITIES}
    pipeline = Pipeline(OnnxRuntime(fp32), HaarFinder(), face.crop, voice.log_mel)
    prepared = prepare_people(
        pipeline, people.faces, people.voices, people.pairs, cropped=people.cropped, progress=progress
    )
    trained, described, advice = {}, {}, []
    for modality, batches in (("face", prepared.faces), ("voice", prepared.voices)):
        held = _embed_original(encoders[modality], batches, progress)
        found = error_rate(held)
        certain = encoders[modality].ours or found < GOOD_EER
        tried = None if certain else _try_others(encoders[modality], batches, people, prepared, progress)
        word = check_tells_apart(encoders[modality], found, tried)
        advice += [word] if word else []
        identity, pin = projections[modality].apply(held.embedding)
        trained[modality] = Captured(identity, pin, held.owner)
        described[modality] = _describe(encoders[modality], projections[modality], held, found, identity)
    del fitted
    variants = make_variants(
        fp32,
        {
            modality: split_captures(
                captures[modality].feeds[: RANGE_CAPTURES + CHOICE_CAPTURES], modality, prepared
            )
            for modality in MODALITIES
        },
        voice.log_mel,
        *held_apart_clips(people, prepared, progress),
        trained=trained,
        qat="never",  # there is nothing to train it with
        progress=progress,
    )
    _check_size(variants)
    training = {
        **(about or {}),
        "foreign": described,
        "fitted_on": {
            f"{modality}s": {
                "people": len(captures[modality].names),
                "captures": len(captures[modality].feeds),
            }
            for modality in MODALITIES
        },
        "pins": pins.to_json() if isinstance(pins, Pins) else {"none": pins},
    }
    exported = write_export(
        variants,
        prepared,
        people,
        out,
        name=name,
        key=key,
        log_mel=voice.log_mel,
        face=face.crop,
        cross_modal=isinstance(pins, Pins),
        training=training,
        allow_missing=allow_missing,
    )
    return ForeignExport(exported, training, tuple(advice))


def floating_point_share(model: bytes) -> tuple[float, tuple[str, ...]]:
    """The share of an encoder's weights that INT8 leaves as they are, and the operators that hold them."""
    graph = onnx.load_model_from_string(model)
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.graph.initializer}
    layers = set(quantizable_nodes(graph))
    total, left, kinds = 0, 0, set()
    for node in graph.graph.node:
        weights = sum(sizes.get(name, 0) for name in node.input)
        total += weights
        if node.name not in layers and weights:
            left += weights
            if weights >= 1000:
                kinds.add(node.op_type)
    return (left / total if total else 0.0), tuple(sorted(kinds))


def _embed_fit(encoder: ForeignEncoder, captures: FitCaptures, progress: Progress) -> Embedded:
    rows = embed(adapt(encoder), captures.feeds, label=f"{encoder.modality}s to fit on", progress=progress)
    return Embedded(rows, captures.owner)


def _numbered(fit: FitPeople, captures: Mapping[str, FitCaptures], chimeric: bool) -> list[tuple[int, int]]:
    """The real pairs of people who have usable captures in both modalities, as numbers of owners."""
    if chimeric:
        return []
    faces, voices = (
        {captures[modality].names[number]: number for number in np.unique(captures[modality].owner).tolist()}
        for modality in MODALITIES
    )
    return [(faces[face], voices[voice]) for face, voice in fit.pairs if face in faces and voice in voices]


def _embed_original(encoder: ForeignEncoder, batches: Sequence[Batch], progress: Progress) -> Embedded:
    original = OriginalEncoder(encoder)
    rows = []
    for done, (_, batch) in enumerate(batches, start=1):
        rows.append(original.embed(batch))
        progress(f"{encoder.modality}s through the file that was given", done, len(batches))
    return Embedded(np.concatenate(rows), np.array([owner for owner, _ in batches], np.int64))


def _try_others(
    encoder: ForeignEncoder,
    batches: Sequence[Batch],
    people: CalibrationPeople,
    prepared: Prepared,
    progress: Progress,
) -> Tried:
    """EERs of this and other specs on some of the captures; for voices these are read again, as another log-mel needs sound."""
    if encoder.modality == "face":
        chosen = _in_turn(np.array([owner for owner, _ in batches]))
        owner = np.array([batches[index][0] for index in chosen], np.int64)
        return try_faces(encoder, [batches[index][1] for index in chosen], owner, progress)
    files = list_captures(people.voices, SOUND_SUFFIXES)
    listed = [(number, path) for number, name in enumerate(prepared.names) for path in files[name]]
    chosen = _in_turn(np.array([number for number, _ in listed]))
    owner = np.array([listed[index][0] for index in chosen], np.int64)
    seconds = int(3.0 * 16_000)
    return try_voices(encoder, [load_voice(listed[index][1])[:seconds] for index in chosen], owner, progress)


def _in_turn(owner: NDArray[np.int64]) -> list[int]:
    """Up to `TRIED_CAPTURES` places, the first capture of everybody before the second of anybody."""
    turn = np.empty(len(owner), np.int64)
    for person in np.unique(owner):
        places = np.flatnonzero(owner == person)
        turn[places] = np.arange(len(places))
    return [int(place) for place in np.lexsort((owner, turn))[:TRIED_CAPTURES]]


def _describe(
    encoder: ForeignEncoder,
    projection: Projection,
    held: Embedded,
    before: float,
    identity: NDArray[np.float32],
) -> dict[str, Any]:
    """What the manifest says of an encoder. Raises `UsageError` if the projection costs too much."""
    after = error_rate(Embedded(identity, held.owner))
    _, counts = np.unique(held.owner, return_counts=True)
    trial = 1.0 / max(1.0, float(np.sum(counts * (counts - 1) / 2)))  # an EER cannot tell less
    kept = kept_energy(held.embedding, projection.identity)
    if after > before + max(MAX_PROJECTION_RISE, trial):
        raise UsageError(
            f"the projection of the {encoder.modality} embedding from {held.dim} to {EMBEDDING_DIM} dimensions raises the "
            f"EER from {100 * before:.2f} to {100 * after:.2f} % (it keeps {100 * kept:.1f} % of the energy)",
            hint="give more people to fit on (--fit)",
        )
    kind = (
        "none"
        if held.dim == EMBEDDING_DIM
        else "zeros"
        if held.dim < EMBEDDING_DIM
        else "principal directions"
    )
    share, kinds = floating_point_share(adapt(encoder))
    return {
        "run": encoder.ours,
        "sha256": encoder.sha256,
        "spec": encoder.spec.to_json(),
        "dim": held.dim,
        "changes": list(encoder.notes),
        "eer": round(before, 6),
        "projection": {"kind": kind, "kept_energy": round(kept, 6), "eer": round(after, 6)},
        "floating_point": {"share": round(share, 4), "operators": list(kinds)},
    }


def _check_size(variants: Variants) -> None:
    """FP16 is the first to go where not all forms fit into a bundle."""
    sizes = {precision: sum(map(len, models.values())) for precision, models in variants.models.items()}
    if sum(sizes.values()) > MAX_BUNDLE_BYTES - (2 << 20):
        variants.errors.setdefault("fp16", []).append(
            f"all forms together have {sum(sizes.values()) >> 20} MiB, and a bundle {MAX_BUNDLE_BYTES >> 20}"
        )
