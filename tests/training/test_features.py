"""What the encoders learn on is what the device computes."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from edgepin._capture.faces import FaceSpec, HaarFinder
from edgepin._pipeline import Pipeline, Timings
from edgepin._runtime.runtime import Runtime
from edgepin_kernels import LogMelSpec
from edgepin_training.config import TrainConfig
from edgepin_training.corpus import Corpus, Modality
from edgepin_training.trainer import Sampler


@pytest.mark.parametrize("preset", ["kaldi", "wespeaker", "nemo"])
def test_training_and_the_device_compute_the_same_features(preset: str) -> None:
    rng = np.random.default_rng(0)
    voices = [rng.normal(0, 3_000, 40_000).astype(np.int16) for _ in range(4)]
    faces = [np.zeros((64, 64, 3), np.uint8)] * 4
    names, labels = ("a", "b", "c", "d"), np.arange(4)
    corpus = Corpus(Modality(names, labels, faces, {}), Modality(names, labels, voices, {}), {})
    sampler = Sampler(corpus, TrainConfig(log_mel=preset, augment=0.0))

    no_encoder = cast(Runtime, object())
    pipeline = Pipeline(no_encoder, HaarFinder(), FaceSpec(), LogMelSpec.preset(preset))
    on_device = pipeline.voice_input(
        voices[0], sample_rate=16_000, seconds=None, gate=False, timings=Timings()
    )
    np.testing.assert_array_equal(sampler.features(voices[0][np.newaxis]), on_device)
