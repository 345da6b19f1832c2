"""dlib's network in torch: it reads dlib's format and nothing less, and computes what dlib's layers do."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from edgepin._errors import EnvironmentFault, IntegrityError
from edgepin_training import dlib_network
from edgepin_training.dlib_network import WEIGHTS, DlibFaceNetwork

# The third and fourth halving leave an even size, where the two terms of a block differ in size.
SMALL = ((4, False), (6, True), (6, False), (8, True), (8, True), (8, True))


@pytest.fixture(autouse=True)
def _small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "dlib_itself" not in request.node.name:
        monkeypatch.setattr(dlib_network, "_BLOCKS", SMALL)


def integer(value: int) -> bytes:
    """As dlib writes it: a byte with the length, then the bytes of the value, the least one first."""
    body = abs(value).to_bytes(max(1, (abs(value).bit_length() + 7) // 8), "little")
    return bytes([len(body) | (0x80 if value < 0 else 0)]) + body


def layer(
    name: str, values: NDArray[np.float32], shape: tuple[int, ...], before: tuple[int, ...] = ()
) -> bytes:
    head = integer(len(name)) + name.encode() + b"".join(map(integer, (*before, 2, *shape)))
    return head + values.astype("<f4").tobytes() + integer(1) + b"something else"


def weights(seed: int = 0) -> list[tuple[str, NDArray[np.float32], tuple[int, ...], tuple[int, ...]]]:
    """Layers of a network of `SMALL` blocks, as name, values, shape and what lies before the tensor."""
    rng = np.random.default_rng(seed)
    layers: list[tuple[str, NDArray[np.float32], tuple[int, ...], tuple[int, ...]]] = []

    def convolution(inputs: int, outputs: int, side: int) -> None:
        count = outputs * inputs * side * side
        kernel = rng.standard_normal(count) / np.sqrt(inputs * side * side)
        values = np.concatenate([kernel, 0.1 * rng.standard_normal(outputs)]).astype(np.float32)
        layers.append(("con_4", values, (len(values), 1, 1, 1), ()))
        scale = np.concatenate([rng.uniform(0.5, 1.5, outputs), rng.normal(0, 0.1, outputs)])
        layers.append(("affine_", scale.astype(np.float32), (2 * outputs, 1, 1, 1), ()))

    convolution(3, SMALL[0][0], 7)
    before = SMALL[0][0]
    for channels, _ in SMALL:
        convolution(before, channels, 3)
        convolution(channels, channels, 3)
        before = channels
    values = rng.standard_normal(before * 128).astype(np.float32)
    layers.append(("fc_2", values, (before, 128, 1, 1), (128, before)))
    return layers


def written(
    path: Path, layers: list[tuple[str, NDArray[np.float32], tuple[int, ...], tuple[int, ...]]]
) -> Path:
    path.write_bytes(integer(1) + b"loss_metric_2" + b"".join(layer(*one) for one in layers))
    return path


def by_hand(
    chips: NDArray[np.float32],
    layers: list[tuple[str, NDArray[np.float32], tuple[int, ...], tuple[int, ...]]],
) -> NDArray[np.float64]:
    """The same network in float64, layer by layer as dlib has them."""
    values = iter([torch.from_numpy(one[1]).double() for one in layers])

    def scaled(x: torch.Tensor, outputs: int, side: int, stride: int) -> torch.Tensor:
        kernel, scale = next(values), next(values)
        count = len(kernel) - outputs
        padding = side // 2 if stride == 1 else 0
        made = functional.conv2d(
            x, kernel[:count].view(outputs, -1, side, side), kernel[count:], stride, padding
        )
        return made * scale[:outputs, None, None] + scale[outputs:, None, None]

    x = torch.from_numpy((chips - np.array([122.782, 117.001, 104.298])) / 256).permute(0, 3, 1, 2)
    x = functional.max_pool2d(scaled(x, SMALL[0][0], 7, 2).relu(), 3, 2)
    for channels, halves in SMALL:
        made = scaled(scaled(x, channels, 3, 2 if halves else 1).relu(), channels, 3, 1)
        if halves:
            x = functional.avg_pool2d(x, 2, 2)
        total = torch.zeros(
            len(x), *(max(a, b) for a, b in zip(x.shape[1:], made.shape[1:], strict=True))
        ).double()
        for term in (x, made):
            total[:, : term.shape[1], : term.shape[2], : term.shape[3]] += term
        x = total.relu()
    return np.asarray(x.mean(dim=(2, 3)) @ next(values).view(x.shape[1], 128))


def test_a_network_that_is_read_computes_what_its_layers_say(tmp_path: Path) -> None:
    layers = weights()
    network = DlibFaceNetwork.load(written(tmp_path / WEIGHTS, layers))
    chips = np.random.default_rng(1).integers(0, 256, (2, 150, 150, 3)).astype(np.float32)
    found = network(torch.from_numpy(chips))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), by_hand(chips, layers), atol=2e-5)
    whole = network(torch.from_numpy(chips.astype(np.uint8)))
    assert torch.equal(found, whole)


def test_a_network_that_is_read_is_not_trained(tmp_path: Path) -> None:
    network = DlibFaceNetwork.load(written(tmp_path / WEIGHTS, weights()))
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a_missing_file_is_a_fault_of_the_environment(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="cannot be read"):
        DlibFaceNetwork.load(tmp_path / WEIGHTS)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, share: float) -> None:
    path = written(tmp_path / WEIGHTS, weights())
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(IntegrityError):
        DlibFaceNetwork.load(path)


def test_a_file_cut_off_within_a_tensors_head_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / WEIGHTS, weights())
    data = path.read_bytes()
    head = data.index(b"fc_2") + len(b"fc_2")
    for length in range(head, head + 14):
        path.write_bytes(data[:length])
        with pytest.raises(IntegrityError):
            DlibFaceNetwork.load(path)


def test_other_layers_than_the_networks_are_refused(tmp_path: Path) -> None:
    layers = weights()
    name, values, shape, before = layers[2]
    swapped = [*layers[:2], layers[4], *layers[3:4], layers[2], *layers[5:]]
    infinite = values.copy()
    infinite[5] = np.inf
    for wrong in (
        layers[:-1],
        [*layers, layers[-1]],
        swapped[::-1],
        [*layers[:2], (name, values[:-1], (shape[0] - 1, 1, 1, 1), before), *layers[3:]],
        [*layers[:2], (name, infinite, shape, before), *layers[3:]],
        [*layers[:2], (name, values, (-shape[0], -1, 1, -1), before), *layers[3:]],
    ):
        with pytest.raises(IntegrityError):
            DlibFaceNetwork.load(written(tmp_path / WEIGHTS, wrong))


def test_dlib_itself_says_the_same(tmp_path: Path) -> None:
    if (
        importlib.util.find_spec("dlib") is None
        or importlib.util.find_spec("face_recognition_models") is None
    ):
        pytest.skip("dlib and face_recognition_models, the peer, are not installed")
    import dlib
    import face_recognition_models

    path = face_recognition_models.face_recognition_model_location()
    chips = np.random.default_rng(0).integers(0, 256, (2, 150, 150, 3)).astype(np.uint8)
    peer = np.array(dlib.face_recognition_model_v1(path).compute_face_descriptor(list(chips)))
    found = DlibFaceNetwork.load(Path(path))(torch.from_numpy(chips)).numpy()
    np.testing.assert_allclose(found, peer, atol=1e-5)
