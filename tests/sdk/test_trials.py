from __future__ import annotations

import time

import numpy as np
import pytest

from edgepin._decision.fused_trials import fused_trials
from edgepin._decision.trials import (
    SOUND_SUFFIXES,
    Chimera,
    Trials,
    list_captures,
    paths_under,
    read_chimeras,
    read_trials,
    subject_of,
)
from edgepin._errors import UsageError


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_reads_both_spellings_of_labels_and_numbers_the_names(tmp_path):
    text = (
        "\ufeff1 a/x.wav a/y.wav\r\n\n0 a/x.wav b/z.wav\n"
        "target\ta/y y.wav\ta/x.wav\nnontarget b/z.wav a/y.wav"
    )
    trials = read_trials(written(tmp_path / "t.txt", text))
    assert trials.labels.tolist() == [True, False, True, False]
    assert trials.labels.dtype == np.bool_
    assert trials.enroll == ["a/x.wav", "a/x.wav", "a/y y.wav", "b/z.wav"]
    assert trials.test == ["a/y.wav", "b/z.wav", "a/x.wav", "a/y.wav"]
    assert sorted(trials.names) == ["a/x.wav", "a/y y.wav", "a/y.wav", "b/z.wav"]
    assert [trials.names[i] for i in trials.test_index] == trials.test


def test_a_name_may_hold_what_some_readers_take_for_a_line_end(tmp_path):
    trials = read_trials(written(tmp_path / "t.txt", "1\ta/x\u2028.wav\ta/y\x0c.wav\n"))
    assert trials.enroll == ["a/x\u2028.wav"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no trials"),
        ("\n \r\n\t\n", "no trials"),
        ("1 a b\n2 a b\n", "line 2: expected"),
        ("a b 1\n", "line 1: expected"),
        ("1 a b\n\n1 a\n", "line 3: expected"),
        ("1 a b c\n", "line 1: expected"),
        ("1\ta\t\n", "line 1: expected"),
        ("1" + "x" * 10_000 + "\n", "line 1: expected .{0,200}$"),
        (b"1 a b\n1 a \xff\n", "line 2: not UTF-8"),
        (b"\xef\xbb\xbf1 a b\n\xff", "line 2: not UTF-8"),
    ],
)
def test_a_list_that_is_none_is_refused_with_its_line(tmp_path, content, message):
    with pytest.raises(UsageError, match=message):
        read_trials(written(tmp_path / "t.txt", content))


def test_a_list_that_cannot_be_read_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "absent.txt"):
        with pytest.raises(UsageError, match="cannot read the trial list"):
            read_trials(path)


def test_a_hundred_thousand_lines_take_less_than_a_second(tmp_path):
    path = written(
        tmp_path / "t.txt",
        "".join(f"{i % 2} s{i % 97}/c{i}.wav s{i % 89}/d{i}.wav\n" for i in range(100_000)),
    )
    start = time.process_time()
    assert len(read_trials(path).names) == 200_000
    assert time.process_time() - start < 1.0


def test_trials_of_different_lengths_are_none():
    with pytest.raises(UsageError, match="2 labels, 1 enrolled"):
        Trials.of([True, False], ["a"], ["b"])


def test_reads_chimeras_with_and_without_header(tmp_path):
    rows = "61\tM\tA_B\n1580\tF\tC_D\n"
    expected = {"61": Chimera("61", "M", "A_B"), "1580": Chimera("1580", "F", "C_D")}
    assert read_chimeras(written(tmp_path / "a.tsv", "speaker\tsex\tface\r\n" + rows)) == expected
    assert read_chimeras(written(tmp_path / "b.tsv", rows)) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("speaker\tsex\tface\n", "no chimeras"),
        ("61 M A_B\n", "line 1: expected"),
        ("61\tM\tA\n61\tM\tB\n", "line 2: .* came before"),
        ("61\tM\tA\n62\tM\tA\n", "line 2: .* came before"),
        ("61\tM\t../A\n", "line 1: .* name of a folder"),
        ("..\tM\tA\n", "line 1: .* name of a folder"),
    ],
)
def test_chimeras_that_are_none_are_refused(tmp_path, content, message):
    with pytest.raises(UsageError, match=message):
        read_chimeras(written(tmp_path / "c.tsv", content))


