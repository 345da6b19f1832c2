"""Which encoder for the edge recipe? Candidates by size, time and what they learn in the same short training.

    python -m benchmarks.edge_candidates --run runs/starter --faces F --voices V --more-voices U \\
        --calibration-faces CF --calibration-voices CV --json benchmarks/results/edge_candidates.json

`--run` is a folder of `edgepin_training.starter`, whose teachers' embeddings are used. Every candidate sees the same batches
of the packaged recipes (of 1 view of the faces, 10 of the voices) for `--steps` steps; then its EER over all pairs of captures
of the calibration people is taken (the first 3 s of a voice, face crops as they are). Training is timed in processor seconds,
inference by the median of `--repeats` single captures in ONNX Runtime on one thread. What was measured before is kept, so a
call that was killed is made again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from edgepin._capture.faces import FaceSpec
from edgepin._decision.trials import IMAGE_SUFFIXES, SOUND_SUFFIXES
from edgepin.metrics import eer
from edgepin_export._onnx import to_onnx
from edgepin_export._quantize import QuantizeSpec, observe, quantize
from edgepin_kernels import LogMel, LogMelSpec
from edgepin_training.corpus import list_captures, load_faces, load_voices
from edgepin_training.distill import DistillBatch, distill
from edgepin_training.edge_encoders import EdgeFaceEncoder, EdgeVoiceEncoder, stage
from edgepin_training.encoders import ConvBlock, FaceEncoder, Heads, VoiceEncoder, parameter_count
from edgepin_training.sources import FaceSource
from edgepin_training.starter import CONFIGS
from edgepin_training.starter_data import FaceCaptures, Recipe, StarterData, Teachers, VoiceCaptures

SECONDS = 3
FACE_VIEWS_USED, VOICE_VIEWS_USED = 1, 10
"""Few: the teachers take longer over more of them than such a short training does."""


class Inverted(nn.Module):
    """MobileNetV2's block: widen three times, a depthwise 3x3, narrow; linear at its end (Sandler et al. 2018)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        wide = 3 * inputs
        self.same = stride == 1 and inputs == outputs
        self.body = nn.Sequential(
            nn.Conv2d(inputs, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(inplace=True),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(inplace=True),
            nn.Conv2d(wide, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.same else self.body(x)


class FaceOf(nn.Module):
    """A trunk under the pooling and heads of the face encoders."""

    def __init__(self, blocks: list[nn.Module], outputs: int, places: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*blocks)
        self.pool = nn.Conv2d(outputs, outputs, places, groups=outputs, bias=False)
        self.heads = Heads(outputs, 0.0)

    def forward(self, face: Tensor) -> tuple[Tensor, Tensor]:
        x = (face.float().permute(0, 3, 1, 2) - 127.5) / 64.0
        return self.heads(self.pool(self.trunk(x)).flatten(1))


def residual_face(widths: tuple[int, ...], counts: tuple[int, ...], size: int, stride: int) -> nn.Module:
    blocks: list[nn.Module] = [ConvBlock(3, widths[0], stride)]
    for number, (width, count) in enumerate(zip(widths, counts, strict=True)):
        blocks += stage(widths[max(0, number - 1)], width, count, 2 if number else 1)
    return FaceOf(blocks, widths[-1], size // stride // 2 ** (len(widths) - 1))


def mobile_face(size: int) -> nn.Module:
    blocks: list[nn.Module] = [ConvBlock(3, 32, 2)]
    inputs = 32
    for width in (64, 128, 176):
        blocks += [Inverted(inputs, width, 2), Inverted(width, width, 1), Inverted(width, width, 1)]
        inputs = width
    return FaceOf(blocks, inputs, size // 16)


class TimeDelayVoice(nn.Module):
    """Convolutions over time alone, on all mel bands at once, under the pooling of the voice encoders."""

    def __init__(self, width: int = 192) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Sequential(
                nn.Conv2d(80, width, (1, 5), (1, 2), (0, 2), bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ),
            *(Delay(width, dilation) for dilation in (1, 2, 3, 4, 1)),
        )
        self.heads = Heads(2 * width, 0.0)

    def forward(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        x = (log_mel - log_mel.mean(dim=1, keepdim=True)).transpose(1, 2).unsqueeze(2) / 4.0
        x = self.trunk(x)
        mean = x.mean(dim=3)
        deviation = torch.sqrt(torch.clamp((x * x).mean(dim=3) - mean * mean, min=1e-5))
        return self.heads(torch.cat([mean, deviation], dim=1).flatten(1))


class Delay(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, (1, 3), padding=(0, dilation), dilation=(1, dilation), bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.body(x))


Make = Callable[[], nn.Module]
FACES: dict[str, tuple[int, Make, str]] = {
    "small": (64, FaceEncoder, "the encoder of the demo"),
    "residual, narrow": (64, lambda: residual_face((32, 64, 128, 160), (1, 1, 2, 1), 64, 2), "half the work"),
    "edge": (64, EdgeFaceEncoder, "two blocks at each of three sizes"),
    "residual, fine": (
        64,
        lambda: residual_face((24, 48, 96, 160), (1, 1, 2, 1), 64, 1),
        "no stride in the first layer",
    ),
    "residual, 96 px": (
        96,
        lambda: residual_face((32, 64, 128, 160), (1, 1, 2, 1), 96, 2),
        "the crops enlarged",
    ),
    "mobile, 96 px": (96, lambda: mobile_face(96), "depthwise convolutions"),
}
VOICES: dict[str, tuple[Make, str]] = {
    "small": (VoiceEncoder, "depthwise over time; trained in single precision"),
    "edge": (EdgeVoiceEncoder, "residual over frequency and time"),
    "edge, narrow": (lambda: EdgeVoiceEncoder(0.75), "three quarters of the channels"),
    "time delay": (TimeDelayVoice, "no convolution over frequency"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("run", "faces", "voices", "more-voices", "calibration-faces", "calibration-voices", "json"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--repeats", type=int, default=50)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    made = json.loads(arguments.json.read_text()) if arguments.json.exists() else {"face": {}, "voice": {}}
    made |= {"schema": "edgepin.edge_candidates/1", "steps": arguments.steps, "torch": torch.__version__}

    def keep(modality: str, name: str, figures: dict[str, Any]) -> None:
        made[modality][name] = figures
        arguments.json.write_text(json.dumps(made, indent=2) + "\n")
        print(modality, name, figures, flush=True)

    data = StarterData(arguments.faces, arguments.voices, arguments.more_voices)
    for name, (size, make, about) in FACES.items():
        if name not in made["face"]:
            keep("face", name, {"about": about, "size": size, **face_figures(arguments, data, size, make)})
    for name, (make, about) in VOICES.items():
        if name not in made["voice"]:
            keep("voice", name, {"about": about, **voice_figures(arguments, data, make)})


def face_figures(arguments: argparse.Namespace, data: StarterData, size: int, make: Make) -> dict[str, Any]:
    recipe = short(Recipe.read(CONFIGS / "starter_face.toml"), arguments.steps, FACE_VIEWS_USED)
    small, spec = FaceSpec(size=64), FaceSpec(size=size)
    rendered = arguments.run / "rendered"
    captures = FaceCaptures.read(data, rendered, small, quiet)
    # The teacher saw the crops at 64 px, and so its embeddings are found.
    source = Resized(captures.source(arguments.run / "faces", recipe, Teachers(), quiet), size)
    torch.manual_seed(0)
    encoder, seconds = train(make(), source, recipe)
    held = load_faces(list_captures(arguments.calibration_faces, IMAGE_SUFFIXES), spec, cropped=True)
    rows = [embed(encoder, item) for item in held.items]
    feed = [{"face": np.asarray(item)[None]} for item in held.items[:24]]
    return {
        **weigh(encoder, torch.from_numpy(feed[0]["face"]), seconds, recipe, arguments.steps),
        **timed(encoder, "face", feed, arguments.repeats, size),
        "eer": all_pairs(rows, held.labels),
    }


def voice_figures(arguments: argparse.Namespace, data: StarterData, make: Make) -> dict[str, Any]:
    recipe = short(Recipe.read(CONFIGS / "starter_voice.toml"), arguments.steps, VOICE_VIEWS_USED)
    captures = VoiceCaptures.read(data, arguments.run / "rendered", quiet)
    source = captures.source(arguments.run / "voices", recipe, Teachers(), "kaldi", quiet)
    torch.manual_seed(0)
    encoder, seconds = train(make(), source, recipe)
    held = load_voices(list_captures(arguments.calibration_voices, SOUND_SUFFIXES))
    log_mel = LogMel(LogMelSpec.preset("kaldi"))
    features = [log_mel(np.asarray(item[: SECONDS * 16_000], np.int16)) for item in held.items]
    rows = [embed(encoder, item) for item in features]
    feed = [{"log_mel": item[None]} for item in features[:24]]
    return {
        **weigh(encoder, torch.from_numpy(feed[0]["log_mel"]), seconds, recipe, arguments.steps),
        **timed(encoder, "voice", feed, arguments.repeats, 64),
        "eer": all_pairs(rows, held.labels),
    }


class Resized:
    """A source of faces whose crops are enlarged."""

    def __init__(self, source: FaceSource, size: int) -> None:
        self.source, self.size = source, size
        self.classes, self.center = source.classes, source.center

    def draw(self, step: int) -> DistillBatch:
        batch = self.source.draw(step)
        if batch.inputs.shape[1] == self.size:
            return batch
        enlarged = [
            cv2.resize(crop, (self.size, self.size), interpolation=cv2.INTER_CUBIC)
            for crop in batch.inputs.numpy()
        ]
        return replace(batch, inputs=torch.from_numpy(np.stack(enlarged)))


def short(recipe: Recipe, steps: int, views: int) -> Recipe:
    return replace(
        recipe, views=views, distill=replace(recipe.distill, steps=steps, warmup=30, save_every=steps)
    )


def train(encoder: nn.Module, source: Any, recipe: Recipe) -> tuple[nn.Module, float]:
    if not hasattr(encoder, "trunk"):  # nothing of it can be told to run in bfloat16
        recipe = replace(recipe, distill=replace(recipe.distill, bfloat16=False))
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        distill(encoder, source, recipe.distill, Path(folder), told={})
    return encoder, time.process_time() - began


def embed(encoder: nn.Module, item: NDArray[Any]) -> NDArray[np.float32]:
    with torch.no_grad():
        row: NDArray[np.float32] = encoder(torch.from_numpy(np.ascontiguousarray(item))[None])[0].numpy()[0]
    return row


def all_pairs(rows: list[NDArray[np.float32]], labels: NDArray[np.int64]) -> float:
    matrix = np.stack(rows)
    first, second = np.triu_indices(len(matrix), 1)
    return round(eer((matrix @ matrix.T)[first, second], labels[first] == labels[second]), 4)


def weigh(encoder: nn.Module, item: Tensor, seconds: float, recipe: Recipe, steps: int) -> dict[str, Any]:
    counted: list[int] = []
    hooks = [
        module.register_forward_hook(
            lambda m, _, out: counted.append(m.weight.numel() * (out[0, 0].numel() or 1))
        )
        for module in encoder.modules()
        if isinstance(module, (nn.Conv2d, nn.Linear))
    ]
    with torch.no_grad():
        encoder(item)
    for hook in hooks:
        hook.remove()
    return {
        "parameters": parameter_count(encoder),
        "mega_macs": round(sum(counted) / 1e6, 1),
        "captures_per_second": round(recipe.distill.batch_size * steps / seconds, 1),
    }


def timed(
    encoder: nn.Module, modality: Any, feed: list[dict[str, Any]], repeats: int, size: int
) -> dict[str, Any]:
    """Milliseconds of one capture in ONNX Runtime, in FP32 and INT8, taken in turns."""
    import onnxruntime

    fp32 = to_onnx(encoder.to(memory_format=torch.contiguous_format).eval(), modality, size=size)
    spec = QuantizeSpec(target="onnxruntime")
    models = {"fp32": fp32, "int8": quantize(fp32, observe(fp32, feed), spec)}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    sessions = {
        name: onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        for name, model in models.items()
    }
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for repeat in range(repeats):
        for name, session in sessions.items():
            began = time.perf_counter()
            session.run(None, feed[repeat % len(feed)])
            times[name].append(1e3 * (time.perf_counter() - began))
    return {f"{name}_ms": round(float(np.median(values)), 2) for name, values in times.items()}


def quiet(*_: Any) -> None:
    return None


if __name__ == "__main__":
    main()
