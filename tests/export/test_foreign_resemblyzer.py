"""The two commands of the docs on the GE2E encoder of the `resemblyzer` package and real voices."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from edgepin._capture.audio import load_voice
from edgepin._decision.trials import read_trials
from edgepin.metrics import eer
from edgepin_export._foreign_graph import EMBEDDING, adapt
from edgepin_export._foreign_open import open_voice
from edgepin_export._foreign_presets import read_voice_spec
from edgepin_export._foreign_trial import check_runs
from edgepin_export._ranges import session
from edgepin_kernels import LogMel

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not DATA.is_dir(), reason="the real faces and voices are not beside the checkout"),
]


def test_ge2e_by_the_script_of_the_docs_has_its_authors_error_rate(tmp_path, monkeypatch):
    pytest.importorskip("resemblyzer", reason="the resemblyzer package is not installed")
    page = (ROOT / "docs" / "foreign-encoders.md").read_text("utf-8")
    script = re.search(r"^   ```python\n(.*?)^   ```", page, flags=re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(re.sub(r"^   ", "", script.group(1), flags=re.MULTILINE), {})
    encoder = open_voice("ge2e.onnx", read_voice_spec("resemblyzer"))
    log_mel, trials = LogMel(encoder.spec.log_mel), read_trials(DATA / "trials" / "voice.txt")
    feeds = [
        {"log_mel": log_mel(load_voice(DATA / "librispeech" / "eval" / name, seconds=3.0))[None]}
        for name in trials.names
    ]
    assert check_runs(encoder, feeds, progress=lambda *_: None) == 256
    running = session(adapt(encoder))
    rows = np.concatenate([running.run([EMBEDDING], feed)[0] for feed in feeds])
    cosines = np.einsum("nd,nd->n", rows[trials.enroll_index], rows[trials.test_index])
    assert eer(cosines, trials.labels) == pytest.approx(0.039, abs=0.002)