@pytest.mark.parametrize("name", ["../x.wav", "/etc/passwd", "a/../../x", "", ".", "a\0b"])
def test_a_name_that_leaves_the_root_is_refused(tmp_path, name):
    with pytest.raises(UsageError, match="not inside"):
        paths_under(tmp_path, [name])


def test_missing_files_are_named_the_first_few_only(tmp_path):
    (tmp_path / "a").mkdir()
    written(tmp_path / "a" / "x.wav", "")
    assert paths_under(tmp_path, ["a/x.wav"]) == {"a/x.wav": tmp_path / "a" / "x.wav"}
    with pytest.raises(UsageError, match=r"'a/0\.wav', 'a/1\.wav', .* and 15 more$"):
        paths_under(tmp_path, ["a/x.wav", *(f"a/{i}.wav" for i in range(20))])
    with pytest.raises(UsageError, match="not a folder"):
        paths_under(tmp_path / "absent", ["a/x.wav"])


def test_captures_are_listed_by_name_with_chapters_and_without_other_files(tmp_path):
    for name in (
        "s/b.wav",
        "s/a/2.FLAC",
        "s/a/1.ogg",
        "s/notes.txt",
        "s/.b.wav",
        "s/.cache/x.wav",
        "t/c.wav",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        written(tmp_path / name, "")
    assert list_captures(tmp_path, "s", SOUND_SUFFIXES) == ("s/a/1.ogg", "s/a/2.FLAC", "s/b.wav")
    with pytest.raises(UsageError, match="no folder 'u'"):
        list_captures(tmp_path, "u", SOUND_SUFFIXES)


def test_the_subject_is_the_first_folder():
    assert subject_of("61/70968/0.flac") == subject_of("./61/0.flac") == "61"
    with pytest.raises(UsageError, match="not in a folder"):
        subject_of("0.flac")


CHIMERAS = {"s1": Chimera("s1", "M", "F1"), "s2": Chimera("s2", "M", "F2")}


def roots(tmp_path, clips=(5, 4), images=(3, 2)):
    """Voices s1, s2 with clips c0… and faces F1, F2 with images i0…; only names matter."""
    for root, people, counts, form in (
        ("voices", ("s1", "s2"), clips, "c{}.flac"),
        ("faces", ("F1", "F2"), images, "i{}.jpg"),
    ):
        for person, count in zip(people, counts, strict=True):
            folder = tmp_path / root / person
            folder.mkdir(parents=True)
            for i in range(count):
                written(folder / form.format(i), "")
    return tmp_path / "voices", tmp_path / "faces"


def clip_trials(*rows):
    return Trials.of([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])


def shown(sets, trials):
    """Each trial as (enrolled voice, enrolled face, test voice, test face), without the suffixes."""
    columns = (
        [sets.voices[i] for i in trials.enroll_voice],
        [sets.faces[i] for i in trials.enroll_face],
        [sets.voices[i] for i in trials.test_voice],
        [sets.faces[i] for i in trials.test_face],
    )
    return [tuple(name.rsplit(".", 1)[0] for name in row) for row in zip(*columns, strict=True)]


def test_the_ith_clip_goes_with_image_i_mod_n_and_a_genuine_trial_never_shows_one_image_twice(tmp_path):
    trials = clip_trials(
        (True, "s1/c0.flac", "s1/c1.flac"),
        (True, "s1/c4.flac", "s1/c1.flac"),  # image 1 both times: the test side takes image 2
        (True, "s1/c2.flac", "s1/c2.flac"),  # image 2 both times: the test side wraps to 0
        (False, "s1/c3.flac", "s2/c3.flac"),
        (False, "s2/c2.flac", "s1/c4.flac"),
    )
    sets = fused_trials(trials, *roots(tmp_path), CHIMERAS)
    assert shown(sets, sets.trials) == [
        ("s1/c0", "F1/i0", "s1/c1", "F1/i1"),
        ("s1/c4", "F1/i1", "s1/c1", "F1/i2"),
        ("s1/c2", "F1/i2", "s1/c2", "F1/i0"),
        ("s1/c3", "F1/i0", "s2/c3", "F2/i1"),
        ("s2/c2", "F2/i0", "s1/c4", "F1/i1"),
    ]
    assert sets.trials.labels.tolist() == trials.labels.tolist()
    assert [sets.people[i] for i in sets.trials.test_subject] == ["s1", "s1", "s1", "s2", "s1"]


def test_half_forged_trials_show_another_capture_of_the_enrolled_person(tmp_path):
    trials = clip_trials(
        (True, "s1/c0.flac", "s1/c1.flac"),
        (False, "s1/c0.flac", "s2/c1.flac"),
        (False, "s1/c3.flac", "s2/c3.flac"),  # image 0 and clip 3 of s1 are enrolled: the next ones are shown
        (False, "s2/c0.flac", "s1/c4.flac"),  # clip 4 mod 4 and image 4 mod 2 are enrolled too
    )
    sets = fused_trials(trials, *roots(tmp_path), CHIMERAS)
    assert shown(sets, sets.other_voice) == [
        ("s1/c0", "F1/i0", "s2/c1", "F1/i1"),
        ("s1/c3", "F1/i0", "s2/c3", "F1/i1"),
        ("s2/c0", "F2/i0", "s1/c4", "F2/i1"),
    ]
    assert shown(sets, sets.other_face) == [
        ("s1/c0", "F1/i0", "s1/c1", "F2/i1"),
        ("s1/c3", "F1/i0", "s1/c4", "F2/i1"),
        ("s2/c0", "F2/i0", "s2/c1", "F1/i1"),
    ]
    for forged in (sets.other_voice, sets.other_face):
        assert not forged.labels.any()
        assert np.all(forged.enroll_subject != forged.test_subject)


def test_only_captures_of_some_trial_are_named(tmp_path):
    sets = fused_trials(clip_trials((True, "s1/c0.flac", "s1/c4.flac")), *roots(tmp_path), CHIMERAS)
    assert sets.voices == ("s1/c0.flac", "s1/c4.flac")
    assert sets.faces == ("F1/i0.jpg", "F1/i1.jpg")
    assert sets.other_voice.labels.size == sets.other_face.labels.size == 0


@pytest.mark.parametrize(
    ("row", "counts", "message"),
    [
        ((True, "s1/c0.flac", "s2/c0.flac"), {}, "contradicts the speakers"),
        ((False, "s1/c0.flac", "s1/c1.flac"), {}, "contradicts the speakers"),
        ((False, "s1/c0.flac", "s3/c1.flac"), {}, "no face in the chimeras for 's3'"),
        ((True, "s1/c0.flac", "s1/c9.flac"), {}, "not found under .* 's1/c9.flac'"),
        ((True, "s1/c0.flac", "../s1/c9.flac"), {}, "not inside"),
        ((True, "s1/c0.flac", "s1/c1.flac"), {"images": (1, 2)}, "two images at least; one only for 's1'"),
        ((True, "s1/c0.flac", "s1/c1.flac"), {"images": (0, 2)}, "no images under .* 'F1'"),
        ((False, "s1/c0.flac", "s2/c1.flac"), {"clips": (1, 4)}, "two clips at least; one only for 's1'"),
    ],
)
def test_fused_trials_that_cannot_be_made_are_refused(tmp_path, row, counts, message):
    with pytest.raises(UsageError, match=message):
        fused_trials(clip_trials(row), *roots(tmp_path, **counts), CHIMERAS)
