from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgepin_export import _variants
from edgepin_export._report import accuracy_table, full_report, int8_story, manifest_accuracy
from edgepin_export._variants import Captures, make_variants
from edgepin_kernels import LogMelSpec


@pytest.fixture(scope="module")
def captures(feed):
    def of(modality):
        drawn = [feed(modality, 1, 40, seed) for seed in range(16)]
        return Captures(drawn[:4], drawn[4:8], drawn[8:], np.arange(8) // 2)

    return {modality: of(modality) for modality in ("face", "voice")}


@pytest.fixture(scope="module")
def clips():
    random = np.random.default_rng(0)
    return [random.normal(0, 2000, 16_000).astype(np.int16) for _ in range(4)], np.arange(4) // 2


def made(models, captures, clips, **options):
    spec = LogMelSpec.preset("kaldi")
    return make_variants(models, captures, spec, *clips, qat="never", progress=lambda *_: None, **options)


@pytest.fixture(scope="module")
def variants(models, captures, clips):
    return made(models, captures, clips)


def test_every_form_of_both_encoders_is_made_and_judged(variants, models):
    assert {name: set(forms) for name, forms in variants.models.items()} == {
        "fp32": {"face", "voice"},
        "fp16": {"face", "voice"},
        "int8": {"face", "voice"},
        "portable": {"voice"},
    }
    assert variants.models["fp32"] == models
    assert set(variants.gates["face"]) == {"fp32", "fp16", "int8"}
    assert set(variants.gates["voice"]) == {"fp32", "fp16", "int8", "portable"}
    assert variants.errors == {}


def test_a_form_that_cannot_be_made_is_a_failure_with_its_reason_and_the_others_are_made(
    models, captures, clips, monkeypatch
):
    class TheirError(Exception):
        pass

    def broken(*_, **__):
        raise TheirError("of a library\nand more lines")

    monkeypatch.setattr(_variants, "make_int8", broken)
    found = made(models, captures, clips)
    assert found.failures["int8"] == [f"{name}: TheirError: of a library" for name in ("face", "voice")]
    assert set(found.models["fp16"]) == {"face", "voice"}
    assert full_report(found)["errors"] == found.errors


def test_an_encoder_without_layers_for_int8_lacks_that_form_alone(models, captures, clips):
    model = onnx.load_model_from_string(models["face"])
    for node in model.graph.node:
        if node.op_type == "Conv":
            node.input[1] = f"{node.input[1]}/computed"  # no constant any more
    for name in [tensor.name for tensor in model.graph.initializer]:
        copied = onnx.helper.make_node("Identity", [name], [f"{name}/computed"], f"{name}/copy")
        model.graph.node.insert(0, copied)
    found = made({**models, "face": model.SerializeToString()}, captures, clips)
    assert found.failures["int8"] == ["face: the model has nothing to quantize"]
    assert set(found.models["int8"]) == {"voice"}


def test_trained_embeddings_are_what_fp32_is_held_against(models, captures, clips, variants):
    turned = {
        modality: _variants.Captured(captured.pin, captured.identity, captured.owner)
        for modality, captured in variants.fp32.items()
    }
    assert "fp32" in made(models, captures, clips, trained=turned).failures


def test_the_table_has_a_row_for_every_form(variants):
    rows = accuracy_table(variants).splitlines()
    assert len(rows) == 1 + 7
    assert [row.split()[:2] for row in rows[1:]] == [
        ["fp32", "face"],
        ["fp32", "voice"],
        ["fp16", "face"],
        ["fp16", "voice"],
        ["int8", "face"],
        ["int8", "voice"],
        ["portable", "voice"],
    ]
    assert {row.split()[-1] for row in rows[1:]} <= {"passed", "FAILED"}


def test_the_manifest_has_the_story_of_int8_and_the_report_every_layer(variants):
    accuracy = manifest_accuracy(variants)
    assert accuracy["face"]["precisions"]["int8"]["ranges"] == variants.int8["face"].spec.ranges
    assert "layers" not in accuracy["face"]
    report = full_report(variants)["modalities"]
    assert len(report["voice"]["layers"]) == 25
    assert report["voice"]["precisions"]["portable"]["bytes"] == len(variants.models["portable"]["voice"])
    assert "17 of 17 layers quantized" in int8_story(variants)
