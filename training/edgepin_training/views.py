"""Views of training voices: each clip at other speeds and from other vocal tracts, which makes new speakers of few.

The views are kept as int16 PCM beside the run, one flat file for each view, and read through the page cache. A teacher
embeds windows of every view; a crop of a voice is taught by the windows that it covers and by the clip as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgepin._errors import IntegrityError
from edgepin._safe_files import write_atomic

from .sound import change_speed, shift_formants
from .teachers import Progress, Teacher, embed_cached

WINDOW = 25_440  # samples: 160 centered frames of 10 ms, what the voice teacher was trained on
HOP = 12_800  # samples between windows: 0.8 s


@dataclass(frozen=True)
class VoiceView:
    """How a clip is changed: played faster, then given another vocal tract."""

    speed: float = 1.0
    formants: float = 1.0

    def of(self, pcm: NDArray[np.int16]) -> NDArray[np.int16]:
        return shift_formants(change_speed(pcm, self.speed), self.formants)


VOICE_VIEWS = (
    VoiceView(),
    VoiceView(1.14),
    VoiceView(0.88),
    VoiceView(1.0, 1.10),
    VoiceView(1.0, 0.92),
    VoiceView(1.22),
    VoiceView(0.82),
    VoiceView(0.91, 1.08),
    VoiceView(1.09, 0.93),
    VoiceView(1.07),
    VoiceView(0.94),
    VoiceView(0.85, 1.13),
    VoiceView(1.18, 0.90),
    VoiceView(1.05, 1.06),
    VoiceView(0.96, 0.95),
    VoiceView(1.12, 1.09),
)
"""Pitch and vocal tract within what speakers differ by; those that are most different come first."""


@dataclass(frozen=True)
class VoiceViews:
    """PCM and a teacher's embeddings of every clip in every view.

    `pcm[v][starts[v][c] : starts[v][c + 1]]` is clip c in view v, `teacher[v][windows[v][c] : windows[v][c + 1]]` are
    its windows, unit vectors.
    """

    pcm: list[NDArray[np.int16]]
    starts: list[NDArray[np.int64]]
    teacher: list[NDArray[np.float32]]
    windows: list[NDArray[np.int64]]

    def __len__(self) -> int:
        return len(self.pcm)

    def clip(self, view: int, clip: int) -> NDArray[np.int16]:
        start, end = self.starts[view][clip : clip + 2]
        return self.pcm[view][start:end]

    def target(self, view: int, clip: int, start: int, samples: int) -> NDArray[np.float32]:
        """What the teacher says of `samples` from `start`: the mean of the windows half inside, and of all windows.

        A unit vector. One window is noisy; the clip's mean is nearer to who speaks, the crop's to what can be heard.
        """
        first, end = self.windows[view][clip : clip + 2]
        rows = self.teacher[view][first:end]
        centers = np.arange(len(rows)) * HOP + WINDOW // 2
        inside = (centers >= start) & (centers <= start + samples)
        mean = unit(rows.mean(axis=0))
        return unit(mean + unit(rows[inside].mean(axis=0))) if inside.any() else mean


def unit(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows divided by their norms."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-9)


def count_windows(samples: int) -> int:
    return 1 + max(0, samples - WINDOW) // HOP


def make_voice_views(
    folder: Path,
    clips: Sequence[NDArray[np.int16]],
    identity: str,
    teacher: Callable[[], Teacher],
    views: Sequence[VoiceView] = VOICE_VIEWS,
    *,
    progress: Progress,
) -> VoiceViews:
    """Reads the views and the teacher's embeddings of them from `folder`, and makes what is not there yet.

    `identity` says which clips these are; views of others are refused with an IntegrityError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made: list[tuple[NDArray[np.int16], NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]] = []
    loaded: list[Teacher] = []

    def get() -> Teacher:
        if not loaded:
            loaded.append(teacher())
        return loaded[0]

    for number, view in enumerate(views):
        name = f"view-{number:02}"
        told = f"{identity}\n{view.speed} {view.formants}"
        pcm, starts = _stored(folder / f"{name}.pcm.npy", clips, view, told, progress)
        counts = [count_windows(int(length)) for length in np.diff(starts)]
        windows = np.concatenate([[0], np.cumsum(counts)])
        jobs = [(clip, index) for clip, count in enumerate(counts) for index in range(count)]

        def load(
            job: tuple[int, int], pcm: NDArray[np.int16] = pcm, starts: NDArray[np.int64] = starts
        ) -> NDArray[np.int16]:
            clip, index = job
            whole = pcm[starts[clip] : starts[clip + 1]]
            if len(whole) < WINDOW:
                whole = np.tile(whole, -(-WINDOW // max(1, len(whole))))
            return whole[index * HOP : index * HOP + WINDOW]

        rows = embed_cached(
            folder / f"{name}.teacher.npy", get, jobs, load, identity=told, batch=64, progress=progress
        )
        made.append((pcm, starts, unit(rows), windows))
    columns = tuple(zip(*made, strict=True))
    return VoiceViews(*(list(column) for column in columns))


def _stored(
    path: Path, clips: Sequence[NDArray[np.int16]], view: VoiceView, told: str, progress: Progress
) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    label = path.with_suffix(".json")
    if not label.exists():
        parts = []
        for done, clip in enumerate(clips, start=1):
            parts.append(view.of(clip))
            progress(f"voices at speed {view.speed}, formants {view.formants}", done, len(clips))
        np.save(path, np.concatenate(parts))
        starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).tolist()
        write_atomic(label, [json.dumps({"view": told, "starts": starts}).encode()])
    stored = json.loads(label.read_text("utf-8"))
    if stored["view"] != told:
        raise IntegrityError(f"{path} holds a view of other clips", hint="choose another folder")
    return np.load(path, mmap_mode="r"), np.array(stored["starts"], np.int64)
