from __future__ import annotations

import json
import subprocess
import sys
import time

import numpy as np
import pytest

from edgepin import metrics
from edgepin._errors import UsageError

# The independent references; the device package's own environment has none of them.
pytest.importorskip("scipy", reason="scipy, the independent reference, is not installed")
pytest.importorskip("sklearn", reason="scikit-learn, the independent reference, is not installed")

from scipy.interpolate import interp1d
from scipy.optimize import brentq
from scipy.stats import beta
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import roc_auc_score, roc_curve


def drawn(seed: int, n: int = 2000, levels: int | None = None, share: float = 0.2):
    """Overlapping scores; `levels` rounds them so that many tie, across the classes too."""
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < share
    labels[:2] = True, False
    scores = rng.normal(size=n) + 1.5 * labels
    return (scores if levels is None else np.round(scores * levels) / levels), labels


TIED_AND_NOT = [(seed, levels) for seed in range(6) for levels in (None, 10, 1)]


@pytest.mark.parametrize(("seed", "levels"), TIED_AND_NOT)
def test_eer_is_that_of_the_interpolated_roc_curve(seed, levels):
    scores, labels = drawn(seed, levels=levels)
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    expected = brentq(lambda x: 1.0 - x - interp1d(fpr, tpr)(x), 0.0, 1.0, xtol=1e-13)
    assert metrics.eer(scores, labels) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("seed", "levels"), TIED_AND_NOT)
def test_auc_is_that_of_scikit_learn(seed, levels):
    scores, labels = drawn(seed, levels=levels)
    assert metrics.auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


@pytest.mark.parametrize(("seed", "levels"), TIED_AND_NOT)
def test_min_cllr_is_that_of_an_independent_isotonic_regression(seed, levels):
    scores, labels = drawn(seed, levels=levels)
    posterior = IsotonicRegression(y_min=0, y_max=1).fit_transform(scores, labels.astype(float))
    odds = labels.sum() / (~labels).sum()
    with np.errstate(divide="ignore"):
        llr = np.log(posterior) - np.log1p(-posterior) - np.log(odds)
    assert metrics.min_cllr(scores, labels) == pytest.approx(metrics.cllr(llr, labels), abs=1e-9)


@pytest.mark.parametrize("p_target", [0.01, 0.5, 0.9])
def test_min_dcf_is_the_least_cost_over_every_threshold(p_target):
    scores, labels = drawn(3, n=300, levels=10)
    costs = []
    for threshold in [*np.unique(scores), np.inf]:
        accepted = scores >= threshold
        miss, false_match = np.mean(~accepted[labels]), np.mean(accepted[~labels])
        costs.append(p_target * 10 * miss + (1 - p_target) * 2 * false_match)
    expected = min(costs) / min(p_target * 10, (1 - p_target) * 2)
    assert metrics.min_dcf(scores, labels, p_target, c_miss=10, c_fa=2) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "labels", "eer", "auc"),
    [
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], 0.0, 1.0),
        ([0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1], 1.0, 0.0),
        ([5, 5, 5, 5, 5], [1, 0, 0, 1, 0], 0.5, 0.5),
        ([1, 2, 3, 4], [0, 1, 0, 1], 0.5, 0.75),
        ([0, 1, 1, 2], [0, 0, 1, 1], 0.25, 0.875),  # one tie of both classes: half of it each way
        ([0.0, -0.0], [1, 0], 0.5, 0.5),
        ([-np.inf, 0.0, np.inf], [0, 1, 1], 0.0, 1.0),
    ],
)
def test_small_cases_worked_by_hand(scores, labels, eer, auc):
    assert metrics.eer(scores, labels) == pytest.approx(eer, abs=1e-15)
    assert metrics.auc(scores, labels) == pytest.approx(auc, abs=1e-15)


def test_the_order_of_trials_does_not_matter():
    scores, labels = drawn(1, levels=4)
    shuffled = np.random.default_rng(0).permutation(scores.size)
    assert metrics.summarize(scores, labels) == metrics.summarize(scores[shuffled], labels[shuffled])


def test_cllr_of_known_ratios():
    assert metrics.cllr([0.0, 0.0, 0.0], [1, 0, 0]) == pytest.approx(1.0)
    # log2(1 + 1/3) on both sides: a ratio of 3 the right way.
    assert metrics.cllr([np.log(3), -np.log(3)], [1, 0]) == pytest.approx(np.log2(4 / 3))
    assert metrics.cllr([np.inf, -np.inf], [1, 0]) == 0.0
    assert metrics.cllr([-np.inf, -1.0], [1, 0]) == np.inf


