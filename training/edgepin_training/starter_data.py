"""What the starter is made of: its recipes, its captures, and the teachers' embeddings of them, kept beside the run."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgepin._capture.faces import FaceSpec
from edgepin._decision.trials import IMAGE_SUFFIXES, SOUND_SUFFIXES
from edgepin._errors import UsageError
from edgepin_kernels import LogMel, LogMelSpec

from .config import tomllib
from .corpus import Modality, list_captures, load_faces, load_voices
from .distill import DistillOptions
from .dlib_network import DlibFaceNetwork
from .face_chips import Finder, load_or_make
from .face_views import FACE_VIEWS
from .ge2e_network import Ge2eNetwork
from .online_faces import OnlineFaceOptions, OnlineFaceSource
from .online_voices import Clips, OnlineVoiceSource
from .sources import FaceSource, VoiceSet, VoiceSource
from .teachers import DlibChips, FaceTeacher, Progress, Teacher, VoiceTeacher, embed_cached
from .views import VOICE_VIEWS, make_voice_views

RENDERED_VIEWS = 3
"""Views of the rendered voices: enough for speakers who exist in any number."""


@dataclass(frozen=True)
class Recipe:
    """How one modality is distilled: `configs/starter_face.toml`, `configs/starter_voice.toml`."""

    distill: DistillOptions = dataclasses.field(default_factory=DistillOptions)
    augment: float = 1.0
    centering: float = 0.0  # how much of the teacher's mean is taken out: see `TargetSpace`
    views: int = (
        1  # how many of `FACE_VIEWS` or `VOICE_VIEWS`; each costs the teacher a pass over all captures
    )
    rendered_share: float = 0.1  # of a batch
    online: bool = False  # the teacher labels new captures while the student trains: for a GPU

    def __post_init__(self) -> None:
        if not 0 <= self.augment <= 3:
            raise UsageError("augment must lie in 0-3")
        if not 0 <= self.centering <= 1:
            raise UsageError("centering must lie in 0-1")
        if self.views < 1:
            raise UsageError("views must be at least 1")
        if self.online and self.views > 1:
            raise UsageError("views are of recipes that are not online, whose captures are new in every step")
        if not 0 <= self.rendered_share < 1:
            raise UsageError("rendered_share must be in [0, 1)")

    def of_steps(self, steps: int | None) -> Recipe:
        """The same recipe, for so many steps."""
        if steps is None:
            return self
        return dataclasses.replace(self, distill=dataclasses.replace(self.distill, steps=steps))

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """From TOML: the options of `DistillOptions` in a table `distill`, the rest above it."""
        try:
            values = tomllib.loads(path.read_text("utf-8"))
            return cls(**{**values, "distill": DistillOptions(**values.get("distill", {}))})
        except OSError as error:
            raise UsageError(f"the recipe {path} cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, TypeError) as error:
            raise UsageError(f"the recipe {path} is not one: {error}") from error


@dataclass(frozen=True)
class StarterData:
    """Where the captures are. Folders of people, except `more_voices`: files of unknown speakers."""

    faces: Path
    voices: Path
    more_voices: Path | None = None
    face_cropped: bool = True
    rendered_people: int = 120
    rendered_captures: int = 4


@dataclass(frozen=True)
class Teachers:
    """How to get the teachers, which happens only where they are asked.

    `face` and `voice` embed captures on a CPU, once; recipes that are online take the rest.
    """

    face: Callable[[], Teacher] = FaceTeacher
    voice: Callable[[], Teacher] = VoiceTeacher
    face_network: Callable[[], nn.Module] = DlibFaceNetwork.load
    voice_network: Callable[[], nn.Module] = Ge2eNetwork.load
    chips: Callable[[], Finder] = lambda: DlibChips().map


@dataclass(frozen=True)
class FaceCaptures:
    real: Modality
    rendered: Modality

    @classmethod
    def read(cls, data: StarterData, rendered: Path, spec: FaceSpec, progress: Progress) -> FaceCaptures:
        return cls(
            load_faces(
                list_captures(data.faces, IMAGE_SUFFIXES), spec, cropped=data.face_cropped, progress=progress
            ),
            load_faces(
                list_captures(rendered / "faces", IMAGE_SUFFIXES), spec, cropped=False, progress=progress
            ),
        )

    @property
    def digest(self) -> str:
        return _digest([*self.real.items, *self.rendered.items])

    def plain(self) -> Iterator[Tensor]:
        """The real crops as they are, in batches."""
        for start in range(0, len(self.real.items), 64):
            yield torch.from_numpy(np.stack(self.real.items[start : start + 64]))

    def source(self, folder: Path, recipe: Recipe, teachers: Teachers, progress: Progress) -> FaceSource:
        if recipe.views > len(FACE_VIEWS):
            raise UsageError(f"there are {len(FACE_VIEWS)} views of a face, not {recipe.views}")
        crops: list[NDArray[np.uint8]] = []
        rows = []
        teacher = _once(teachers.face)
        for number, view in enumerate(FACE_VIEWS[: recipe.views]):
            seen = [view.of(np.asarray(crop, np.uint8)) for crop in self.real.items]
            name = "real" if number == 0 else f"view-{number:02}"
            rows.append(_embed_faces(folder, name, seen, teacher, progress))
            crops += seen
        people = np.concatenate(
            [self.real.labels + view * len(self.real.names) for view in range(recipe.views)]
        )
        rendered = _embed_faces(folder, "rendered", self.rendered.items, teacher, progress)
        options = recipe.distill
        return FaceSource(
            [(crops, people, np.concatenate(rows)), (self.rendered.items, self.rendered.labels, rendered)],
            shares=(1 - recipe.rendered_share, recipe.rendered_share),
            batch_size=options.batch_size,
            augment=recipe.augment,
            centering=recipe.centering,
            seed=options.seed,
        )

    def online_source(
        self,
        folder: Path,
        data: StarterData,
        recipe: Recipe,
        teachers: Teachers,
        device: torch.device,
        progress: Progress,
    ) -> OnlineFaceSource:
        """The maps to the teacher's chips are found once and kept in `folder`."""
        files = [file for captures in list_captures(data.faces, IMAGE_SUFFIXES).values() for file in captures]
        real, rendered = (
            load_or_make(
                folder / f"chips-{name}.npz",
                part.items,
                part.labels,
                files=kept,
                finder=teachers.chips,
                progress=progress,
            )
            for name, part, kept in (("real", self.real, files), ("rendered", self.rendered, []))
        )
        options = OnlineFaceOptions(
            rendered=recipe.rendered_share, augment=recipe.augment, centering=recipe.centering
        )
        return OnlineFaceSource(
            real,
            rendered,
            teachers.face_network(),
            options,
            batch_size=recipe.distill.batch_size,
            seed=recipe.distill.seed,
            device=device,
        )


