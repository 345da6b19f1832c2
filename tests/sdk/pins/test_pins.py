"""The tables of Learnable PINs against other arithmetic on the same lists, and what is refused."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgepin._errors import UsageError
from edgepin._pins.draws import Resampling
from edgepin._pins.evaluate import evaluate_pins
from edgepin._pins.lists import read_matching, read_pairs, read_people

from ..commands import USAGE, YES, invoke
from .small_lists import PEOPLE, Small, id_of, make_small

QUICK = Resampling(replicates=60)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return make_small(tmp_path_factory.mktemp("pins"))


@pytest.fixture(scope="module")
def found(small: Small) -> dict[str, Any]:
    return evaluate_pins(small.lists, small.faces, small.voices, QUICK)


@pytest.fixture
def copy(small: Small, tmp_path: Path) -> Path:
    shutil.copytree(small.lists, tmp_path / "lists")
    return tmp_path / "lists"


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def pairs(small: Small, stratum: str) -> list[list[str]]:
    path = small.lists / f"veriflist_test_{stratum}_unseenunheard.txt"
    return [line.split(",") for line in path.read_text().splitlines()[1:]]


def cosine(small: Small, one: str, other: str) -> float:
    return float(unit(small.vectors[one]) @ unit(small.vectors[other]))


def counted_auc(small: Small, rows: list[list[str]]) -> float:
    """The share of (genuine, impostor) pairs of pairs in the right order, by looking at each."""
    scores = [(cosine(small, row[4], row[5]), row[3] == "1") for row in rows]
    genuine = np.array([score for score, same in scores if same])
    impostor = np.array([score for score, same in scores if not same])
    above = genuine[:, None] > impostor[None, :]
    return float((above + 0.5 * (genuine[:, None] == impostor[None, :])).mean())


@pytest.mark.parametrize("stratum", ["random", "GNA"])
def test_verification_agrees_with_counting_every_pair_of_pairs(
    small: Small, found: dict[str, Any], stratum: str
) -> None:
    table = found["verification"]["unseenunheard"][stratum]
    rows = pairs(small, stratum)
    assert table["auc"]["value"] == pytest.approx(counted_auc(small, rows), abs=1e-12)
    assert table["auc"]["low"] < table["auc"]["value"] < table["auc"]["high"]
    assert table["eer"]["low"] < table["eer"]["value"] < table["eer"]["high"]
    assert (table["genuine"], table["impostor"], table["source"]) == (
        sum(row[3] == "1" for row in rows),
        sum(row[3] == "0" for row in rows),
        "list",
    )


def test_verification_agrees_with_scikit_learn(small: Small, found: dict[str, Any]) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    rows = pairs(small, "random")
    labels = [int(row[3]) for row in rows]
    scores = [cosine(small, row[4], row[5]) for row in rows]
    table = found["verification"]["unseenunheard"]["random"]
    assert table["auc"]["value"] == pytest.approx(metrics.roc_auc_score(labels, scores), abs=1e-12)
    fpr, tpr, _ = metrics.roc_curve(labels, scores, drop_intermediate=False)
    nearest = np.argmin(np.abs(fpr - (1 - tpr)))
    assert table["eer"]["value"] == pytest.approx((fpr[nearest] + 1 - tpr[nearest]) / 2, abs=5e-3)


@pytest.mark.parametrize(("stratum", "divisor"), [("G", 2), ("N", 3)])
def test_a_stratum_without_a_list_is_derived_from_the_metadata(
    small: Small, found: dict[str, Any], stratum: str, divisor: int
) -> None:
    def group(person: int) -> bool:
        return person % divisor == 0

    rows = [
        row for row in pairs(small, "random") if row[3] == "1" or group(int(row[1])) == group(int(row[2]))
    ]
    table = found["verification"]["unseenunheard"][stratum]
    assert table["source"] == "derived"
    assert table["auc"]["value"] == pytest.approx(counted_auc(small, rows), abs=1e-12)
    assert table["impostor"] == sum(row[3] == "0" for row in rows) < 300


def test_what_cannot_be_derived_is_said(found: dict[str, Any], small: Small, copy: Path) -> None:
    assert found["left_out"] == {
        "A/unseenunheard": "its list is not in the folder, and vox1_meta.csv has no ages"
    }
    (copy / "vox1_meta.csv").unlink()
    for direction in ("f2v", "v2f"):
        (copy / f"matching_{direction}_U.csv").unlink()
    without = evaluate_pins(copy, small.faces, small.voices, QUICK)
    assert set(without["verification"]["unseenunheard"]) == {"random", "GNA"}
    assert set(without["left_out"]) == {"A/unseenunheard", "G/unseenunheard", "N/unseenunheard"}


@pytest.mark.parametrize("direction", ["f2v", "v2f"])
def test_matching_of_two_is_the_share_of_rows_in_the_right_order(
    small: Small, found: dict[str, Any], direction: str
) -> None:
    rows = [line.split() for line in (small.lists / f"matching_{direction}_U.csv").read_text().splitlines()]
    right = [cosine(small, probe, good) > cosine(small, probe, bad) for probe, good, bad in rows]
    table = found["matching"]["U"][direction]
    assert table["accuracy"]["2"]["value"] == pytest.approx(np.mean(right), abs=1e-12)
    values = [table["accuracy"][str(ways)]["value"] for ways in range(2, 11)]
    assert values == sorted(values, reverse=True)
    assert list(table["accuracy"]) == [str(ways) for ways in range(2, 11)]


def test_further_candidates_are_of_further_people(small: Small) -> None:
    """Perfect embeddings find the right one among ten as surely as among two; worthless ones by chance."""
    for noise, expected in ((0.0, lambda ways: 1.0), (1e6, lambda ways: 1 / ways)):
        folder = small.lists.parent / f"noise{noise:g}"
        folder.mkdir()
        made = make_small(folder, noise=noise, seed=3)
        table = evaluate_pins(made.lists, made.faces, made.voices, QUICK)["matching"]["U"]["f2v"]["accuracy"]
        for ways in (2, 5, 10):
            assert table[str(ways)]["value"] == pytest.approx(expected(ways), abs=0.06)


def owners(small: Small) -> tuple[dict[str, str], dict[str, str]]:
    rows = pairs(small, "random")
    return {row[5]: row[2] for row in rows}, {row[4]: row[1] for row in rows}


def test_retrieval_agrees_with_average_precision_by_hand(small: Small, found: dict[str, Any]) -> None:
    faces, voices = owners(small)
    for name, queries, gallery in (
        ("face_to_voice", faces, voices),
        ("voice_to_face", voices, faces),
    ):
        values = []
        for query, person in queries.items():
            ranked = sorted(gallery, key=lambda item: -cosine(small, query, item))
            hits = [number for number, item in enumerate(ranked, start=1) if gallery[item] == person]
            values.append(np.mean([count / rank for count, rank in enumerate(hits, start=1)]))
        table = found["retrieval"][name]
        assert table["map"]["value"] == pytest.approx(np.mean(values), abs=1e-6)
        assert (table["queries"], table["gallery"]) == (len(queries), len(gallery))
        assert table["chance"] < table["map"]["low"]


def test_equal_scores_are_no_advantage() -> None:
    from edgepin._pins.retrieval import retrieve

    same = np.tile(unit(np.ones(4)), (6, 1))
    people = np.array([0, 1, 2, 0, 1, 2])
    # Both of a person's items stand behind the four others: precisions 1/5 and 2/6.
    table = retrieve(same[:3], people[:3], same, people, QUICK)
    assert table["map"]["value"] == pytest.approx((1 / 5 + 2 / 6) / 2)


def test_naming_gets_better_with_more_examples(found: dict[str, Any]) -> None:
    for one in ("face", "voice"):
        for other in ("face", "voice"):
            table = found["naming"][f"{one}_names_{other}"]
            assert table["1"]["chance"] == 0.1
            assert table["1"]["people"] == PEOPLE
            assert 0.1 < table["1"]["accuracy"]["value"] < table["5"]["accuracy"]["value"] <= 1.0


def test_those_that_gave_a_name_are_not_asked_for_it() -> None:
    from edgepin._pins.naming import name

    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 64))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    people = np.repeat(np.arange(10), 4)
    # Captures have nothing in common: only a capture that named itself would be recognized.
    table = name(rows, people, rows, people, 3, QUICK)
    assert table is not None
    assert table["queries"] == 50
    assert table["accuracy"]["value"] < 0.4
    assert name(rows, people, rows, people, 4, QUICK) is None


def test_clustering_figures_agree_with_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    from edgepin._pins.clustering import nmi, purity

    rng = np.random.default_rng(1)
    truth = rng.integers(0, 7, 300)
    guess = np.where(rng.random(300) < 0.6, truth, rng.integers(0, 7, 300))
    table = np.zeros((7, 7))
    np.add.at(table, (guess, truth), 1)
    assert nmi(table) == pytest.approx(metrics.normalized_mutual_info_score(truth, guess), abs=1e-12)
    contingency = metrics.cluster.contingency_matrix(truth, guess)
    assert purity(table) == pytest.approx(contingency.max(axis=0).sum() / 300)


def test_clusters_of_people_far_apart_are_the_people(tmp_path: Path) -> None:
    made = make_small(tmp_path, noise=0.05)
    tables = evaluate_pins(made.lists, made.faces, made.voices, QUICK)["clustering"]
    for modality in ("face", "voice", "both"):
        assert tables[modality]["people"] == PEOPLE
        assert tables[modality]["nmi"]["value"] > 0.9
        assert tables[modality]["purity"]["value"] > 0.8


def test_k_means_finds_what_scikit_learn_finds() -> None:
    sklearn = pytest.importorskip("sklearn.cluster", reason="scikit-learn is not installed")
    from edgepin._pins.clustering import spherical_k_means

    rng = np.random.default_rng(2)
    rows = np.repeat(rng.normal(size=(6, 8)), 30, axis=0) + 0.5 * rng.normal(size=(180, 8))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)

    def fit(labels: np.ndarray) -> float:
        sums = np.stack([rows[labels == k].sum(axis=0) for k in range(6)])
        return float(np.linalg.norm(sums, axis=1).sum())

    ours = fit(spherical_k_means(rows, 6, seed=0, restarts=5))
    theirs = fit(sklearn.KMeans(6, n_init=5, random_state=0).fit(rows).labels_)
    assert ours >= 0.99 * theirs


def test_intervals_and_draws_repeat_by_seed(small: Small, found: dict[str, Any]) -> None:
    assert evaluate_pins(small.lists, small.faces, small.voices, QUICK) == found
    other = evaluate_pins(small.lists, small.faces, small.voices, Resampling(60, seed=1))
    one, two = (f["verification"]["unseenunheard"]["random"]["auc"] for f in (found, other))
    assert one["value"] == two["value"]
    assert one["low"] != two["low"]


def test_the_command_prints_the_tables_and_draws_them(small: Small, tmp_path: Path) -> None:
    arguments = (
        "evaluate", "pins", "--lists", small.lists, "--face-npz", small.faces, "--voice-npz", small.voices,
        "--replicates", 20,
    )  # fmt: skip
    result = invoke(*arguments, "--plots", tmp_path / "plots", "--json")
    assert result.exit_code == YES, result.output
    value = json.loads(result.stdout)
    assert value["schema"] == "edgepin.pins/1"
    assert set(value) == {
        "schema", "verification", "matching", "retrieval", "naming", "clustering", "left_out", "replicates", "seed"
    }  # fmt: skip
    for name in ("roc_unseenunheard.svg", "matching.svg"):
        ElementTree.parse(tmp_path / "plots" / name)
    text = invoke(*arguments)
    auc = value["verification"]["unseenunheard"]["random"]["auc"]["value"]
    assert f"random   AUC {100 * auc:5.1f}" in text.stdout
    assert "left out: A/unseenunheard" in text.stderr


PAIRS, MATCHING = "veriflist_test_random_unseenunheard.txt", "matching_f2v_U.csv"


@pytest.mark.parametrize(
    ("file", "line", "text", "message"),
    [
        (PAIRS, 1, "id,label", "line 1: the header"),
        (PAIRS, 3, "2,1,2,0,a/b.wav", "line 3: six values"),
        (PAIRS, 3, "2,1,2,0,a/b.wav,", "line 3: six values"),
        (PAIRS, 4, "2,1,2,yes,a/b.wav,c/d.jpg", "line 4: the label must"),
        (PAIRS, 5, "2,1,2,1,a/b.wav,c/d.jpg", "line 5: the label contradicts"),
        (PAIRS, 5, "2,1,1,0,a/b.wav,c/d.jpg", "line 5: the label contradicts"),
        (PAIRS, 6, "2,1,1,1,a/b.wav,c/d.jpg", "has no embedding of 'a/b.wav'"),
        (MATCHING, 2, "a b", "line 2: three paths"),
        (MATCHING, 2, "a b b", "line 2: the right and the wrong"),
        (MATCHING, 2, f"Person_01/1.6/video1/1.jpg {id_of(2)}/video0/1.wav {id_of(3)}/video0/1.wav", "row 2"),
        ("vox1_meta.csv", 1, "name\tage", "line 1: the columns"),
        (PAIRS, 1, "", "line 2: the header"),
        ("vox1_meta.csv", 1, "", "line 2: the columns"),
        ("vox1_meta.csv", 3, "id10001", "line 3: values are missing"),
        ("vox1_meta.csv", 3, "id10000\tPerson_00\tm\tland\tdev", "line 3: id10000 came before"),
    ],
)
def test_a_damaged_list_is_refused_by_line(
    small: Small, copy: Path, file: str, line: int, text: str, message: str
) -> None:
    lines = (copy / file).read_text().splitlines()
    lines[line - 1] = text
    (copy / file).write_text("\n".join(lines) + "\n")
    with pytest.raises(UsageError) as caught:
        evaluate_pins(copy, small.faces, small.voices, QUICK)
    assert message in str(caught.value)


def test_bytes_that_are_no_text_are_refused_by_line(small: Small, copy: Path) -> None:
    data = (copy / PAIRS).read_bytes().split(b"\n")
    data[6] = b"\xff\xfe"
    (copy / PAIRS).write_bytes(b"\n".join(data))
    with pytest.raises(UsageError, match="line 7: not UTF-8"):
        evaluate_pins(copy, small.faces, small.voices, QUICK)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_a_list_holds_it_is_read_or_refused(
    small: Small, tmp_path: Path, data: st.DataObject
) -> None:
    readers = {PAIRS: read_pairs, MATCHING: read_faces_first, "vox1_meta.csv": read_people}
    name = data.draw(st.sampled_from(sorted(readers)))
    lines = (small.lists / name).read_bytes().split(b"\n")[:20]
    number = data.draw(st.integers(0, len(lines) - 1))
    lines[number] = data.draw(st.binary(max_size=60) | st.permutations(list(lines[number])).map(bytes))
    (tmp_path / name).write_bytes(b"\n".join(lines))
    with contextlib.suppress(UsageError):
        readers[name](tmp_path / name)


def read_faces_first(path: Path) -> object:
    return read_matching(path, "face")


def test_archives_that_cannot_be_compared_are_refused(small: Small, tmp_path: Path) -> None:
    with np.load(small.voices) as archive:
        names, rows = archive["names"], archive["embeddings"]
    np.savez(tmp_path / "narrow.npz", names=names, embeddings=rows[:, :8])
    with pytest.raises(UsageError, match="dimensions"):
        evaluate_pins(small.lists, small.faces, tmp_path / "narrow.npz", QUICK)
    with pytest.raises(UsageError, match="no embedding of any list"):
        evaluate_pins(small.lists, small.voices, small.faces, QUICK)
    (tmp_path / "broken.npz").write_bytes(small.voices.read_bytes()[:1000])
    result = invoke(
        "evaluate", "pins", "--lists", small.lists, "--face-npz", small.faces, "--voice-npz", tmp_path / "broken.npz"
    )  # fmt: skip
    assert result.exit_code == USAGE
    assert "cannot read" in result.stderr


def test_a_folder_without_lists_is_refused(small: Small, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(UsageError):
            evaluate_pins(folder, small.faces, small.voices, QUICK)
