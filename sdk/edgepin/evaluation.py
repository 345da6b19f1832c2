"""How well captures are told apart on lists of verification trials.

The embeddings may come from a file (`evaluate_embeddings`) or from a callable that embeds a capture by its
name (`evaluate_modality`). Scores are cosines, so Cllr, which is for log-likelihood ratios, is None here;
`min_cllr` is not.

A capture that the pipeline refuses (a failure to acquire) still counts: every trial with it scores -1, the
lowest cosine, so that it is a non-match at any threshold above that. Leaving such trials out would reward an
encoder for refusing what is difficult.
"""

from __future__ import annotations

import dataclasses
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ._decision.fused_trials import FusedTrials, FusedTrialSets, fused_trials
from ._decision.groups import GroupRates, rates_by_group, read_groups
from ._decision.trials import (
    Chimera,
    Trials,
    first_few,
    list_captures,
    paths_under,
    read_chimeras,
    read_trials,
    subject_of,
)
from ._errors import CaptureError, EdgePinError, UsageError
from .metrics import VerificationResult, summarize

__all__ = [
    "Chimera",
    "EmbeddedCaptures",
    "FusedScores",
    "FusedTrialSets",
    "FusedTrials",
    "GroupRates",
    "ModalityEvaluation",
    "Trials",
    "VerificationResult",
    "cosines",
    "embed_captures",
    "evaluate_embeddings",
    "evaluate_modality",
    "fused_scores",
    "fused_trials",
    "list_captures",
    "paths_under",
    "rates_by_group",
    "read_chimeras",
    "read_groups",
    "read_trials",
    "subject_of",
]

MAX_NPZ_BYTES = 2 << 30
"""What the arrays of an archive may have in memory: as many as a million embeddings of 512 float32."""
REFUSED_SCORE = -1.0
"""The score of a trial in which a capture was refused."""

Embed = Callable[[str], tuple[npt.ArrayLike, npt.ArrayLike]]
Progress = Callable[[int, int], None]
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