def test_min_cllr_is_no_more_than_cllr_and_is_blind_to_calibration():
    scores, labels = drawn(2)
    calibrated = 1.5 * scores - 1.5**2 / 2  # the true LLR of two unit Gaussians 1.5 apart
    assert (
        metrics.min_cllr(scores, labels) < metrics.cllr(calibrated, labels) < metrics.cllr(scores, labels) + 1
    )
    assert metrics.min_cllr(calibrated, labels) == pytest.approx(metrics.min_cllr(scores, labels))
    assert metrics.min_cllr(-scores, labels) == pytest.approx(1.0, abs=0.01)


def test_det_curve_runs_from_accepting_all_to_accepting_none():
    curve = metrics.det_curve([1, 2, 2, 3], [0, 0, 1, 1])
    assert curve.thresholds.tolist() == [1, 2, 3, np.inf]
    assert curve.fmr.tolist() == [1.0, 0.5, 0.0, 0.0]
    assert curve.fnmr.tolist() == [0.0, 0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([0.1, np.nan], [1, 0], "NaN"),
        ([0.1, 0.2], [1, 1], "genuine and impostor"),
        ([0.1, 0.2], [0, 0], "genuine and impostor"),
        ([], [], "genuine and impostor|real numbers"),
        ([0.1, 0.2, 0.3], [1, 0], r"\(n,\)"),
        ([[0.1, 0.2]], [[1, 0]], r"\(n,\)"),
        ([0.1, 0.2], [2, 0], "1 \\(genuine\\)"),
        (["a", "b"], [1, 0], "real numbers"),
        ([1j, 2j], [1, 0], "real numbers"),
    ],
)
def test_what_cannot_be_scored_is_refused_by_every_measure(scores, labels, message):
    measures = (metrics.eer, metrics.auc, metrics.min_dcf, metrics.cllr, metrics.min_cllr, metrics.det_curve)
    for measure in (*measures, metrics.summarize):
        with pytest.raises(UsageError, match=message):
            measure(scores, labels)


@pytest.mark.parametrize("bad", [{"p_target": 0.0}, {"p_target": 1.0}, {"c_miss": 0.0}, {"c_fa": -1.0}])
def test_min_dcf_refuses_costs_that_are_none(bad):
    with pytest.raises(UsageError, match="p_target"):
        metrics.min_dcf([0, 1], [0, 1], **bad)


def test_summary_as_json():
    scores, labels = drawn(0)
    summary = metrics.summarize(scores, labels, failed=3)
    value = json.loads(json.dumps(summary.to_json()))
    keys = ["eer", "auc", "min_dcf", "cllr", "min_cllr", "genuine", "impostor", "failed"]
    assert list(value) == keys
    assert value["cllr"] is None
    assert value["failed"] == 3
    assert (value["genuine"], value["impostor"]) == (int(labels.sum()), int((~labels).sum()))
    assert value["eer"] == metrics.eer(scores, labels)
    assert metrics.summarize(scores, labels, llr=True).cllr == metrics.cllr(scores, labels)


def test_a_million_scores_take_less_than_a_second():
    scores, labels = drawn(0, n=1_000_000)
    metrics.summarize(scores[:1000], labels[:1000])
    start = time.process_time()
    metrics.summarize(scores, labels)
    assert time.process_time() - start < 1.0


def test_pooling_stays_fast_when_blocks_merge_one_by_one():
    # Rising shares, then a long run of impostors that pulls every block down in turn.
    parts = [np.repeat([True, False], [i, 700 - i]) for i in range(1, 700)]
    labels = np.concatenate([*parts, np.zeros(50_000, bool)])
    start = time.process_time()
    value = metrics.min_cllr(np.arange(labels.size, dtype=float), labels)
    assert time.process_time() - start < 2.0
    assert 0.0 < value < 1.0


@pytest.mark.parametrize("confidence", [0.01, 0.5, 0.9, 0.95, 0.999999])
@pytest.mark.parametrize(
    ("k", "n"),
    [(0, 1), (1, 1), (1, 2), (0, 10), (3, 10), (10, 10), (500, 1000), (9999, 10_000), (0, 10**7), (1, 10**7),
     (12_345, 10**7), (5 * 10**6, 10**7), (10**7 - 1, 10**7), (10**7, 10**7)],
)  # fmt: skip
def test_binomial_interval_is_that_of_the_beta_quantiles(k, n, confidence):
    tail = (1 - confidence) / 2
    low = beta.ppf(tail, k, n - k + 1) if k else 0.0
    high = beta.isf(tail, k + 1, n - k) if k < n else 1.0
    assert metrics.binomial_interval(k, n, confidence) == pytest.approx((low, high), rel=1e-9, abs=0)


def test_binomial_interval_without_events_is_the_closed_form():
    low, high = metrics.binomial_interval(0, 3000)
    assert low == 0.0
    assert high == pytest.approx(1 - 0.025 ** (1 / 3000), rel=1e-12)


