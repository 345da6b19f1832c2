"""The packaged starter on people whom it never met: what its card says of it is so."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepin._decision.fusion import Fusion
from edgepin._measurement import Captures, measure_modality
from edgepin._pipeline import make_pipeline
from edgepin._runtime.backends import open_runtime
from edgepin._starter import open_starter
from edgepin.evaluation import read_trials

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not DATA.is_dir(), reason="the real faces and voices are not beside the checkout"),
]


@pytest.mark.parametrize(("modality", "corpus"), [("voice", "librispeech"), ("face", "lfwcrop")])
def test_it_reaches_the_figures_of_its_card(modality: str, corpus: str) -> None:
    bundle = open_starter()
    runtime = open_runtime(bundle, backend="onnxruntime-cpu").runtime
    captures = Captures(make_pipeline(bundle, runtime), seconds=3.0, cropped=True, gate=False)
    fusion = Fusion.from_json(bundle.manifest.fusion)
    trials = read_trials(DATA / "trials" / f"{modality}.txt")
    found = measure_modality(fusion, captures, modality, DATA / corpus / "eval", trials)
    said = bundle.manifest.evidence["trials"][modality]["int8"]
    # Other processors round INT8 otherwise.
    assert found["eer"] == pytest.approx(said["eer"], abs=0.003)
    assert found["cllr"] == pytest.approx(said["cllr"], abs=0.01)
    assert (found["genuine"], found["impostor"]) == (said["genuine"], said["impostor"])
