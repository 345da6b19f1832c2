"""The encoders of the edge recipe: what they weigh, take and give, and that they export as the others do."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgepin_training.checkpoint import build_encoders
from edgepin_training.config import TrainConfig
from edgepin_training.edge_encoders import EdgeFaceEncoder, EdgeVoiceEncoder
from edgepin_training.encoders import parameter_count

EDGE = Path(__file__).parents[2] / "training/edgepin_training/configs/edge.toml"
MAX_PARAMETERS = 1_500_000
MAX_MACS = 350_000_000


def macs(encoder: nn.Module, batch: Tensor) -> int:
    """Multiply-accumulates of the convolutions and linear maps for one item."""
    counted: list[int] = []

    def count(module: nn.Module, _: object, output: Tensor) -> None:
        places = output.numel() // output.shape[1] if isinstance(module, nn.Conv2d) else 1
        counted.append(places * module.weight.numel())

    for module in encoder.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    with torch.no_grad():
        encoder.eval()(batch)
    return sum(counted)


@pytest.fixture(scope="module")
def edge() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return build_encoders(TrainConfig.read(EDGE), {})


def faces(count: int, size: int = 64) -> Tensor:
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8)


def test_the_edge_configuration_makes_the_edge_encoders(edge: dict[str, nn.Module]) -> None:
    assert {name: type(encoder) for name, encoder in edge.items()} == {
        "face": EdgeFaceEncoder,
        "voice": EdgeVoiceEncoder,
    }


@pytest.mark.parametrize("modality", ["face", "voice"])
def test_each_is_within_its_budget(edge: dict[str, nn.Module], modality: str) -> None:
    batch = faces(1) if modality == "face" else torch.randn(1, 298, 80)
    assert parameter_count(edge[modality]) <= MAX_PARAMETERS
    assert 20_000_000 < macs(edge[modality], batch) <= MAX_MACS


@torch.no_grad()
@pytest.mark.parametrize("size", [48, 64, 96])
def test_face_gives_two_unit_vectors(size: int) -> None:
    outputs = EdgeFaceEncoder(0.25, size=size).eval()(faces(3, size))
    for output in outputs:
        assert output.shape == (3, 256)
        torch.testing.assert_close(output.norm(dim=1), torch.ones(3), atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("mels", [48, 80])
@pytest.mark.parametrize("frames", [98, 298, 501])
def test_voice_takes_any_length(frames: int, mels: int) -> None:
    for output in EdgeVoiceEncoder(0.25, mels=mels).eval()(torch.randn(2, frames, mels)):
        assert output.shape == (2, 256)
        torch.testing.assert_close(output.norm(dim=1), torch.ones(2), atol=1e-5, rtol=0)


@torch.no_grad()
def test_voice_ignores_the_level_and_hears_the_timbre() -> None:
    encoder = EdgeVoiceEncoder(0.25).eval()
    features, color = torch.randn(2, 98, 80), 3 * torch.randn(80)
    plain = encoder(features)[0]
    torch.testing.assert_close(plain, encoder(features + 2.5)[0], atol=1e-4, rtol=0)
    assert (plain - encoder(features + color)[0]).abs().max() > 1e-3


@pytest.mark.parametrize("modality", ["face", "voice"])
def test_the_export_folds_every_normalization(modality: str) -> None:
    onnx = pytest.importorskip("onnx", reason="the export needs onnx")
    pytest.importorskip("onnxscript", reason="the export needs onnxscript")
    from edgepin_export._onnx import to_onnx

    encoder = EdgeFaceEncoder(0.25, size=32) if modality == "face" else EdgeVoiceEncoder(0.25)
    model = onnx.load_model_from_string(to_onnx(encoder.eval(), modality, size=32))  # type: ignore[arg-type]
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds["BatchNormalization"] == 0
    convolutions = sum(isinstance(module, nn.Conv2d) for module in encoder.modules())
    assert kinds["Conv"] == convolutions
