from __future__ import annotations

import io
import time
import zipfile

import numpy as np
import pytest

from edgepin import metrics
from edgepin._errors import CaptureError, EdgePinError, UsageError
from edgepin.evaluation import (
    EmbeddedCaptures,
    FusedTrials,
    Trials,
    cosines,
    embed_captures,
    evaluate_embeddings,
    evaluate_modality,
    fused_scores,
)

NAMES = ["a/0", "a/1", "b/0", "b/1"]
TRIALS = "1 a/0 a/1\n1 b/0 b/1\n0 a/0 b/0\n0 a/1 b/1\n"


def saved(folder, names=NAMES, embeddings=None, **more):
    """An archive and a trial list in folder."""
    if embeddings is None:
        embeddings = np.array([[2, 0.1], [3, 0], [0, 1], [0.2, 5]])
    np.savez(folder / "e.npz", names=np.array(names), embeddings=embeddings, **more)
    (folder / "t.txt").write_text(TRIALS)
    return folder / "e.npz", folder / "t.txt"


@pytest.mark.parametrize("form", ["U", "S"])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_embeddings_in_any_real_type_and_either_kind_of_name(tmp_path, form, dtype):
    vectors = np.array([[2, 0.1], [3, 0], [0, 1], [0.2, 5]], dtype)
    result = evaluate_embeddings(*saved(tmp_path, np.array(NAMES).astype(form), vectors, other=np.zeros(3)))
    assert (result.eer, result.auc, result.genuine, result.impostor) == (0.0, 1.0, 2, 2)
    assert result.cllr is None
    assert result.failed == 0


def test_figures_are_those_of_the_cosines(tmp_path):
    rng = np.random.default_rng(0)
    names = [f"s{i % 20}/{i}" for i in range(200)]
    vectors = (rng.normal(size=(20, 16)) * 2)[np.arange(200) % 20] + 3 * rng.normal(size=(200, 16))
    pairs = [(i, j) for i in range(200) for j in range(i + 1, 200)]
    npz, trials = saved(tmp_path, names, vectors.astype(np.float32))
    trials.write_text("".join(f"{int(i % 20 == j % 20)} {names[i]} {names[j]}\n" for i, j in pairs))
    unit = vectors.astype(np.float32).astype(float)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    scores = [unit[i] @ unit[j] for i, j in pairs]
    expected = metrics.summarize(scores, [i % 20 == j % 20 for i, j in pairs])
    result = evaluate_embeddings(npz, trials)
    assert 0.05 < result.eer < 0.45
    for key, value in expected.to_json().items():
        assert result.to_json()[key] == (value if value is None else pytest.approx(value, abs=1e-12))


def with_row(row, value):
    vectors = np.ones((4, 2))
    vectors[row] = value
    return vectors


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"names": ["a/0", "a/1", "b/0", "a/1"]}, "come twice: 'a/1'$"),
        ({"names": ["a/0", "x", "b/0", "y"]}, "no embedding of 'a/1', 'b/1'$"),
        ({"names": [b"a/0", b"a/1", b"b/0", b"\xff"]}, "not UTF-8"),
        ({"names": [1, 2, 3, 4]}, "`names` must be"),
        ({"names": [NAMES]}, "`names` must be"),
        ({"embeddings": with_row(1, np.nan)}, "not finite: 'a/1'$"),
        ({"embeddings": with_row(3, np.inf)}, "not finite: 'b/1'$"),
        ({"embeddings": with_row(2, 0.0)}, "are zero: 'b/0'$"),
        ({"embeddings": np.ones((3, 2))}, "4 names, but 3 embeddings"),
        ({"embeddings": np.ones(4)}, "must be real"),
        ({"embeddings": np.ones((4, 0))}, "must be real"),
        ({"embeddings": np.ones((4, 2), complex)}, "must be real"),
        ({"embeddings": np.array([[None, 1]] * 4, object)}, "cannot read"),
        ({"names": np.array(NAMES, object)}, "cannot read"),
    ],
)
def test_archives_that_cannot_be_scored_are_refused(tmp_path, arrays, message):
    with pytest.raises(UsageError, match=message):
        evaluate_embeddings(*saved(tmp_path, **arrays))


def test_damaged_and_foreign_files_are_refused(tmp_path):
    npz, trials = saved(tmp_path)
    whole = npz.read_bytes()
    damaged = [b"", b"PK", b"text", whole[: len(whole) // 2], whole.replace(b"NUMPY", b"PYNUM")]
    for content in damaged:
        npz.write_bytes(content)
        with pytest.raises(UsageError, match="npz archive"):
            evaluate_embeddings(npz, trials)
    np.save(tmp_path / "one.npy", np.ones(3))
    for path in (tmp_path / "one.npy", tmp_path / "absent.npz", tmp_path):
        with pytest.raises(UsageError, match="npz archive"):
            evaluate_embeddings(path, trials)
    np.savez(tmp_path / "other.npz", labels=np.ones(3))
    with pytest.raises(UsageError, match="no array 'names', 'embeddings'; it has 'labels'"):
        evaluate_embeddings(tmp_path / "other.npz", trials)


def test_an_archive_that_claims_to_be_huge_is_refused(tmp_path):
    _, trials = saved(tmp_path)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**6)}
    )
    names = io.BytesIO()
    np.save(names, np.array(NAMES))
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
        archive.writestr("names.npy", names.getvalue())
        archive.writestr("embeddings.npy", header.getvalue())
    with pytest.raises(UsageError, match="cannot read"):
        evaluate_embeddings(tmp_path / "huge.npz", trials)


