"""`edgepin calibrate`: from a site's captures or recorded scores to a signed calibration and a report."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from edgepin._bundle.bundle import Bundle
from edgepin._decision.det_plot import det_svg, report_html
from edgepin._decision.recorded import COLUMNS, read_attempts
from edgepin._decision.site import SiteCalibration
from edgepin._errors import UsageError

from ..commands import CAPTURE, INTEGRITY, USAGE, YES, invoke
from ..conftest import APART, Pins
from ..synthetic_captures import voice, write_face, write_voice


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve people with four faces and four voices each, and one with faces alone."""
    root = tmp_path_factory.mktemp("people")
    for person in range(13):
        for modality in ("faces", "voices"):
            if modality == "voices" and person == 12:
                continue
            folder = root / modality / f"p{person:02}"
            folder.mkdir(parents=True)
            for capture in range(4):
                if modality == "faces":
                    write_face(folder / f"{capture}.png", person, capture)
                else:
                    write_voice(folder / f"{capture}.wav", voice(person, capture))
    return root


def attempts_file(path: Path, people: int = 12, *, session: bool = True) -> Path:
    """Recorded scores of simulated people as a table."""
    trials = APART.trials(people, seed=3)
    own = {
        "genuine": (True, True),
        "stranger": (False, False),
        "other_voice": (True, False),
        "other_face": (False, True),
    }
    lines = ["\t".join((*COLUMNS, *(("session",) if session else ())))]
    for index, kind in enumerate(trials.kind.tolist()):
        a, b = f"p{trials.subject_a[index]:02}", f"p{trials.subject_b[index]:02}"
        owners = [a if mine else b for mine in own[kind]]
        scores = [f"{np.clip(getattr(trials, name)[index], -1, 1):.4f}" for name in COLUMNS[3:]]
        series = (f"{a}-{b}-{kind}-{index % 3 if kind == 'genuine' else 0}",) if session else ()
        lines.append("\t".join((a, *owners, *scores, *series)))
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_site_is_calibrated_on_its_own_captures(
    device: Path, pins: Pins, people: Path, tmp_path: Path
) -> None:
    out, report = tmp_path / "site.cal", tmp_path / "report.html"
    result = invoke(
        "calibrate", "--bundle", pins.site, "--data", people, "--face-cropped", "--out", out, "--report", report, "--json"
    )  # fmt: skip
    assert result.exit_code == YES, result.output
    value = json.loads(result.stdout)
    assert value["schema"] == "edgepin.calibration/1"
    assert value["people"] == 13
    assert value["subject_pairs"] == {"face+voice": 66, "face": 78, "voice": 66}
    assert value["max_attempts"]["face+voice"] == 3
    for side in ("before", "after"):
        for table in value[side].values():
            assert "det" not in table
            assert table["eer"]["low"] <= table["eer"]["rate"] <= table["eer"]["high"]
    bundle = Bundle.open(pins.site)
    calibration = SiteCalibration.open(out, bundle)
    assert calibration.digest == value["digest"]
    assert value["bundle"] == bundle.digest
    page = report.read_text()
    assert page.count("<svg") == 3
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")  # nothing to load


def test_a_site_is_calibrated_on_recorded_scores(device: Path, pins: Pins, tmp_path: Path) -> None:
    out, report = tmp_path / "site.cal", tmp_path / "r.json"
    table = attempts_file(tmp_path / "a.tsv", 20)
    result = invoke("calibrate", "--bundle", pins.site, "--attempts", table, "--out", out, "--report", report)
    assert result.exit_code == YES, result.output
    assert "20 people" in result.stdout
    assert SiteCalibration.open(out, Bundle.open(pins.site)).fusion.evidence.sets["face+voice"].pairs == 190
    value = json.loads(report.read_text())
    assert value["schema"] == "edgepin.calibration-report/1"
    steps = value["after"]["face+voice"]["det"]
    assert 20 < len(steps) < 1000
    fmr, fnmr = [row[1] for row in steps], [row[2] for row in steps]
    assert fmr == sorted(fmr, reverse=True)
    assert fnmr == sorted(fnmr)


