"""One of our own trained encoders beside a foreign one."""

from __future__ import annotations

import dataclasses

from edgepin_kernels import LogMelSpec
from edgepin_training.checkpoint import Run

from ._foreign_open import ForeignEncoder, open_encoder
from ._foreign_spec import ForeignFace, ForeignVoice
from ._onnx import to_onnx


def encoder_of_run(run: Run, modality: str) -> ForeignEncoder:
    """The run's face or voice encoder, as if it had been given. Its embedding is `identity`.

    Its own pins were trained to meet those of its other half, which is not in the bundle, so they are left out and
    fitted anew.
    """
    config = run.config
    if modality == "face":
        crop = config.face_spec
        face = ForeignFace(
            size=crop.size,
            left_eye=crop.left_eye,
            right_eye=crop.right_eye,
            layout="nhwc",
            dtype="uint8",
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            output="identity",
        )
        made = to_onnx(run.face, "face", size=config.face_size)
        return dataclasses.replace(open_encoder("face", made, face, "the run's face encoder"), ours=True)
    spec = LogMelSpec.preset(config.log_mel)
    voice = ForeignVoice(log_mel=spec, output="identity")
    made = to_onnx(run.voice, "voice", mels=spec.num_mels)
    return dataclasses.replace(open_encoder("voice", made, voice, "the run's voice encoder"), ours=True)
