"""The starter's recipe for a GPU, here on a CPU with teachers that need no download: made, resumed, assembled, chosen."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from edgepin._errors import UsageError
from edgepin_training import starter
from edgepin_training.checkpoint import load_run
from edgepin_training.config import TrainConfig
from edgepin_training.distill import DistillOptions
from edgepin_training.distill_state import STATE_FILE, read_told
from edgepin_training.online_faces import OnlineFaceOptions
from edgepin_training.starter import assemble, make_starter
from edgepin_training.starter_data import Recipe, StarterData, Teachers

from .starter_people import quiet, write_people

RECIPE = Recipe(
    DistillOptions(steps=4, batch_size=8, warmup=1, save_every=2, class_weight=0.0),
    rendered_share=0.25,
    centering=1.0,
    online=True,
)
CONFIG = TrainConfig(encoders="edge", face_width=0.25, voice_width=0.25, dropout=0.0)


class Colors(nn.Module):
    """A teacher of faces: chips -> the mean colors of 4x4 parts."""

    def forward(self, chips: Tensor) -> Tensor:
        return functional.adaptive_avg_pool2d(chips.float().permute(0, 3, 1, 2), 4).flatten(1) / 255


class Bands(nn.Module):
    """A teacher of voices: (N, 25440) -> unit vectors, by the power in 256 bands."""

    def forward(self, voices: Tensor) -> Tensor:
        power = torch.fft.rfft(voices).abs()[:, : 256 * 32].reshape(len(voices), 256, 32).mean(dim=2)
        return functional.normalize((power + 1).log(), dim=1)


def enlarged(crop: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.array([[150 / len(crop), 0, 0], [0, 150 / len(crop), 0]], np.float32)


def nobody(*_: Any) -> Any:
    raise AssertionError("is not asked")


def teachers(chips: Callable[[], Any] = lambda: enlarged) -> Teachers:
    return Teachers(nobody, nobody, Colors, Bands, chips)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> StarterData:
    return write_people(tmp_path_factory.mktemp("data"))


def make(data: StarterData, out: Path, face: Recipe = RECIPE, **given: Any) -> None:
    told = {"voice": RECIPE, "config": CONFIG, "teachers": teachers(), "progress": quiet} | given
    make_starter(data, out, face=face, **told)


@pytest.fixture(scope="module")
def made(data: StarterData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("starter")
    make(data, out)
    return out


def test_the_run_that_is_left_says_how_it_was_made(made: Path, data: StarterData) -> None:
    assemble(data, made, config=CONFIG, progress=quiet)
    run = load_run(made)
    assert run.step == 4
    for modality, teacher in (("face", "dlib_face_recognition_resnet_model_v1"), ("voice", "resemblyzer")):
        assert run.corpus["distilled"][modality] == {
            "teacher": teacher,
            "steps": 4,
            "augment": 1.0,
            "centering": 1.0,
            "views": 1,
            "rendered_share": 0.25,
            "online": True,
            "whitened_by": 8,
        }
    with torch.no_grad():
        assert run.face(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))[0].shape == (1, 256)
        assert run.voice(torch.zeros(1, 98, 80))[0].shape == (1, 256)


def test_a_killed_training_ends_where_an_unbroken_one_would(
    made: Path, data: StarterData, tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    def kill(at: str) -> Callable[[str, int, int], None]:
        def progress(what: str, done: int, total: int) -> None:
            if what.startswith(f"distilling the {at}") and done == 3:
                raise Killed

        return progress

    for modality in ("face", "voice"):
        with pytest.raises(Killed):
            make(data, tmp_path, progress=kill(modality))
    make(data, tmp_path, teachers=teachers(nobody))  # the chips are there
    for folder in ("faces", "voices"):
        resumed, unbroken = (load_file(out / folder / STATE_FILE) for out in (tmp_path, made))
        assert all(torch.equal(resumed[name], unbroken[name]) for name in unbroken)


def test_a_state_knows_what_new_faces_were_like(
    made: Path, data: StarterData, monkeypatch: pytest.MonkeyPatch
) -> None:
    online = read_told(made / "faces")["online"]
    assert online["rendered"] == RECIPE.rendered_share
    assert online["warp"]["halves"] == OnlineFaceOptions().warp.halves
    monkeypatch.setattr(
        "edgepin_training.starter_data.OnlineFaceOptions",
        lambda **given: OnlineFaceOptions(blended=0.1, **given),
    )
    with pytest.raises(UsageError, match="other options or data"):
        make(data, made, only="face")


def test_people_whom_it_was_not_trained_on_are_not_assembled(
    made: Path, data: StarterData, tmp_path: Path
) -> None:
    others = dataclasses.replace(data, faces=write_people(tmp_path, 3).faces)
    with pytest.raises(UsageError, match="other captures"):
        assemble(others, made, config=CONFIG, progress=quiet)


def test_views_of_an_online_recipe_are_refused() -> None:
    with pytest.raises(UsageError, match="views"):
        dataclasses.replace(RECIPE, views=2)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command asks of the library."""
    given: dict[str, Any] = {}
    monkeypatch.setattr(starter, "make_starter", lambda data, out, **more: given.update(more, data=data))
    monkeypatch.setattr(starter, "assemble", lambda data, out, **more: given.update(assembled=out))
    return given


def command(data: StarterData, *options: str) -> Any:
    folders = ["--faces", str(data.faces), "--voices", str(data.voices), "--out", "run"]
    return CliRunner().invoke(starter.main, [*folders, *options])


@pytest.mark.parametrize(
    ("there", "options", "online"),
    [
        (True, (), True),
        (False, (), False),
        (True, ("--device", "cpu"), False),
        (True, ("--device", "cuda"), True),
    ],
)
def test_the_command_takes_the_recipes_of_the_device(
    data: StarterData,
    asked: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    there: bool,
    options: tuple[str, ...],
    online: bool,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(there))
    result = command(data, "--face-steps", "7", *options)
    assert result.exit_code == 0, result.output
    assert (asked["face"].online, asked["voice"].online) == (online, online)
    assert asked["device"].type == ("cuda" if online else "cpu")
    assert asked["face"].distill.steps == 7
    assert asked["assembled"] == Path("run")


def test_a_gpu_that_is_not_there_is_a_fault_of_the_environment(
    data: StarterData, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = command(data, "--device", "cuda")
    assert result.exit_code != 0
    assert "GPU" in result.output
    assert not asked


def test_what_was_made_on_a_gpu_is_assembled_where_there_is_none(
    data: StarterData, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = command(data, "--only", "assemble")
    assert result.exit_code == 0, result.output
    assert set(asked) == {"assembled"}