@dataclass(frozen=True)
class VoiceCaptures:
    real: Modality
    unknown: list[NDArray[np.int16]]
    rendered: Modality

    @classmethod
    def read(cls, data: StarterData, rendered: Path, progress: Progress) -> VoiceCaptures:
        unknown: list[NDArray[np.int16]] = []
        if data.more_voices is not None:
            files = sorted(p for p in data.more_voices.rglob("*") if p.suffix.lower() in SOUND_SUFFIXES)
            if not files:
                raise UsageError(f"no sounds under {data.more_voices}")
            # Each file as a person of its own, which is only how `load_voices` takes them.
            unknown = load_voices({str(path): [path] for path in files}, progress=progress).items  # type: ignore[assignment]
        return cls(
            load_voices(list_captures(data.voices, SOUND_SUFFIXES), progress=progress),
            unknown,
            load_voices(list_captures(rendered / "voices", SOUND_SUFFIXES), progress=progress),
        )

    @property
    def seconds(self) -> float:
        return sum(len(item) for item in [*self.real.items, *self.unknown]) / 16000

    @property
    def digest(self) -> str:
        return _digest([*self.real.items, *self.unknown, *self.rendered.items])

    def plain(self, log_mel: str) -> Iterator[Tensor]:
        """The log-mels of known speakers' clips as they are, by stretches of 3 s, or of a whole shorter clip."""
        features, samples = LogMel(LogMelSpec.preset(log_mel)), 48_000
        for clip in self.real.items:
            pcm = np.asarray(clip, np.int16)
            for start in range(0, max(1, len(pcm) - samples + 1), samples):
                yield torch.from_numpy(features(pcm[start : start + samples])[None])

    def source(
        self, folder: Path, recipe: Recipe, teachers: Teachers, log_mel: str, progress: Progress
    ) -> VoiceSource:
        if recipe.views > len(VOICE_VIEWS):
            raise UsageError(f"there are {len(VOICE_VIEWS)} views of a voice, not {recipe.views}")
        counts = {"real": recipe.views, "rendered": min(RENDERED_VIEWS, recipe.views)}
        sets = []
        for (name, count), clips in zip(counts.items(), self._clips(), strict=True):
            views = make_voice_views(
                folder / name,
                clips.pcm,
                _digest(clips.pcm),
                _once(teachers.voice),
                VOICE_VIEWS[:count],
                progress=progress,
            )
            sets.append(VoiceSet(views, clips.speakers))
        options = recipe.distill
        return VoiceSource(
            sets,
            shares=(1 - recipe.rendered_share, recipe.rendered_share),
            batch_size=options.batch_size,
            log_mel=log_mel,
            augment=recipe.augment,
            centering=recipe.centering,
            seed=options.seed,
        )

    def online_source(
        self, recipe: Recipe, teachers: Teachers, log_mel: str, device: torch.device
    ) -> OnlineVoiceSource:
        options = recipe.distill
        return OnlineVoiceSource(
            self._clips(),
            (1 - recipe.rendered_share, recipe.rendered_share),
            teachers.voice_network(),
            batch_size=options.batch_size,
            device=device,
            log_mel=log_mel,
            augment=recipe.augment,
            centering=recipe.centering,
            seed=options.seed,
        )

    def _clips(self) -> list[Clips]:
        """Of real people, then of rendered ones."""
        speakers = np.concatenate([self.real.labels, np.full(len(self.unknown), -1)])
        return [
            Clips([*self.real.items, *self.unknown], speakers),  # type: ignore[list-item]
            Clips(self.rendered.items, self.rendered.labels),  # type: ignore[arg-type]
        ]


def _embed_faces(
    folder: Path, name: str, items: Sequence[NDArray[Any]], teacher: Callable[[], Teacher], progress: Progress
) -> NDArray[np.float32]:
    path = folder / f"teacher-{name}.npy"
    return embed_cached(path, teacher, items, identity=_digest(items), progress=progress)


def _digest(items: Iterable[NDArray[Any]]) -> str:
    """Of the captures themselves: they are the same wherever their folder is."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(f"{item.shape}{item.dtype}".encode())
        digest.update(np.ascontiguousarray(item))
    return digest.hexdigest()


def _once(make: Callable[[], Teacher]) -> Callable[[], Teacher]:
    made: list[Teacher] = []

    def get() -> Teacher:
        if not made:
            made.append(make())
        return made[0]

    return get