# What a damaged, encrypted or oversized archive makes numpy and zipfile raise.
_UNREADABLE = (
    OSError, ValueError, EOFError, KeyError, RuntimeError, MemoryError, SyntaxError, tokenize.TokenError, OverflowError,
    TypeError, AttributeError, IndexError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
# Trials scored at a time: two float64 (8192, 256) blocks are 32 MB.
_CHUNK = 8192


@dataclasses.dataclass(frozen=True, eq=False)
class EmbeddedCaptures:
    """Embeddings of m captures. Rows of refused ones are zeros.

    identity, pin: float32 (m, d), one row per name. refused: the verdict's code of each refused capture, by
    name.
    """

    names: tuple[str, ...]
    identity: npt.NDArray[np.float32]
    pin: npt.NDArray[np.float32]
    refused: Mapping[str, str]

    @property
    def usable(self) -> npt.NDArray[np.bool_]:
        """bool (m,): which captures were not refused."""
        return np.array([name not in self.refused for name in self.names], np.bool_)


@dataclasses.dataclass(frozen=True, eq=False)
class ModalityEvaluation:
    """The result of one modality, the float64 (n,) scores of its trials, and the embeddings behind them."""

    result: VerificationResult
    scores: Floats
    captures: EmbeddedCaptures


@dataclasses.dataclass(frozen=True, eq=False)
class FusedScores:
    """The four cosines of n fused trials, float64 (n,) each, -1 where a capture was refused.

    face: enrolled face × test face, and voice: enrolled voice × test voice, of the identity embeddings.
    face_voice: enrolled face × test voice, and voice_face: enrolled voice × test face, of the pin
    embeddings.
    """

    face: Floats
    voice: Floats
    face_voice: Floats
    voice_face: Floats


def evaluate_embeddings(npz: Path, trials: Path) -> VerificationResult:
    """Scores a trial list with embeddings from a file.

    npz: a numpy archive with `names` (m,), strings or UTF-8 bytes, and `embeddings` (m, d), real, of any
    length but 0. It is read without pickle.

    Raises UsageError for a file that is not that, for names that come twice, embeddings that are zero or
    not finite, and trials whose names are not in it.
    """
    listed = read_trials(trials)
    names, embeddings = read_embeddings(npz)
    row = {name: i for i, name in enumerate(names)}
    missing = [name for name in listed.names if name not in row]
    if missing:
        raise UsageError(
            f"{npz} has no embedding of {first_few(missing)}", hint="names must equal those of the trials"
        )
    rows = np.array([row[name] for name in listed.names], np.int64)
    scores = cosines(embeddings, rows[listed.enroll_index], embeddings, rows[listed.test_index])
    return summarize(scores, listed.labels)


def evaluate_modality(trials: Trials, embed: Embed, progress: Progress | None = None) -> ModalityEvaluation:
    """Embeds each capture of the trials once, and scores them by the cosine of the identity embeddings.

    embed and progress are as in `embed_captures`. The result's `failed` counts refused captures, not trials.
    """
    captures = embed_captures(trials.names, embed, progress)
    scores = _cosines_of_usable(
        captures, captures.identity, trials.enroll_index, captures, captures.identity, trials.test_index
    )
    result = summarize(scores, trials.labels, failed=len(captures.refused))
    return ModalityEvaluation(result, scores, captures)


def embed_captures(names: Sequence[str], embed: Embed, progress: Progress | None = None) -> EmbeddedCaptures:
    """Embeds captures by name.

    embed: a name to its `(identity, pin)`, both (d,), d the same for all; a CaptureError of it is a refusal
    and is counted, any other error passes. progress: called with how many are done and how many there are,
    first with 0.

    Raises UsageError when there is no name, CaptureError when all captures are refused, and EdgePinError for
    an embedding that is zero, not finite, or of another shape than the first.
    """
    if not names:
        raise UsageError("there are no captures to embed")
    rows: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None] = []
    refused: dict[str, str] = {}
    shape: tuple[int, ...] | None = None
    report = progress or (lambda done, total: None)
    report(0, len(names))
    for name in names:
        try:
            identity, pin = (np.array(part, np.float32) for part in embed(name))
        except CaptureError as error:
            refused[name] = error.code
            rows.append(None)
        else:
            shape = shape or identity.shape
            for part in (identity, pin):
                if part.shape != shape or part.ndim != 1 or not np.isfinite(part).all() or not part.any():
                    raise EdgePinError(
                        f"the encoder gave no usable embedding for {name!r} (shape {part.shape})",
                        hint="try another precision; if that does not help, the model is at fault",
                    )
            rows.append((identity, pin))
        report(len(rows), len(names))
    if shape is None:
        name, code = next(iter(refused.items()))
        raise CaptureError(
            f"all {len(names)} captures were refused, the first, {name!r}, as {code}",
            code=code,
            hint="are the files what the modality expects: faces to find or cropped, sound long enough?",
        )
    nothing = np.zeros(shape, np.float32)
    return EmbeddedCaptures(
        names=tuple(names),
        identity=np.stack([row[0] if row else nothing for row in rows]),
        pin=np.stack([row[1] if row else nothing for row in rows]),
        refused=MappingProxyType(refused),
    )


def fused_scores(trials: FusedTrials, voices: EmbeddedCaptures, faces: EmbeddedCaptures) -> FusedScores:
    """The four cosines of fused trials; voices and faces are the embedded names of their `FusedTrialSets`."""
    face, voice = (faces, faces.identity), (voices, voices.identity)
    face_pin, voice_pin = (faces, faces.pin), (voices, voices.pin)
    return FusedScores(
        face=_cosines_of_usable(*face, trials.enroll_face, *face, trials.test_face),
        voice=_cosines_of_usable(*voice, trials.enroll_voice, *voice, trials.test_voice),
        face_voice=_cosines_of_usable(*face_pin, trials.enroll_face, *voice_pin, trials.test_voice),
        voice_face=_cosines_of_usable(*voice_pin, trials.enroll_voice, *face_pin, trials.test_face),
    )


def cosines(
    first: npt.ArrayLike, first_index: Indices, second: npt.ArrayLike, second_index: Indices
) -> Floats:
    """Cosines, float64 (n,), of the rows first[first_index] and second[second_index]; 0 where a row is zero.

    first, second: real (m, d) and (k, d), finite. first_index, second_index: int (n,).
    """
    left = unit_rows(np.asarray(first))
    right = left if second is first else unit_rows(np.asarray(second))
    scores = np.empty(len(first_index))
    for start in range(0, len(scores), _CHUNK):
        part = slice(start, start + _CHUNK)
        scores[part] = np.einsum("nd,nd->n", left[first_index[part]], right[second_index[part]])
    return np.clip(scores, -1.0, 1.0)


