"""Encoders by modality: what `TrainConfig.encoders` names for faces and voices, and what others bring for their own.

    register_encoder("gait", lambda config, shape: GaitEncoder(shape[0]))

An encoder takes a batch of its modality's items and returns two batches of unit vectors of 256 dimensions, `identity` and
`pin`. A corpus with a modality beyond face and voice (`Corpus.others`) trains it by the joint loss with them.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from edgepin._errors import UsageError

from .config import TrainConfig
from .edge_encoders import EdgeFaceEncoder, EdgeVoiceEncoder
from .encoders import FaceEncoder, VoiceEncoder
from .vggm import VggmFace, VggmVoice

Build = Callable[[TrainConfig, tuple[int, ...]], nn.Module]

_ENCODERS: dict[str, dict[str, Build]] = {
    "face": {
        "small": lambda config, shape: FaceEncoder(config.face_width, config.dropout, shape[0]),
        "edge": lambda config, shape: EdgeFaceEncoder(config.face_width, config.dropout, shape[0]),
        "vggm": lambda config, shape: VggmFace(config.face_width, config.dropout, shape[0]),
    },
    "voice": {
        "small": lambda config, shape: VoiceEncoder(config.voice_width, config.dropout, shape[1]),
        "edge": lambda config, shape: EdgeVoiceEncoder(config.voice_width, config.dropout, shape[1]),
        "vggm": lambda config, shape: VggmVoice(config.voice_width, config.dropout, shape[1]),
    },
}


def register_encoder(modality: str, build: Build, *, name: str = "small") -> None:
    """Adds, or replaces, the encoder called `name` of a modality.

    `build(config, shape)` makes it; `shape` is that of one item: a crop (S, S, 3), features (frames, bins), or what the
    modality's arrays are. Where `TrainConfig.encoders` names one that the modality lacks, its first is taken.
    """
    _ENCODERS.setdefault(modality, {})[name] = build


def build_encoder(modality: str, config: TrainConfig, shape: tuple[int, ...]) -> nn.Module:
    """A new encoder. Raises UsageError for a modality that nobody registered."""
    if modality not in _ENCODERS:
        raise UsageError(
            f"no encoder is registered for {modality!r}", hint=f"there are {', '.join(sorted(_ENCODERS))}"
        )
    named = _ENCODERS[modality]
    return named.get(config.encoders, next(iter(named.values())))(config, shape)
