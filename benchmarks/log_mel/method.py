"""What a compared method is: a pipeline that computes one preset's log-mel, and what it needs."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepin_kernels import LogMelSpec, reference_log_mel
from edgepin_kernels._reference import amplitude_scale, mel_filters, window_function

TOLERANCE = 2e-3
"""How far a method's log-mel may be from `reference_log_mel`: one that computes something else is not compared."""

Floats = npt.NDArray[np.float32]


class Unavailable(Exception):
    """A method cannot run here; the message says what is missing."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One point of the grid."""

    seconds: float
    batch: int
    threads: int

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.seconds:g} s, batch {self.batch}, {threads}"


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a pipeline is built for. Every peer gets window and filters ready-made, and samples in the format that it
    likes best: converting and scaling them is never part of its time."""

    spec: LogMelSpec
    pcm: npt.NDArray[np.int16]
    """``(batch, samples)``, C-contiguous."""
    threads: int

    @property
    def batch(self) -> int:
        return len(self.pcm)

    @property
    def frames(self) -> int:
        return self.spec.num_frames(self.pcm.shape[1])

    @cached_property
    def floats(self) -> Floats:
        """``(batch, samples)``, in the spec's amplitude."""
        scale = np.float32(amplitude_scale(self.spec, self.pcm.dtype))
        return np.asarray(self.pcm.astype(np.float32) * scale)

    @cached_property
    def unit_floats(self) -> Floats:
        """``(batch, samples)``, full scale 1."""
        return np.asarray(self.pcm.astype(np.float32) / np.float32(32768))

    @cached_property
    def window(self) -> Floats:
        """``(frame_length,)``"""
        return window_function(self.spec).astype(np.float32)

    @cached_property
    def filters(self) -> Floats:
        """``(bins, mels)``, C-contiguous."""
        return np.ascontiguousarray(mel_filters(self.spec), np.float32)

    def empty_output(self) -> Floats:
        """``(batch, frames, mels)``"""
        return np.empty((self.batch, self.frames, self.spec.num_mels), np.float32)


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """A method that is ready to be called."""

    call: Callable[[], Any]
    """Computes the whole batch; what it returns is the method's own kind of array."""
    log_mel: Callable[[Any], npt.ArrayLike] | None = None
    """From what `call` returned to ``(batch, frames, mels)``, outside the time. None: there is no log-mel to check."""
    repeats: int = 1
    """How many times over one call does the work."""


@dataclasses.dataclass(frozen=True)
class Method:
    """One row of the comparison."""

    name: str
    preset: str
    about: str
    """What the time covers, and what it does not."""
    prepare: Callable[[Inputs], Pipeline]
    """Raises `Unavailable` where something other than a distribution is missing."""
    distributions: tuple[str, ...] = ()
    """What must be installed besides edgepin; also whose versions are recorded."""
    threaded: bool = False
    """Whether it can use more than one thread."""

    @property
    def label(self) -> str:
        """The name, and the preset if it is not kaldi."""
        return self.name if self.preset == "kaldi" else f"{self.name} [{self.preset}]"

    def missing(self) -> str | None:
        """Why it cannot run here, as far as that can be said without importing anything."""
        for name in self.distributions:
            try:
                importlib.metadata.distribution(name)
            except importlib.metadata.PackageNotFoundError:
                return f"{name} is not installed"
        return None


def make_inputs(preset: str, case: Case) -> Inputs:
    """The samples of a case, the same in every process: a gliding voice in noise, each utterance another stretch."""
    spec = LogMelSpec.preset(preset)
    samples = round(case.seconds * spec.sample_rate)
    rng = np.random.default_rng(7)
    time = np.arange(samples) / spec.sample_rate
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 0.7 * time)) / spec.sample_rate
    voice = sum(np.sin(harmonic * phase) / harmonic for harmonic in range(1, 20))
    voice = 6_000 * voice * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time))
    pcm = np.empty((case.batch, samples), np.int16)
    for row in range(case.batch):
        pcm[row] = np.roll(voice, 997 * row) + rng.integers(-300, 301, samples)
    return Inputs(spec, pcm, case.threads)


def difference(inputs: Inputs, log_mel: npt.ArrayLike) -> float:
    """The largest difference from the definition, over the first and the last utterance.

    Raises:
        ValueError: ``log_mel`` is not ``(batch, frames, mels)``.
    """
    values = np.asarray(log_mel)
    shape = (inputs.batch, inputs.frames, inputs.spec.num_mels)
    if values.shape != shape:
        raise ValueError(f"the log-mel must be {shape}, not {values.shape}")
    rows = {0, inputs.batch - 1}
    return max(
        float(np.abs(values[row] - reference_log_mel(inputs.spec, inputs.pcm[row])).max()) for row in rows
    )