def _cosines_of_usable(
    first: EmbeddedCaptures,
    first_rows: npt.NDArray[np.float32],
    first_index: Indices,
    second: EmbeddedCaptures,
    second_rows: npt.NDArray[np.float32],
    second_index: Indices,
) -> Floats:
    both = first.usable[first_index] & second.usable[second_index]
    return np.where(both, cosines(first_rows, first_index, second_rows, second_index), REFUSED_SCORE)


def unit_rows(rows: npt.NDArray[Any]) -> Floats:
    """Rows of length 1, float64 (m, d); a row of zeros stays."""
    values = rows.astype(np.float64)
    # Scaled by the largest part first, as squares of very large or very small values leave float64's range.
    values /= _not_zero(np.abs(values).max(axis=1, keepdims=True, initial=0.0))
    values /= _not_zero(np.linalg.norm(values, axis=1, keepdims=True))
    return values


def _not_zero(scale: Floats) -> Floats:
    return np.where(scale > 0.0, scale, 1.0)


def read_embeddings(path: Path) -> tuple[list[str], npt.NDArray[Any]]:
    """`names` and `embeddings` (m, d) of a numpy archive, as `evaluate_embeddings` takes it; raises as that does."""
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise UsageError(
                f"{path} is not an npz archive", hint="write it by numpy.savez(path, names=…, embeddings=…)"
            )
        with archive:
            members = archive.zip.infolist() if archive.zip is not None else []
            if sum(member.file_size for member in members) > MAX_NPZ_BYTES:
                raise UsageError(
                    f"{path} holds more than {MAX_NPZ_BYTES >> 30} GiB", hint="evaluate in parts"
                )
            absent = [key for key in ("names", "embeddings") if key not in archive]
            if absent:
                raise UsageError(
                    f"{path} has no array {first_few(absent)}; it has {first_few(archive.files)}"
                )
            names, embeddings = np.asarray(archive["names"]), np.asarray(archive["embeddings"])
    except _UNREADABLE as error:
        raise UsageError(
            f"cannot read {path} as an npz archive: {ascii(str(error))[1:-1]:.200}",
            hint="arrays of objects (pickle) are not read",
        ) from error
    listed = _checked_names(path, names)
    return listed, _checked_embeddings(path, listed, embeddings)


def _checked_names(path: Path, names: npt.NDArray[Any]) -> list[str]:
    if names.ndim != 1 or names.dtype.kind not in "US" or not names.size:
        raise UsageError(f"{path}: `names` must be (m,) strings, not {names.dtype!s:.80} {names.shape}")
    try:
        listed = [name.decode("utf-8") if isinstance(name, bytes) else name for name in names.tolist()]
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: a name is not UTF-8: {error.object!r:.80}") from error
    except (ValueError, SystemError) as error:  # of numpy, on numbers that are no characters
        raise UsageError(f"{path}: a name is not text") from error
    unique, counts = np.unique(listed, return_counts=True)
    if unique.size < names.size:
        raise UsageError(f"{path}: names come twice: {first_few(unique[counts > 1].tolist())}")
    return listed


def _checked_embeddings(path: Path, names: Sequence[str], embeddings: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if embeddings.ndim != 2 or embeddings.dtype.kind not in "fiu" or not embeddings.shape[1]:
        raise UsageError(
            f"{path}: `embeddings` must be real, (m, d), not {embeddings.dtype!s:.80} {embeddings.shape}"
        )
    if len(embeddings) != len(names):
        raise UsageError(f"{path}: {len(names)} names, but {len(embeddings)} embeddings")
    finite = np.isfinite(embeddings).all(axis=1)
    for bad, what in ((~finite, "not finite"), (finite & ~embeddings.any(axis=1), "zero")):
        if bad.any():
            raise UsageError(
                f"{path}: embeddings are {what}: {first_few(names[i] for i in np.flatnonzero(bad).tolist())}"
            )
    return embeddings
