"""The official lists: that all of them are read, scored in seconds, and agree with another's arithmetic."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from edgepin._pins.draws import Resampling
from edgepin._pins.evaluate import evaluate_pins
from edgepin._pins.lists import read_lists

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "pins_protocol"
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="the official lists are not beside the checkout"),
]


def test_thirty_thousand_official_pairs_are_scored_in_seconds_and_right(tmp_path: Path) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    lists = tmp_path / "lists"
    lists.mkdir()
    for name in ("veriflist_test_random_unseenunheard.txt", "vox1_meta.csv"):
        (lists / name).symlink_to(FOLDER / name)
    pairs = read_lists(lists).pairs["random", "unseenunheard"]
    rng = np.random.default_rng(0)
    centers = {person: rng.normal(size=32) for person in sorted(set(pairs.voice_people))}
    archives = []
    for kind, names, people in (
        ("f", pairs.faces, pairs.face_people),
        ("v", pairs.voices, pairs.voice_people),
    ):
        owner = dict(zip(names, people, strict=True))
        rows = np.stack([centers[person] for person in owner.values()]) + 1.5 * rng.normal(
            size=(len(owner), 32)
        )
        archives.append(tmp_path / f"{kind}.npz")
        np.savez(archives[-1], names=np.array(list(owner)), embeddings=rows.astype(np.float32))
    began = time.process_time()
    found = evaluate_pins(lists, *archives, Resampling())
    assert time.process_time() - began < 10.0
    table = found["verification"]["unseenunheard"]["random"]
    assert (table["genuine"], table["impostor"], table["people"]) == (15248, 15248, 250)
    rows = []
    for path, names in zip(archives, (pairs.faces, pairs.voices), strict=True):
        with np.load(path) as archive:
            index = {str(name): number for number, name in enumerate(archive["names"])}
            values = archive["embeddings"][[index[name] for name in names]].astype(float)
        rows.append(values / np.linalg.norm(values, axis=1, keepdims=True))
    expected = metrics.roc_auc_score(pairs.labels, (rows[0] * rows[1]).sum(axis=1))
    assert table["auc"]["value"] == pytest.approx(expected, abs=1e-9)
    assert 0.5 < table["auc"]["low"] < table["auc"]["value"] < table["auc"]["high"] < 1.0
    assert {"random", "G", "N"} == set(found["verification"]["unseenunheard"])


def test_every_official_list_is_read() -> None:
    lists = read_lists(FOLDER)
    assert {key: len(pairs.labels) for key, pairs in lists.pairs.items()} == {
        ("random", "seenheard"): 18020,
        ("random", "unseenunheard"): 30496,
        ("GNA", "unseenunheard"): 27280,
    }
    assert {key: len(rows.probes) for key, rows in lists.matching.items()} == {
        ("f2v", "U"): 10000,
        ("v2f", "U"): 10000,
    }
    assert len({person.id for person in lists.people.values()}) == 1251