def test_cosines_of_extreme_lengths_are_right():
    rows = np.array([[1e300, 1e300], [1e-300, 0], [-5e-324, 0], [0, 0]])
    first, second = np.array([0, 1, 1, 0]), np.array([1, 1, 2, 3])
    assert cosines(rows, first, rows, second) == pytest.approx([np.sqrt(0.5), 1, -1, 0])
    assert (
        np.abs(cosines(np.full((1, 7), 0.1), np.zeros(9, int), np.full((1, 7), 0.3), np.zeros(9, int))).max()
        <= 1
    )


def test_fifty_thousand_trials_take_seconds_at_most():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2000, 256)).astype(np.float32)
    first, second = rng.integers(0, 2000, (2, 50_000))
    start = time.process_time()
    scores = cosines(rows, first, rows, second)
    assert time.process_time() - start < 2.0
    i = 49_999  # in the last, shorter chunk
    a, b = rows[first[i]].astype(float), rows[second[i]].astype(float)
    assert scores[i] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-12)


VECTORS = {"a/0": (1, 0), "a/1": (1, 0.1), "b/0": (0, 1), "b/1": (0.1, 1)}


def listed():
    return Trials.of([True, True, False, False], ["a/0", "b/0", "a/0", "a/1"], ["a/1", "b/1", "b/0", "b/1"])


def test_each_capture_is_embedded_once_with_progress():
    seen, progress = [], []

    def embed(name):
        seen.append(name)
        return VECTORS[name], (0, 1)

    evaluation = evaluate_modality(listed(), embed, lambda done, total: progress.append((done, total)))
    assert sorted(seen) == NAMES
    assert progress == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    assert (evaluation.result.eer, evaluation.result.failed) == (0.0, 0)
    assert evaluation.captures.pin.tolist() == [[0, 1]] * 4


def test_a_refused_capture_counts_and_is_a_non_match():
    def embed(name):
        if name == "b/1":
            raise CaptureError("too short", code="too_short")
        return VECTORS[name], (0, 1)

    evaluation = evaluate_modality(listed(), embed)
    assert evaluation.scores.tolist() == pytest.approx([1 / np.sqrt(1.01), -1, 0, -1])
    assert evaluation.result.failed == 1
    assert evaluation.captures.refused == {"b/1": "too_short"}
    # One of two genuine trials is lost whatever the threshold.
    assert evaluation.result.min_dcf == 0.5


@pytest.mark.parametrize(("name", "lost"), [("a/0", [0, 2]), ("a/1", [0, 3]), ("b/0", [1, 2])])
def test_a_refused_capture_is_a_non_match_on_either_side(name, lost):
    def embed(asked):
        if asked == name:
            raise CaptureError("blurred", code="blurred")
        return VECTORS[asked], (0, 1)

    scores = evaluate_modality(listed(), embed).scores
    assert np.flatnonzero(scores == -1).tolist() == lost


def test_an_encoder_may_reuse_its_buffer():
    buffer = np.zeros(2, np.float32)

    def embed(name):
        buffer[:] = VECTORS[name]
        return buffer, buffer

    captures = embed_captures(NAMES, embed)
    assert captures.identity == pytest.approx(np.array([VECTORS[name] for name in NAMES], np.float32))


@pytest.mark.parametrize("vector", [(np.nan, 0), (0, 0), (1, 0, 0), 1.0])
def test_an_unusable_embedding_is_an_error_and_no_score(vector):
    with pytest.raises(EdgePinError, match="no usable embedding for 'b/0'"):
        embed_captures(NAMES, lambda name: (vector if name == "b/0" else (1, 0), (0, 1)))


def test_when_every_capture_is_refused_there_is_no_result():
    def embed(name):
        raise CaptureError("no face", code="no_face")

    with pytest.raises(CaptureError, match="all 4 captures were refused") as caught:
        evaluate_modality(listed(), embed)
    assert caught.value.code == "no_face"
    with pytest.raises(UsageError, match="no captures"):
        embed_captures([], embed)


def test_other_errors_of_the_encoder_pass():
    def embed(name):
        raise UsageError("no such file")

    with pytest.raises(UsageError, match="no such file"):
        embed_captures(NAMES, embed)


def test_fused_scores_compare_what_they_say():
    def captures(names, identity, pin, refused=()):
        return EmbeddedCaptures(
            tuple(names),
            np.array(identity, np.float32),
            np.array(pin, np.float32),
            dict.fromkeys(refused, "silent"),
        )

    voices = captures(["v0", "v1", "v2"], [[1, 0], [0, 1], [0, 0]], [[1, 1], [1, 0], [0, 0]], refused=["v2"])
    faces = captures(["f0", "f1"], [[1, 0], [3, 4]], [[0, 1], [1, 0]])
    one = np.array([0, 0])
    trials = FusedTrials(
        labels=np.array([True, False]),
        enroll_voice=np.array([0, 0]),
        enroll_face=np.array([0, 0]),
        test_voice=np.array([1, 2]),
        test_face=np.array([1, 1]),
        enroll_subject=one,
        test_subject=one,
    )
    scores = fused_scores(trials, voices, faces)
    assert scores.face.tolist() == pytest.approx([0.6, 0.6])
    assert scores.voice.tolist() == pytest.approx([0.0, -1.0])
    assert scores.face_voice.tolist() == pytest.approx([0.0, -1.0])  # enrolled face 0, test voices 1 and 2
    assert scores.voice_face.tolist() == pytest.approx([np.sqrt(0.5)] * 2)  # enrolled voice 0, test face 1