def test_captures_and_recorded_scores_add_up(device: Path, pins: Pins, people: Path, tmp_path: Path) -> None:
    table = attempts_file(tmp_path / "a.tsv", 16, session=False)
    result = invoke(
        "calibrate", "--bundle", pins.site, "--data", people, "--face-cropped", "--attempts", table,
        "--out", tmp_path / "site.cal", "--json",
    )  # fmt: skip
    assert result.exit_code == YES, result.output
    value = json.loads(result.stdout)
    assert value["people"] == 16  # p00 to p12 are the same people
    assert value["subject_pairs"]["face+voice"] == 120


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), USAGE, "nothing to calibrate on"),
        (("--data", "nowhere"), USAGE, "no folder faces"),
        (("--attempts", "nowhere.tsv"), USAGE, "cannot read"),
        (("--data", "nowhere", "--report", "r.pdf"), USAGE, ".html or .json"),
        (("--data", "nowhere", "--report", "no/folder/r.json"), USAGE, "no folder"),
    ],
)
def test_a_wrong_call_says_what_to_give(
    device: Path, pins: Pins, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    result = invoke("calibrate", "--bundle", pins.site, "--out", tmp_path / "s.cal", *arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert not (tmp_path / "s.cal").exists()


def test_too_few_people_are_refused_and_nothing_is_written(device: Path, pins: Pins, tmp_path: Path) -> None:
    table = attempts_file(tmp_path / "a.tsv", 9)
    result = invoke("calibrate", "--bundle", pins.site, "--attempts", table, "--out", tmp_path / "s.cal")
    assert (result.exit_code, "at least 10 people, not 9" in result.stderr) == (USAGE, True)
    assert not (tmp_path / "s.cal").exists()


def test_captures_that_are_all_refused_are_not_the_person(device: Path, pins: Pins, tmp_path: Path) -> None:
    for person in range(11):
        for modality, name in (("faces", "0.png"), ("voices", "0.wav")):
            folder = tmp_path / "d" / modality / f"p{person}"
            folder.mkdir(parents=True)
            (folder / name).write_bytes(b"damaged")
    result = invoke("calibrate", "--bundle", pins.site, "--data", tmp_path / "d", "--out", tmp_path / "s.cal")
    assert result.exit_code == CAPTURE


def test_a_bundle_that_nobody_trusts_is_not_calibrated(tmp_path: Path, pins: Pins, device: Path) -> None:
    (device / "trusted" / "maker.pub").unlink()
    table = attempts_file(tmp_path / "a.tsv")
    result = invoke("calibrate", "--bundle", pins.site, "--attempts", table, "--out", tmp_path / "s.cal")
    assert result.exit_code == INTEGRITY


HEADER = "\t".join(COLUMNS)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a\ta\ta\t0.5\t0.5\t0.1", "fields are expected"),
        ("\ta\ta\t0.5\t0.5\t0.1\t0.1", "whose enrollment"),
        ("a\t\t\t\t\t\t", "whose enrollment"),
        ("a\ta\ta\t0.5\tnan\t0.1\t0.1", "voice: a cosine"),
        ("a\ta\ta\t0.5\t7\t0.1\t0.1", "voice: a cosine"),
        ("a\ta\ta\t\t0.5\t0.1\t0.1", "face_of and face"),
        ("a\tb\tc\t0.5\t0.5\t0.1\t0.1", "no kind of attempt"),
        ("a\ta\ta\t0.5\t0.5\t\t", "face_voice and voice_face"),
    ],
)
def test_an_attempt_that_cannot_be_is_refused_with_its_line(tmp_path: Path, row: str, message: str) -> None:
    (tmp_path / "a.tsv").write_text(f"{HEADER}\n{row}\n")
    with pytest.raises(UsageError, match=rf"line 2.*{message}"):
        read_attempts(tmp_path / "a.tsv")


@pytest.mark.parametrize(
    "text", ["", "enrolled\tface\n", f"{HEADER}\textra\n", f"{HEADER}\n", f"{HEADER}\tface\n"]
)
def test_a_table_without_its_columns_or_rows_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.tsv").write_text(text)
    with pytest.raises(UsageError):
        read_attempts(tmp_path / "a.tsv")


def test_attempts_are_of_the_kind_that_their_captures_say(tmp_path: Path) -> None:
    rows = [
        "a\ta\ta\t0.5\t0.6\t0.1\t0.2", "a\tb\tb\t0.5\t0.6\t0.1\t0.2", "a\ta\tb\t0.5\t0.6\t0.1\t0.2",
        "a\tb\ta\t0.5\t0.6\t0.1\t0.2", "a\tc\t\t0.3\t\t\t", "a\t\ta\t\t0.4\t\t",
    ]  # fmt: skip
    (tmp_path / "a.tsv").write_text("\n".join([HEADER, *rows]) + "\n")
    found = read_attempts(tmp_path / "a.tsv", ("z",))
    assert found.names == ("z", "a", "b", "c")
    assert found.joint is not None
    assert found.joint.kind.tolist() == ["genuine", "stranger", "other_voice", "other_face"]
    assert found.joint.subject_b.tolist() == [1, 2, 2, 2]
    assert (found.alone["face"].subject_b.tolist(), found.alone["face"].score.tolist()) == ([3], [0.3])
    assert found.alone["voice"].genuine.tolist() == [True]


def test_the_plot_is_well_formed_and_holds_every_curve() -> None:
    curves = {
        "before <&>": [(-1.0, 1.0, 0.0), (0.0, 0.1, 0.2), (2.0, 0.0, 1.0)],
        "after": [(0.0, 0.01, 0.02)],
    }
    tree = ElementTree.fromstring(det_svg(curves, title='a "title" <b>'))
    lines = [element for element in tree.iter() if element.tag.endswith("polyline")]
    assert len(lines) == 2
    points = [tuple(map(float, point.split(","))) for point in lines[0].attrib["points"].split()]
    assert points[0][0] == points[0][1] == 424.0  # FMR 1 at the right edge, FNMR 0 at the bottom
    assert points[-1] == (56.0, 56.0)
    assert "before <&>" in "".join(tree.itertext())


def test_a_set_without_evidence_is_said_to_carry_nothing() -> None:
    nothing = {
        "people": 1, "genuine": 1, "impostor": 1, "point": None, "fnmr": None, "fmr": {"stranger": None},
        "eer": {"rate": 0.1, "low": 0.0, "high": 0.2}, "min_dcf": {"rate": 1.0, "low": 1.0, "high": 1.0},
        "cllr": {"rate": 1.0, "low": 1.0, "high": 1.0}, "min_cllr": 1.0, "det": [(0.0, 0.5, 0.5)],
    }  # fmt: skip
    page = report_html({"bundle": "<x>", "before": {"face": nothing}, "after": {"face": nothing}})
    assert "none" in page
    assert "<x>" not in page
