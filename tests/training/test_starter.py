"""The recipe of the starter, with teachers that need no download: what it keeps, resumes, refuses and leaves for the export."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgepin._errors import EnvironmentFault, IntegrityError, UsageError
from edgepin_training import dlib_network
from edgepin_training import teachers as teachers_module
from edgepin_training.checkpoint import build_encoders, load_run
from edgepin_training.config import TrainConfig
from edgepin_training.distill import DistillOptions
from edgepin_training.distill_state import load_average
from edgepin_training.face_views import FaceView
from edgepin_training.sources import FaceSource, VoiceSet, VoiceSource
from edgepin_training.starter import CONFIGS, assemble, make_starter
from edgepin_training.starter_data import Recipe, StarterData, Teachers
from edgepin_training.teachers import DlibChips, FaceTeacher, embed_cached, loudness
from edgepin_training.views import HOP, WINDOW, VoiceView, VoiceViews, count_windows, make_voice_views

from .starter_people import quiet, write_people

TINY = DistillOptions(steps=2, batch_size=8, warmup=1, save_every=1)
FACE = Recipe(TINY, rendered_share=0.25)
VOICE = Recipe(TINY, views=2, centering=1.0, rendered_share=0.25)
CONFIG = TrainConfig(encoders="edge", face_width=0.25, voice_width=0.25, dropout=0.0)


class Means:
    """A teacher that says what is where: means of blocks of the capture."""

    name = "means"

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self.seen = 0

    def embed(self, captures: Sequence[np.ndarray]) -> np.ndarray:
        self.seen += len(captures)
        rows = [
            [block.mean() for block in np.array_split(c.astype(np.float32).ravel(), self.dimensions)]
            for c in captures
        ]
        return np.array(rows, np.float32) + np.float32(0.01) * np.arange(self.dimensions, dtype=np.float32)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> StarterData:
    return write_people(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def made(data: StarterData, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Means]]:
    out = tmp_path_factory.mktemp("starter")
    taught = [Means(128), Means(256)]
    teachers = Teachers(lambda: taught[0], lambda: taught[1])
    make_starter(data, out, face=FACE, voice=VOICE, config=CONFIG, teachers=teachers, progress=quiet)
    assemble(data, out, config=CONFIG, progress=quiet)
    return out, taught


def nobody() -> Any:
    raise AssertionError("everything was embedded before")


def test_the_run_is_one_that_the_export_loads(made: tuple[Path, list[Means]], data: StarterData) -> None:
    run = load_run(made[0])
    assert (run.step, run.config.encoders) == (2, "edge")
    assert run.corpus["sources"] == {
        "faces": str(data.faces.resolve()),
        "voices": str(data.voices.resolve()),
        "face_cropped": True,
    }
    assert run.corpus["faces"]["captures"] == run.corpus["voices"]["captures"] == 8
    assert run.corpus["voices"]["unlabelled"] == 8
    with torch.no_grad():
        identity, pin = run.face(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    assert identity.shape == pin.shape == (1, 256)


def test_the_run_has_no_pairs_since_its_pins_are_of_rendered_people(made: tuple[Path, list[Means]]) -> None:
    corpus = load_run(made[0]).corpus
    assert corpus["pairs"] == 0
    assert corpus["rendered"]["pins"]["people"] + corpus["rendered"]["pins"]["kept_people"] == 12
    assert 0 <= corpus["rendered"]["pins"]["auc"] <= 1


def test_the_teachers_see_every_capture_once(made: tuple[Path, list[Means]], data: StarterData) -> None:
    out, taught = made
    windows = sum(len(np.load(path)) for path in (out / "voices").rglob("*.teacher.npy"))
    faces = sum(len(np.load(path)) for path in (out / "faces").glob("teacher-*.npy"))
    assert taught[0].seen == faces
    assert taught[1].seen == windows
    longer = dataclasses.replace(FACE, distill=dataclasses.replace(TINY, steps=3))
    make_starter(
        data, out, face=longer, voice=VOICE, config=CONFIG, teachers=Teachers(nobody, nobody), progress=quiet
    )


@pytest.mark.parametrize(
    ("modality", "change"), [("face", {"augment": 0.5}), ("face", {"online": True}), ("voice", {"views": 3})]
)
def test_another_recipe_in_the_same_folder_is_refused_before_a_teacher_is_asked(
    made: tuple[Path, list[Means]], data: StarterData, modality: str, change: dict[str, Any]
) -> None:
    recipes = {"face": FACE, "voice": VOICE}
    recipes[modality] = dataclasses.replace(recipes[modality], **change)
    asked = Teachers(nobody, nobody, nobody, nobody, nobody)
    with pytest.raises(UsageError, match="another recipe"):
        make_starter(data, made[0], config=CONFIG, teachers=asked, progress=quiet, **recipes)


def test_other_options_in_the_same_folder_are_refused(
    made: tuple[Path, list[Means]], data: StarterData
) -> None:
    other = dataclasses.replace(FACE, distill=dataclasses.replace(TINY, learning_rate=1e-4))
    with pytest.raises(UsageError, match="other options"):
        make_starter(data, made[0], face=other, voice=VOICE, config=CONFIG, only="face", progress=quiet)


def test_embedding_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    captures = [np.full((8, 8, 3), value, np.uint8) for value in range(10)]

    class Killed(Means):
        def embed(self, captures: Sequence[np.ndarray]) -> np.ndarray:
            if self.seen >= 6:
                raise KeyboardInterrupt
            return super().embed(captures)

    path = tmp_path / "rows.npy"
    first = Killed(4)
    with pytest.raises(KeyboardInterrupt):
        embed_cached(path, lambda: first, captures, identity="ten", batch=3)
    second = Means(4)
    rows = embed_cached(path, lambda: second, captures, identity="ten", batch=3)
    assert second.seen == 10 - 6
    np.testing.assert_array_equal(rows, Means(4).embed(captures))
    with pytest.raises(IntegrityError, match="other captures"):
        embed_cached(path, lambda: second, captures, identity="others")


def test_a_missing_teacher_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(teachers_module.importlib, "import_module", missing)
    with pytest.raises(EnvironmentFault, match="dlib") as caught:
        FaceTeacher()
    assert "pip install" in str(caught.value.hint)


def test_faces_are_cut_by_dlib_and_embedded_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    class Inner:
        def cut(self, crop: np.ndarray) -> np.ndarray:
            return crop[16:48, 16:48]

    class Darkest(nn.Module):
        def forward(self, chips: Tensor) -> Tensor:
            return chips.float().amin(dim=(1, 2, 3))[:, None].expand(-1, 128)

    monkeypatch.setattr(teachers_module, "require", lambda name: {"torch": torch}[name])
    monkeypatch.setattr(teachers_module, "DlibChips", Inner)
    monkeypatch.setattr(dlib_network.DlibFaceNetwork, "load", Darkest)
    teacher = FaceTeacher()
    crops = np.zeros((3, 64, 64, 3), np.uint8)
    crops[:, 16:48, 16:48] = np.array([9, 4, 7])[:, None, None, None]
    rows = teacher.embed(list(crops))
    assert rows.shape == (3, teacher.dimensions)
    assert rows.dtype == np.float32
    assert rows[:, 0].tolist() == [9, 4, 7]
    assert teacher.embed([]).shape == (0, 128)


def test_the_face_teacher_says_what_dlib_says(data: StarterData) -> None:
    for package in ("dlib", "face_recognition_models"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package}, the peer, is not installed")
    import dlib
    import face_recognition_models

    network = dlib.face_recognition_model_v1(face_recognition_models.face_recognition_model_location())
    crops = [cv2.imread(str(path))[:, :, ::-1].copy() for path in sorted(data.faces.rglob("*.png"))[:3]]
    chips = DlibChips()
    expected = np.array(network.compute_face_descriptor([chips.cut(crop) for crop in crops]))
    np.testing.assert_allclose(FaceTeacher().embed(crops), expected, atol=5e-6)


def test_loudness_is_30_db_below_full_scale() -> None:
    for gain in (10, 1000, 10_000):
        wave = loudness((gain * np.sin(np.arange(16_000))).astype(np.int16))
        assert 20 * np.log10(np.sqrt(np.mean(np.square(wave)))) == pytest.approx(-30, abs=0.05)
    assert not loudness(np.zeros(100, np.int16)).any()


@pytest.mark.parametrize(
    ("samples", "count"), [(1, 1), (WINDOW, 1), (WINDOW + HOP - 1, 1), (WINDOW + HOP, 2), (192_000, 14)]
)
def test_windows_cover_a_clip_without_running_over_its_end(samples: int, count: int) -> None:
    assert count_windows(samples) == count
    assert count == 1 or (count - 1) * HOP + WINDOW <= samples


def views_of(
    clips: list[np.ndarray], tmp_path: Path, views: Sequence[VoiceView] = (VoiceView(),)
) -> VoiceViews:
    return make_voice_views(tmp_path, clips, "clips", lambda: Means(256), views, progress=quiet)


def test_views_hold_every_clip_at_its_speed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    clips = [rng.integers(-3000, 3000, length).astype(np.int16) for length in (30_000, 9_000, 80_000)]
    views = views_of(clips, tmp_path, (VoiceView(), VoiceView(1.25), VoiceView(1.0, 1.1)))
    assert len(views) == 3
    for clip, pcm in enumerate(clips):
        assert np.array_equal(views.clip(0, clip), pcm)
        assert len(views.clip(1, clip)) == pytest.approx(len(pcm) / 1.25, abs=2)
        assert len(views.clip(2, clip)) == len(pcm)
    assert [len(rows) for rows in views.teacher] == [w[-1] for w in views.windows]


def test_the_target_of_a_crop_leans_to_what_it_covers() -> None:
    rows = np.eye(4, 256, dtype=np.float32)
    views = VoiceViews(
        [np.zeros(WINDOW + 3 * HOP, np.int16)], [np.array([0, WINDOW + 3 * HOP])], [rows], [np.array([0, 4])]
    )
    target = views.target(0, 0, 2 * HOP, WINDOW)
    assert int(np.argmax(target)) == 2
    assert np.linalg.norm(target) == pytest.approx(1)
    assert (target[:4] > 0).all()
    np.testing.assert_allclose(views.target(0, 0, 0, 100)[:4], 0.5, atol=1e-6)  # no window lies half inside


def test_batches_depend_on_the_step_alone_and_pair_people(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    crops = [rng.integers(0, 255, (64, 64, 3)).astype(np.uint8) for _ in range(12)]
    labels = np.array([0, 0, 1, 1, 2, 2, 3, 3, -1, -1, -1, -1])
    rows = Means(128).embed(crops)
    source = FaceSource([(crops, labels, rows), (crops, labels, rows)], (0.75, 0.25), batch_size=8)
    assert source.classes == 8
    for step in range(6):
        batch, again = source.draw(step), source.draw(step)
        assert torch.equal(batch.inputs, again.inputs)
        assert torch.equal(batch.labels[:4], batch.labels[4:])
        assert len(set(batch.groups[batch.groups < 0].tolist())) == int((batch.groups < 0).sum())
        assert (batch.labels[:3] < 4).all()
        torch.testing.assert_close(batch.targets.norm(dim=1), torch.ones(8))


def test_every_crop_comes_once_an_epoch() -> None:
    crops = [np.zeros((64, 64, 3), np.uint8)] * 6
    rows = np.random.default_rng(0).standard_normal((6, 8)).astype(np.float32)
    source = FaceSource([(crops, np.arange(6), rows)], (1.0,), batch_size=4)
    for epoch in range(2):
        seen = [int(label) for step in range(3) for label in source.draw(3 * epoch + step).labels[:2]]
        assert sorted(seen) == list(range(6))


def test_voices_in_another_view_are_other_speakers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    clips = [rng.integers(-3000, 3000, 40_000).astype(np.int16) for _ in range(3)]
    views = views_of(clips, tmp_path, (VoiceView(), VoiceView(1.25)))
    source = VoiceSource([VoiceSet(views, np.array([0, 1, -1]))], (1.0,), batch_size=16)
    assert source.classes == 4
    seen = {int(label) for step in range(8) for label in source.draw(step).labels}
    assert seen == {-1, 0, 1, 2, 3}
    batch, again = source.draw(3), source.draw(3)
    assert torch.equal(batch.inputs, again.inputs)
    assert batch.inputs.shape[2] == 80
    assert torch.equal(batch.labels[:8], batch.labels[8:])


@pytest.mark.parametrize("online", ["", "_online"])
@pytest.mark.parametrize("name", ["starter_face", "starter_voice"])
def test_the_packaged_recipes_are_read(name: str, online: str) -> None:
    recipe = Recipe.read(CONFIGS / f"{name}{online}.toml")
    assert recipe.distill.bfloat16
    assert recipe.online == bool(online)
    assert recipe.of_steps(7).distill.steps == 7
    assert recipe.of_steps(None) is recipe


@pytest.mark.parametrize(
    "text", ["augment = -1", "views = 0", "speed = 3", "[distill]\nsteps = 0", "[distill", "centering = 2"]
)
def test_a_wrong_recipe_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(UsageError):
        Recipe.read(path)


def test_face_views_are_wider_or_symmetric() -> None:
    crop = np.zeros((64, 64, 3), np.uint8)
    crop[:, 20:44] = 200
    crop[10:20, 5:12] = 90
    wide, narrow = FaceView(1.25).of(crop), FaceView(0.75).of(crop)
    middle = slice(28, 36)
    assert [int((c[40, :, 0] > 100).sum()) for c in (narrow, crop, wide)] == [18, 24, 30]
    assert np.array_equal(wide[40, middle], crop[40, middle])
    for half in ("left", "right"):
        face = FaceView(half=half).of(crop)
        assert np.array_equal(face, face[:, ::-1])
        kept = slice(0, 32) if half == "left" else slice(32, 64)
        assert np.array_equal(face[:, kept], crop[:, kept])
    assert FaceView().of(crop) is crop


@pytest.mark.parametrize("wrong", [{"width": 0.5}, {"half": "top"}])
def test_what_is_no_face_any_more_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        FaceView(**wrong)


def test_a_new_recipe_starts_from_the_weights_of_an_earlier_run(
    made: tuple[Path, list[Means]], data: StarterData, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(
        FACE, views=2, distill=dataclasses.replace(TINY, steps=1, learning_rate=1e-9)
    )
    taught = Means(128)
    make_starter(
        data,
        tmp_path,
        face=recipe,
        voice=VOICE,
        config=CONFIG,
        teachers=Teachers(lambda: taught, nobody),
        only="face",
        init=made[0],
        progress=quiet,
    )
    first, second = build_encoders(CONFIG, {})["face"], build_encoders(CONFIG, {})["face"]
    load_average(first, made[0] / "faces")
    load_average(second, tmp_path / "faces")
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)
