"""From ONNX files and folders of captures to a bundle that opens, by the command."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import edgepin
from edgepin._cli.main import main
from edgepin._errors import UsageError
from edgepin_export._foreign_people import choose_people

from . import foreign_models as models

FACE_TOML = 'preset = "arcface-112"\nsize = 32\n'
VOICE_TOML = 'preset = "resemblyzer"\nframes = 20\nhop = 10\n'


def write_people(root: Path, first: int, count: int, captures: int = 3) -> None:
    """People told apart by an 8 x 8 pattern and by three tones; each capture has noise of its own."""
    for person in range(first, first + count):
        own = np.random.default_rng([7, person])
        pattern, tones = own.integers(40, 216, (8, 8, 3)), own.uniform(200, 4000, 3)
        for folder in (root / "faces" / f"p{person:02}", root / "voices" / f"p{person:02}"):
            folder.mkdir(parents=True)
        for capture in range(captures):
            random = np.random.default_rng([person, capture])
            image = np.kron(pattern, np.ones((8, 8, 1))) + random.normal(0, 12, (64, 64, 3))
            Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(
                root / "faces" / f"p{person:02}" / f"{capture}.png"
            )
            time = np.arange(24_000) / 16_000
            sound = sum(np.sin(2 * np.pi * tone * time + random.uniform(0, 6)) for tone in tones)
            syllables = np.clip(0.5 + 1.3 * np.sin(2 * np.pi * 4 * time), 0.02, 1.0)  # with pauses between
            sound = 5000 * sound * syllables + random.normal(0, 200, len(time))
            with wave.open(str(root / "voices" / f"p{person:02}" / f"{capture}.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(16_000)
                file.writeframes(np.clip(sound, -32768, 32767).astype("<i2").tobytes())


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("foreign")
    write_people(root / "people", 0, 20)
    write_people(root / "others", 20, 12)
    (root / "alias").symlink_to(root / "people")
    (root / "face.onnx").write_bytes(models.face_model(dim=300, batch=1, opset=13))
    (root / "voice.onnx").write_bytes(models.lstm_model())
    (root / "face.toml").write_text(FACE_TOML)
    (root / "voice.toml").write_text(VOICE_TOML)
    return root


def export(place: Path, out: Path, *options: str, fit: bool = True):
    given = [
        "export", "--face-onnx", place / "face.onnx", "--face-spec", place / "face.toml",
        "--voice-onnx", place / "voice.onnx", "--voice-spec", place / "voice.toml",
        "--calibration", place / "people", "--face-cropped", "--unsigned", "--out", out,
    ]  # fmt: skip
    given += ["--fit", place / "others"] if fit else []
    return CliRunner().invoke(main, [str(part) for part in (*given, *options)])


@pytest.fixture(scope="module")
def exported(place):
    result = export(place, place / "site.pin", "--json", "--report", str(place / "report.json"))
    assert result.exit_code == 0, result.output
    return result


def test_two_files_become_a_bundle_that_opens_and_embeds(place, exported):
    bundle = edgepin.Bundle.open(place / "site.pin", allow_unsigned=True)
    assert json.loads(exported.stdout)["digest"] == bundle.digest
    assert bundle.manifest.face.size == 32
    assert bundle.manifest.log_mel.log == "none"
    assert set(bundle.precisions("face")) == {"fp32", "fp16", "int8"}
    verifier = edgepin.Verifier.open(bundle, place / "store.db", key=edgepin.KeyFile(place / "key"))
    image = np.asarray(Image.open(place / "people/faces/p03/0.png"))
    with verifier.enroll("p03", consent="test") as session:
        session.add_face(image, cropped=True)
        session.add_voice(place / "people/voices/p03/0.wav")
    decision = verifier.verify(
        "p03",
        face=place / "people/faces/p03/1.png",
        voice=place / "people/voices/p03/1.wav",
        cropped=True,
    )
    assert decision.scores.face > 0.8


def test_the_manifest_says_what_was_given_and_what_was_made_of_it(place, exported):
    training = edgepin.Bundle.open(place / "site.pin", allow_unsigned=True).manifest.training
    face, voice = training["foreign"]["face"], training["foreign"]["voice"]
    assert (face["dim"], voice["dim"]) == (300, 32)
    assert (face["projection"]["kind"], voice["projection"]["kind"]) == ("principal directions", "zeros")
    assert face["changes"] == ["its opset 13 was converted to 18", "its batch of 1 was made free"]
    assert 0 < face["projection"]["kept_energy"] <= 1
    assert face["spec"]["size"] == 32
    assert voice["floating_point"]["operators"] == ["LSTM"]
    assert voice["eer"] < 0.45
    assert training["fitted_on"] == {
        "faces": {"people": 12, "captures": 36},
        "voices": {"people": 12, "captures": 36},
    }


def test_without_enough_pairs_nothing_cross_modal_is_claimed(place, exported):
    bundle = edgepin.Bundle.open(place / "site.pin", allow_unsigned=True)
    assert bundle.manifest.cross_modal is False
    assert "12 people" in bundle.manifest.training["pins"]["none"]
    assert "There is no shared space" in bundle.card
    assert "cross-modal scores are not used" in exported.stderr


def test_the_lstm_stays_in_floating_point_and_the_export_says_so(exported):
    assert "INT8 leaves" in exported.stderr
    assert "(LSTM)" in exported.stderr


def test_the_same_files_and_people_give_the_same_bytes(place, exported):
    result = export(place, place / "again.pin", "--name", "site")
    assert result.exit_code == 0, result.output
    assert (place / "again.pin").read_bytes() == (place / "site.pin").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fit", "alias"], "both fitted and calibrated on"),
        (["--qat", "always"], "cannot be fine-tuned"),
        (["--face-spec", "arcface-112"], "size gives 112 where it has 32"),
        (["--voice-spec", "wespeaker"], "log_mel.num_mels gives 80 where it has 40"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(place, tmp_path, options, message):
    options = [str(place / part) if part == "alias" else part for part in options]
    result = export(place, tmp_path / "none.pin", *options)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert not (tmp_path / "none.pin").exists()


def test_with_nobody_to_fit_on_the_hint_says_how_to_give_them(place, tmp_path):
    result = export(place, tmp_path / "none.pin", fit=False)
    assert result.exit_code == 2
    assert "--fit DIR" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing to export"),
        (["--face-onnx", "face.onnx"], "--face-onnx without --face-spec"),
        (["--face-onnx", "face.onnx", "--face-spec", "face.toml"], "there is no voice encoder"),
        (["--voice-spec", "wespeaker"], "there is no face encoder"),
    ],
)
def test_an_incomplete_call_is_refused_by_what_is_missing(place, tmp_path, options, message):
    options = [str(place / part) if (place / part).is_file() else part for part in options]
    given = ["export", *options, "--out", str(tmp_path / "x.pin")]
    given += ["--calibration", str(place / "people")] if options else []
    result = CliRunner().invoke(main, given)
    assert result.exit_code == 2, result.output
    assert message in result.stderr


def files(*names):
    return {name: [Path(f"{name}.{number}") for number in range(2)] for name in names}


def test_those_who_lack_a_modality_are_fitted_on_first():
    paired = {f"p{number}": f"p{number}" for number in range(12)}
    faces, voices = (
        files(*paired, *(f"f{n}" for n in range(10))),
        files(*paired, *(f"v{n}" for n in range(10))),
    )
    pairs, fit = choose_people(faces, voices, paired, None)
    assert pairs == paired
    assert set(fit.faces) == {f"f{n}" for n in range(10)}
    assert set(fit.voices) == {f"v{n}" for n in range(10)}
    assert fit.pairs == ()


def test_else_a_third_of_the_pairs_is_fitted_on_and_nobody_twice():
    paired = {f"v{number:02}": f"f{number:02}" for number in range(30)}
    faces, voices = files(*paired.values()), files(*paired)
    pairs, fit = choose_people(faces, voices, paired, None, seed=3)
    assert (len(pairs), len(fit.faces), len(fit.voices), len(fit.pairs)) == (20, 10, 10, 10)
    assert not set(fit.faces) & set(pairs.values())
    assert not set(fit.voices) & set(pairs)
    assert all(paired[voice] == face for face, voice in fit.pairs)
    assert choose_people(faces, voices, paired, None, seed=3)[0] == pairs


def test_a_third_of_too_few_pairs_is_nobody():
    paired = {f"p{number:02}": f"p{number:02}" for number in range(29)}
    with pytest.raises(UsageError, match="nobody to fit"):
        choose_people(files(*paired), files(*paired), paired, None)
