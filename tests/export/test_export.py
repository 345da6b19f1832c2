"""The verb `edgepin export`, on encoders that nobody trained: what it writes, and what it refuses to."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import numpy_helper

from edgepin._bundle.bundle import Bundle
from edgepin_export._cli import export
from edgepin_export._export import _training_inputs, _tuners
from edgepin_export._gates import LIMITS, Limits
from edgepin_export._qat import QatOptions
from edgepin_export._quantize import QuantizeSpec, observe
from edgepin_training.checkpoint import load_run, save_checkpoint, write_run
from edgepin_training.config import TrainConfig
from edgepin_training.rendered import write_corpus

NEVER = Limits(1.0, 0.0, 0.0)  # no rounded encoder passes this


@pytest.fixture(scope="module")
def runs(encoders, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    people = folder / "people"
    write_corpus(people, people=10, seed=3, faces=2, voices=2)
    config = TrainConfig(face_width=0.25, voice_width=0.25, face_size=32)
    sources = {"faces": str(people / "faces"), "voices": str(people / "voices"), "face_cropped": False}
    counts = {"people": 10, "captures": 20, "refused": {}, "minutes": 1.0}
    corpus = {"faces": counts, "voices": counts, "pairs": 10, "held_out": {}, "sources": sources}
    run = folder / "run"
    write_run(run, config, corpus)
    modules = torch.nn.ModuleDict(encoders)
    save_checkpoint(run, 1, modules, torch.optim.AdamW(modules.parameters()))
    return run, people


@pytest.fixture
def exported_before(models, monkeypatch):
    """Spares a test the slow part that it is not about."""
    monkeypatch.setattr("edgepin_export._export.to_onnx", lambda encoder, modality, **_: models[modality])


@pytest.fixture
def call(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEPIN_HOME", str(tmp_path / "home"))
    # Encoders that learned nothing put all captures almost at one place, where error rates are of rounding alone.
    for name in LIMITS:
        monkeypatch.setitem(LIMITS, name, Limits(0.999, 1.0, 9.0))
    run, people = runs

    def invoke(*arguments, out="a.pin"):
        # The people are their own calibration here: what is tested is the way, not the figures.
        fixed = [str(run), "--out", str(tmp_path / out), "--calibration", str(people), "--name", "test"]
        return CliRunner().invoke(export, [*fixed, *map(str, arguments)])

    return invoke


def test_a_bundle_has_every_form_with_its_figures_and_is_the_same_every_time(call, tmp_path, request):
    result = call("--json", "--report", tmp_path / "report.json", "--plugin-onnx", tmp_path / "plugin.onnx")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    bundle = Bundle.open(tmp_path / "a.pin")
    assert printed["schema"] == "edgepin.export/1"
    assert (printed["digest"], printed["missing"]) == (bundle.digest, {})
    for modality in ("face", "voice"):
        assert bundle.precisions(modality) == ("fp32", "fp16", "int8")
    assert bundle.portable_voice is not None
    accuracy = bundle.manifest.accuracy
    assert printed["accuracy"] == accuracy
    assert set(accuracy["face"]["precisions"]) == {"fp32", "fp16", "int8"}
    assert set(accuracy["voice"]["precisions"]) == {"fp32", "fp16", "int8", "portable"}
    assert all(values["passed"] for report in accuracy.values() for values in report["precisions"].values())
    assert accuracy["face"]["precisions"]["int8"]["quantized_layers"] == 17

    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert report["schema"] == "edgepin.export_report/1"
    assert len(report["modalities"]["voice"]["layers"]) == 25
    assert report["modalities"]["face"]["precisions"]["int8"]["bytes"] == len(bundle.model("face", "int8"))
    plugin = onnx.load(tmp_path / "plugin.onnx")
    assert [node.op_type for node in plugin.graph.node if node.domain == "edgepin"] == ["LogMel"]
    for word in ("precision", "int8", "passed", "ranges by"):
        assert word in result.stderr

    request.getfixturevalue("exported_before")  # ONNX of the same encoders
    assert call("--json", out="b.pin").exit_code == 0
    assert (tmp_path / "b.pin").read_bytes() == (tmp_path / "a.pin").read_bytes()


@pytest.mark.usefixtures("exported_before")
def test_a_failed_gate_ends_with_1_and_a_report_and_writes_no_bundle(call, tmp_path, monkeypatch):
    monkeypatch.setitem(LIMITS, "int8", NEVER)
    plugin = tmp_path / "plugin.onnx"
    result = call("--qat", "never", "--json", "--report", tmp_path / "report.json", "--plugin-onnx", plugin)
    assert not plugin.exists()
    assert result.exit_code == 1
    assert not (tmp_path / "a.pin").exists()
    printed = json.loads(result.stdout)
    assert (printed["bundle"], printed["digest"], printed["precisions"]) == (None, None, ["fp32", "fp16"])
    assert any("mean cosine" in reason for reason in printed["missing"]["int8"])
    assert json.loads((tmp_path / "report.json").read_text("utf-8"))["missing"] == printed["missing"]
    for word in ("FAILED", "no bundle was written", "--allow-missing int8", "cosine loss"):
        assert word in result.stderr


@pytest.mark.usefixtures("exported_before")
def test_what_may_be_missing_is_left_out_and_the_bundle_says_so(call, tmp_path, monkeypatch):
    monkeypatch.setitem(LIMITS, "int8", NEVER)
    monkeypatch.setitem(LIMITS, "portable", NEVER)
    result = call("--qat", "never", "--allow-missing", "int8", "--allow-missing", "portable")
    assert result.exit_code == 0, result.output
    bundle = Bundle.open(tmp_path / "a.pin")
    assert bundle.precisions("face") == ("fp32", "fp16")
    assert bundle.portable_voice is None
    assert not bundle.manifest.accuracy["face"]["precisions"]["int8"]["passed"]
    assert "**This bundle has no int8 form**" in bundle.card
    assert "int8 is left out" in result.stderr


@pytest.mark.usefixtures("exported_before")
def test_faces_without_a_voice_are_evidence_for_deciding_by_the_face_alone(call, runs, tmp_path):
    faces = tmp_path / "faces"
    shutil.copytree(runs[1] / "faces", faces)
    for number, folder in enumerate(sorted(faces.iterdir())[:3]):
        shutil.copytree(folder, faces / f"unheard-{number}")
    for path in sorted((faces / "unheard-2").iterdir())[1:]:
        path.unlink()  # one picture makes pairs with others', though no genuine one
    result = call("--calibration-faces", faces, "--further")
    assert result.exit_code == 0, result.output
    bundle = Bundle.open(tmp_path / "a.pin")
    evidence, sets = bundle.manifest.evidence, bundle.manifest.fusion["evidence"]["sets"]
    assert (evidence["people"], evidence["subject_pairs"]) == (10, 45)
    assert evidence["alone"] == {"face": {"people": 13, "subject_pairs": 78, "captures": 5}}
    assert sets["face"]["kinds"]["stranger"]["pairs"] == 78
    assert (
        sets["voice"]["kinds"]["stranger"]["pairs"] == sets["face+voice"]["kinds"]["stranger"]["pairs"] == 45
    )
    assert "by the face alone: 78 pairs of 13 people" in bundle.card


@pytest.mark.usefixtures("exported_before")
def test_people_beyond_the_pairs_are_left_alone_unless_they_are_asked_for(call, runs, tmp_path):
    faces = tmp_path / "faces"
    shutil.copytree(runs[1] / "faces", faces)
    shutil.copytree(next(faces.iterdir()), faces / "perhaps-trained-on")
    assert call("--calibration-faces", faces).exit_code == 0
    assert Bundle.open(tmp_path / "a.pin").manifest.evidence["alone"] == {}


@pytest.mark.usefixtures("exported_before")
def test_fp32_that_is_not_the_trained_encoder_is_never_let_through(call, tmp_path, monkeypatch):
    monkeypatch.setattr("edgepin_export._export._embed_trained", _turned)
    result = call("--qat", "never", *(f"--allow-missing={name}" for name in ("fp16", "int8", "portable")))
    assert result.exit_code == 1
    assert not (tmp_path / "a.pin").exists()
    assert "hint: --allow-missing" not in result.stderr


def _turned(run, modality, captures):
    """Embeddings that are no longer those of the exported encoder."""
    from edgepin_export._parity import Captured

    random = np.random.default_rng(0)
    rows = random.normal(size=(len(captures.owner), 256)).astype(np.float32)
    return Captured(rows, rows, captures.owner)


@pytest.mark.usefixtures("exported_before")
def test_too_few_people_are_refused_before_the_long_work(runs, call, tmp_path):
    few = tmp_path / "few"
    for kind in ("faces", "voices"):
        for person in sorted((runs[1] / kind).iterdir())[:9]:
            shutil.copytree(person, few / kind / person.name)
    result = call("--calibration", few)
    assert result.exit_code == 2
    assert "10 people" in result.stderr
    assert "observing" not in result.stderr


def test_fine_tuning_of_a_run_gives_a_model_of_the_same_names_and_other_weights(runs, models):
    run = load_run(runs[0])
    seen = []
    tune = _tuners(run, QatOptions(steps=2, batch_size=4), lambda *call: seen.append(call))["face"]
    observed = observe(models["face"], _training_inputs(run, 4, lambda *_: None)["face"])
    tuned = onnx.load_model_from_string(tune(models["face"], observed, QuantizeSpec()))
    before = onnx.load_model_from_string(models["face"])
    assert [node.output[:] for node in tuned.graph.node] == [node.output[:] for node in before.graph.node]
    weights, others = (
        {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        for model in (before, tuned)
    )
    assert weights.keys() == others.keys()
    assert not np.array_equal(weights["trunk.0.0.weight"], others["trunk.0.0.weight"])
    assert ("face: fine-tuning for INT8", 2, 2) in seen
