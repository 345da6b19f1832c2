"""Whether a foreign encoder works: the graph computes what its file does, and tells people apart.

What fails is refused with a figure. Where an encoder hardly tells people apart, the usual mistakes of a spec are tried
on the same captures, and the one that would have done best is named.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepin._errors import UsageError
from edgepin.metrics import eer
from edgepin_kernels import LogMel, LogMelSpec

from ._foreign_graph import EMBEDDING, adapt
from ._foreign_open import ForeignEncoder, ForeignSpec
from ._foreign_projection import Embedded
from ._foreign_reference import OriginalEncoder
from ._foreign_rewrite import first_line
from ._foreign_spec import ForeignFace, ForeignVoice
from ._parity import batched
from ._ranges import Feed, session

MAX_EER = 0.45
"""Of a foreign encoder on the calibration people. 0.5 is chance."""
MIN_AGREEMENT = 0.9999
"""Cosine between what the graph and the original file make of a capture."""
_TRIED = 8
_SPREAD = 64
_SAME = 0.9999
_BETTER = 0.7
_BETTER_POINTS = 0.02
"""A spec that brings the EER below this part of it, and by so much, is worth a word."""

Progress = Callable[[str, int, int], None]


def embed(model: bytes, feeds: Sequence[Feed], *, label: str, progress: Progress) -> NDArray[np.float32]:
    """The `embedding` rows (n, D) of a graph from `adapt`. Raises `UsageError` if ONNX Runtime refuses it or fails."""
    try:
        running = session(model)
        rows = []
        batches = batched(feeds)
        for done, feed in enumerate(batches, start=1):
            rows.append(running.run([EMBEDDING], feed)[0])
            progress(label, done, len(batches))
    except Exception as error:  # onnxruntime's errors share no base below Exception
        raise UsageError(
            f"the encoder fails on real captures: {first_line(error)}",
            hint="compare its input with the spec; export it with a free batch axis",
        ) from error
    return np.concatenate(rows)


def check_runs(encoder: ForeignEncoder, feeds: Sequence[Feed], *, progress: Progress) -> int:
    """Runs the encoder on captures of several people, and gives the number of its dimensions.

    Raises:
        UsageError: what it gives is not finite, is the same for everybody, differs from run to run, or depends on the
            other rows of a batch; or the graph does not compute what the file does.
    """
    what = f"the {encoder.modality} encoder"
    original = OriginalEncoder(encoder)
    key = next(iter(feeds[0]))
    few = [feed[key] for feed in feeds[:_TRIED]]
    wanted = np.concatenate([original.embed(capture) for capture in few])
    again = np.concatenate([original.embed(capture) for capture in few])
    if not np.isfinite(wanted).all():
        raise UsageError(f"{what} gives values that are not finite", hint="compare its input with the spec")
    if not np.allclose(wanted, again, atol=1e-5):
        raise UsageError(
            f"{what} gives another embedding each time",
            hint="it has dropout or noise in it: export it in evaluation mode",
        )
    if not np.allclose(np.linalg.norm(wanted, axis=1), 1.0, atol=1e-3):
        raise UsageError(f"{what} gives zeros", hint="compare its input with the spec, its scale first")
    graph = adapt(encoder)
    single = embed(graph, [], label="", progress=progress) if not few else _each(graph, key, few)
    agreement = _cosines(wanted, single).min()
    if not agreement >= MIN_AGREEMENT:
        raise UsageError(
            f"{what} computes something else after it was brought into our form: the lowest cosine to its own file is "
            f"{agreement:.5f}" + (f" ({'; '.join(encoder.notes)})" if encoder.notes else ""),
            hint="export it again with opset 18 and a free batch axis",
        )
    # All of one shape, so that they are one batch.
    shortest = min(capture.shape[1] for capture in few)
    cut = [capture[:, :shortest] for capture in few] if encoder.modality == "voice" else few
    together = embed(graph, [{key: np.concatenate(cut)}], label=f"{what}: trying", progress=progress)
    if (
        together.shape != single.shape
        or not _cosines(together, _each(graph, key, cut)).min() >= MIN_AGREEMENT
    ):
        raise UsageError(
            f"{what} cannot take several captures at once",
            hint="export it with a free batch axis (dynamic_axes or dynamic_shapes)",
        )
    spread = embed(graph, feeds[:_SPREAD], label=f"{what}: trying", progress=progress)
    cosines = (spread @ spread.T)[np.triu_indices(len(spread), 1)]
    if len(cosines) and cosines.mean() > _SAME:
        raise UsageError(
            f"{what} gives everybody the same embedding (mean cosine {cosines.mean():.6f})",
            hint="compare its input with the spec, its scale first",
        )
    return int(wanted.shape[1])


@dataclass(frozen=True)
class Tried:
    """EERs on some of the captures, as fractions: of the spec that was given, and of others, (what is changed, EER)."""

    given: float
    others: tuple[tuple[str, float], ...]

    @property
    def better(self) -> str | None:
        """The best of the others, with its figure, if it does far better than the one that was given."""
        words, best = min(self.others, key=lambda row: row[1], default=("", 1.0))
        if best < min(_BETTER * self.given, self.given - _BETTER_POINTS):
            return f"with {words} it would be {100 * best:.1f} % instead of {100 * self.given:.1f} %"
        return None


def check_tells_apart(encoder: ForeignEncoder, found: float, tried: Tried | None) -> str | None:
    """Refuses an EER (fraction) that is hardly better than chance; advice where another spec would do far better.

    Raises:
        UsageError: the EER is 0.45 or more; the hint names the best of the others, or the usual causes.
    """
    better = None if tried is None else tried.better
    if found < MAX_EER:
        return better and f"the {encoder.modality} spec may be wrong: {better} (EER on some of the captures)"
    usual = (
        "the order of the channels, mean and std, or the crop"
        if encoder.modality == "face"
        else "the log-mel (its window, scale or normalization) or the layout"
    )
    raise UsageError(
        f"the {encoder.modality} encoder does not tell the calibration people apart: its EER is {100 * found:.1f} %, "
        f"and below {100 * MAX_EER:.0f} % is needed",
        hint=f"on some of the captures, {better}" if better else f"wrong may be {usual}",
    )


def error_rate(embedded: Embedded) -> float:
    """EER of the cosines over all pairs of different captures, as a fraction."""
    first, second = np.triu_indices(len(embedded.owner), 1)
    cosines = (embedded.embedding @ embedded.embedding.T)[first, second]
    return eer(cosines, embedded.owner[first] == embedded.owner[second])


def try_faces(
    encoder: ForeignEncoder, crops: Sequence[NDArray[np.uint8]], owner: NDArray[np.int64], progress: Progress
) -> Tried:
    """The given and other face specs on crops (1, S, S, 3)."""
    feeds: list[Feed] = [{"face": crop} for crop in crops]
    given = _attempt(encoder, encoder.spec, feeds, progress)
    found = [(words, _attempt(encoder, spec, feeds, progress)) for words, spec in _other_faces(encoder.spec)]
    return _rated(given, found, owner)


def try_voices(
    encoder: ForeignEncoder, clips: Sequence[NDArray[np.int16]], owner: NDArray[np.int64], progress: Progress
) -> Tried:
    """The given and other voice specs on clips, int16 PCM at 16 kHz."""

    def attempt(spec: ForeignVoice) -> NDArray[np.float32] | None:
        if min(spec.log_mel.num_frames(len(clip)) for clip in clips) < 1:
            return None
        log_mel = LogMel(spec.log_mel)
        return _attempt(encoder, spec, [{"log_mel": log_mel(clip)[None]} for clip in clips], progress)

    assert isinstance(encoder.spec, ForeignVoice)
    found = [(words, attempt(spec)) for words, spec in _other_voices(encoder.spec)]
    return _rated(attempt(encoder.spec), found, owner)


def _rated(
    given: NDArray[np.float32] | None,
    found: Sequence[tuple[str, NDArray[np.float32] | None]],
    owner: NDArray[np.int64],
) -> Tried:
    others = [(words, error_rate(Embedded(rows, owner))) for words, rows in found if rows is not None]
    return Tried(1.0 if given is None else error_rate(Embedded(given, owner)), tuple(others))


def _attempt(
    encoder: ForeignEncoder, spec: ForeignSpec, feeds: list[Feed], progress: Progress
) -> NDArray[np.float32] | None:
    """Embeddings under another spec; None if the encoder cannot run with it."""
    try:
        graph = adapt(dataclasses.replace(encoder, spec=spec))
        rows = embed(graph, feeds, label=f"{encoder.modality}: trying other specs", progress=progress)
    except UsageError:
        return None
    return rows if np.isfinite(rows).all() else None


def _other_faces(spec: ForeignSpec) -> Iterator[tuple[str, ForeignFace]]:
    assert isinstance(spec, ForeignFace)
    other = "rgb" if spec.channels == "bgr" else "bgr"
    yield f'channels = "{other}"', dataclasses.replace(spec, channels=other)
    if spec.dtype == "uint8":
        return
    scales = {
        "mean = 0, std = 1": ((0.0,), (1.0,)),
        "mean = 0, std = 255": ((0.0,), (255.0,)),
        "mean = 127.5, std = 127.5": ((127.5,), (127.5,)),
        "the mean and std of ImageNet": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    }
    for words, (mean, std) in scales.items():
        for channels in (spec.channels, other):
            changed = dataclasses.replace(
                spec, channels=channels, mean=mean * (3 // len(mean)), std=std * (3 // len(std))
            )
            if (changed.mean, changed.std) != (spec.mean, spec.std):
                yield words + ("" if channels == spec.channels else f', channels = "{other}"'), changed


def _other_voices(spec: ForeignSpec) -> Iterator[tuple[str, ForeignVoice]]:
    assert isinstance(spec, ForeignVoice)
    mels = spec.log_mel.num_mels
    for name in (
        "kaldi",
        "wespeaker",
        "3d-speaker",
        "speechbrain",
        "nemo",
        "librosa",
        "torchaudio",
        "resemblyzer",
    ):
        preset = dataclasses.replace(LogMelSpec.preset(name), num_mels=mels)
        for normalize in ("mean", "none"):
            log_mel = dataclasses.replace(preset, normalize=preset.normalize if name == "nemo" else normalize)
            level = spec.least_mean if log_mel.log == "none" else None
            changed = dataclasses.replace(spec, log_mel=log_mel, least_mean=level)
            if changed.log_mel != spec.log_mel:
                yield f'log_mel = "{name}" with normalize = "{log_mel.normalize}"', changed


def _each(graph: bytes, key: str, captures: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    running = session(graph)
    try:
        return np.concatenate([running.run([EMBEDDING], {key: capture})[0] for capture in captures])
    except Exception as error:  # onnxruntime's errors share no base below Exception
        raise UsageError(
            f"the encoder fails on real captures: {first_line(error)}", hint="compare its input with the spec"
        ) from error


def _cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of rows of unit length; -1 where the shapes differ or a value is not finite."""
    if a.shape != b.shape:
        return np.full(1, -1.0)
    found = np.einsum("nd,nd->n", a.astype(np.float64), b.astype(np.float64))
    return np.where(np.isfinite(found), found, -1.0)