@pytest.mark.parametrize(
    ("k", "n", "confidence"),
    [(-1, 5, 0.95), (6, 5, 0.95), (0, 0, 0.95), (1.5, 5, 0.95), (True, 5, 0.95), (1, 5, 0.0), (1, 5, 1.0)],
)
def test_binomial_interval_refuses_what_is_no_rate(k, n, confidence):
    with pytest.raises(UsageError):
        metrics.binomial_interval(k, n, confidence)


def test_rule_of_three():
    assert metrics.rule_of_three(3000) == pytest.approx(1e-3)
    assert metrics.rule_of_three(1) == 1.0
    # It is the one-sided bound, a little on the safe side.
    assert metrics.binomial_interval(0, 3000, 0.9)[1] < metrics.rule_of_three(3000) < 1.005e-3
    with pytest.raises(UsageError):
        metrics.rule_of_three(0)


def subject_trials(subjects: int, seed: int):
    """Two captures per subject, all pairs; a subject's own offset makes its trials dependent."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(subjects), 2)
    a, b = np.triu_indices(owner.size, 1)
    labels = owner[a] == owner[b]
    quality = rng.normal(size=subjects)
    scores = rng.normal(size=a.size) + 2 * labels + quality[owner[a]] + quality[owner[b]]
    return scores, labels, owner[a], owner[b]


@pytest.mark.parametrize("metric", ["eer", "auc", "min_dcf"])
def test_a_replicate_is_the_metric_of_the_trials_repeated_by_multiplicity(metric):
    scores, labels, enroll, test = subject_trials(12, 0)
    interval = metrics.bootstrap_by_subject(scores, labels, enroll, test, metric, replicates=1, seed=5)
    times = np.random.default_rng(5).multinomial(12, np.full(12, 1 / 12), size=1)[0]
    repeat = np.where(labels, times[enroll], times[enroll] * times[test])
    expected = getattr(metrics, metric)(np.repeat(scores, repeat), np.repeat(labels, repeat))
    assert interval.low == interval.high == pytest.approx(expected, abs=1e-12)
    assert interval.estimate == getattr(metrics, metric)(scores, labels)


def test_bootstrap_takes_named_subjects_any_metric_and_repeats_itself():
    scores, labels, enroll, test = subject_trials(12, 1)
    named = [np.char.add("person-", side.astype(str)) for side in (enroll, test)]
    first = metrics.bootstrap_by_subject(scores, labels, enroll, test, seed=3)

    def fnmr_at_fmr_of_a_tenth(fmr, fnmr):
        return np.min(np.where(fmr <= 0.1, fnmr, 1.0), axis=-1)

    assert metrics.bootstrap_by_subject(scores, labels, enroll, test, seed=3) == first
    assert 0 < first.low < first.estimate < first.high < 1
    assert metrics.bootstrap_by_subject(scores, labels, *named, fnmr_at_fmr_of_a_tenth).replicates > 990


def test_bootstrap_intervals_are_as_wide_as_estimates_really_vary():
    estimates, widths = [], []
    for seed in range(60):
        scores, labels, enroll, test = subject_trials(25, seed)
        interval = metrics.bootstrap_by_subject(scores, labels, enroll, test, "auc", replicates=200)
        estimates.append(interval.estimate)
        widths.append(interval.high - interval.low)
    # A 95 % interval of a Gaussian is 3.92 standard deviations wide.
    assert 0.8 < np.mean(widths) / (3.92 * np.std(estimates)) < 1.4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"enroll_subjects": [0, 0, 1]}, "as many subjects"),
        ({"labels": [1, 0, 0, 0]}, "say otherwise"),
        ({"metric": "far"}, "no metric"),
        ({"confidence": 1.0}, "confidence"),
        ({"replicates": 0}, "replicate"),
    ],
)
def test_bootstrap_refuses(change, message):
    call = {
        "scores": [1.0, 2.0, 3.0, 4.0],
        "labels": [1, 0, 0, 1],
        "enroll_subjects": [0, 0, 1, 1],
        "test_subjects": [0, 1, 2, 1],
    }
    with pytest.raises(UsageError, match=message):
        metrics.bootstrap_by_subject(**(call | change))


def test_bootstrap_refuses_when_most_resamples_lack_a_class():
    # A resample needs all three subjects to hold both trials: 3! / 27 of them do.
    with pytest.raises(UsageError, match="too few subjects"):
        metrics.bootstrap_by_subject([1.0, 0.0], [1, 0], [0, 1], [0, 2])


def test_the_device_needs_no_scipy_for_its_metrics():
    heavy = "('scipy', 'sklearn', 'cv2', 'torch', 'onnxruntime')"
    code = f"import sys, edgepin.evaluation; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
