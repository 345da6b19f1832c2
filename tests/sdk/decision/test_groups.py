"""Rates by group, and intervals by resampling subjects."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgepin._errors import UsageError
from edgepin.evaluation import rates_by_group, read_groups
from edgepin.metrics import rate_by_subject

from ..commands import USAGE, YES, invoke
from ..conftest import Pins
from ..synthetic_captures import write_face

PEOPLE = [f"p{number:02}" for number in range(40)]
GROUPS = {name: "F" if index % 2 else "M" for index, name in enumerate(PEOPLE)}


def trials(seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """Scores by which people of group F resemble each other more."""
    rng = np.random.default_rng(seed)
    enroll, test = [], []
    for a in PEOPLE:
        enroll += [a] * (5 + len(PEOPLE) - 1)
        test += [a] * 5 + [b for b in PEOPLE if b != a]
    labels = np.array([a == b for a, b in zip(enroll, test, strict=True)])
    alike = np.array(
        [GROUPS[a] == GROUPS[b] == "F" and a != b for a, b in zip(enroll, test, strict=True)], float
    )
    scores = rng.standard_normal(len(labels)) + np.where(labels, 4.0, 0.0) + 1.5 * alike
    return scores, labels, enroll, test


def test_a_group_whose_people_resemble_each_other_shows() -> None:
    rates = {one.groups: one for one in rates_by_group(*trials(), GROUPS, threshold=2.0, replicates=200)}
    assert list(rates) == [("F",), ("F", "M"), ("M",)]
    women, men, between = rates["F",], rates["M",], rates["F", "M"]
    assert (women.people, women.genuine, women.impostor) == (20, 100, 380)
    assert (between.people, between.genuine, between.impostor) == (40, 0, 800)
    assert between.eer is None
    assert between.fnmr is None
    assert women.fmr is not None
    assert men.fmr is not None
    assert women.fmr.low > men.fmr.high  # 0.31 against 0.023
    assert women.eer is not None
    assert women.eer.low <= women.eer.estimate <= women.eer.high


def test_without_a_threshold_there_are_equal_error_rates_alone() -> None:
    (one, *_) = rates_by_group(*trials(), GROUPS, replicates=50)
    assert (one.fmr, one.fnmr) == (None, None)
    assert one.eer is not None
    assert one.to_json()["fmr"] is None


def test_a_person_without_a_group_is_named() -> None:
    with pytest.raises(UsageError, match="1 people, the first of them 'p07'"):
        rates_by_group(*trials(), {name: group for name, group in GROUPS.items() if name != "p07"})


def test_a_group_of_one_person_has_no_equal_error_rate() -> None:
    groups = {**dict.fromkeys(PEOPLE, "M"), "p00": "X"}
    rates = {one.groups: one for one in rates_by_group(*trials(), groups, threshold=2.0, replicates=50)}
    assert rates["X",].eer is None
    assert rates["X",].fmr is None
    assert rates["X",].fnmr is not None


@pytest.mark.parametrize(
    ("text", "column", "expected"),
    [
        ("speaker\tsex\tsplit\n19\tF\ttrain\n26\tM\teval\n", None, {"19": "F", "26": "M"}),
        ("speaker\tsex\tsplit\n19\tF\ttrain\n26\tM\teval\n", "split", {"19": "train", "26": "eval"}),
        ("a\tx\nb\ty\na\tx\n", None, {"a": "x", "b": "y"}),
    ],
)
def test_groups_are_read(tmp_path: Path, text: str, column: str | None, expected: dict[str, str]) -> None:
    (tmp_path / "g.tsv").write_text(text)
    assert read_groups(tmp_path / "g.tsv", column) == expected


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("", None, "no groups"),
        ("a\n", None, "line 1"),
        ("a\tx\na\ty\n", None, "line 2: 'a' came before"),
        ("speaker\tsex\n1\tF\n", "age", "no column 'age'"),
        ("1\tF\n", "sex", "no header"),
    ],
)
def test_what_is_no_list_of_groups_is_refused(
    tmp_path: Path, text: str, column: str | None, message: str
) -> None:
    (tmp_path / "g.tsv").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_groups(tmp_path / "g.tsv", column)


def test_an_interval_by_subject_is_wider_where_one_person_makes_the_errors() -> None:
    a, b = (side.ravel() for side in np.meshgrid(np.arange(30), np.arange(30), indexing="ij"))
    a, b = a[a != b], b[a != b]
    one = (a == 3) | (b == 3)
    spread = np.random.default_rng(1).permutation(one)
    of_one, of_all = (rate_by_subject(events, a, b) for events in (one, spread))
    assert of_one.estimate == of_all.estimate
    assert of_one.high - of_one.low > 2.0 * (of_all.high - of_all.low)
    assert of_one == rate_by_subject(one, a, b)


def test_no_error_among_few_pairs_is_no_proof() -> None:
    a, b = np.triu_indices(14, 1)
    found = rate_by_subject(np.zeros(91, bool), a, b)
    assert (found.estimate, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(1.0 - 0.025 ** (1 / 91))
    more_of_the_same = rate_by_subject(np.zeros(910, bool), np.tile(a, 10), np.tile(b, 10))
    assert more_of_the_same.high == found.high
    assert rate_by_subject(np.ones(91, bool), a, b).low == pytest.approx(0.025 ** (1 / 91))


@pytest.mark.parametrize("events", [[], [[True]], [np.nan], [True, False]])
def test_events_that_do_not_fit_are_refused(events: list[object]) -> None:
    with pytest.raises(UsageError):
        rate_by_subject(events, [1], [2])


def test_the_command_shows_rates_by_group_at_the_policys_threshold(
    device: Path, pins: Pins, tmp_path: Path
) -> None:
    lines, groups = [], ["person\tgroup"]
    for person in range(6):
        (tmp_path / f"p{person}").mkdir()
        groups.append(f"p{person}\t{'north' if person < 3 else 'south'}")
        for capture in (0, 1):
            write_face(tmp_path / f"p{person}" / f"{capture}.png", person, capture)
        lines.append(f"1 p{person}/0.png p{person}/1.png\n")
        lines += [f"0 p{person}/0.png p{other}/1.png\n" for other in range(6) if other != person]
    (tmp_path / "t.txt").write_text("".join(lines))
    (tmp_path / "g.tsv").write_text("\n".join(groups))
    arguments = (
        "evaluate", "verification", "--modality", "face", "--root", tmp_path, "--trials", tmp_path / "t.txt",
        "--bundle", pins.site, "--groups",
    )  # fmt: skip
    result = invoke(*arguments, tmp_path / "g.tsv", "--json")
    assert result.exit_code == YES, result.output
    value = json.loads(result.stdout)["groups"]
    assert value["fmr"] is not None
    assert [row["groups"] for row in value["rates"]] == [["north"], ["north", "south"], ["south"]]
    assert [row["impostor"] for row in value["rates"]] == [6, 18, 6]
    between = value["rates"][1]
    assert (between["eer"], between["fnmr"]) == (None, None)
    assert 0.0 == between["fmr"]["low"] <= between["fmr"]["rate"] <= between["fmr"]["high"]
    assert "north x south" in invoke(*arguments, tmp_path / "g.tsv").stdout
    refused = invoke(*arguments, tmp_path / "none.tsv")
    assert refused.exit_code == USAGE
