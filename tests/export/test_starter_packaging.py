"""What is packed beside the starter's encoders: its card, and rendered people for the demo."""

from __future__ import annotations

from edgepin._demo import list_people
from edgepin_export import starter
from edgepin_export._starter_card import USAGE, starter_sections


def figures(eer: float, *, policy: bool = True) -> dict[str, dict[str, dict[str, object]]]:
    one = {"eer": eer, "cllr": 0.4, "min_cllr": 0.3, "genuine": 10, "impostor": 90, "people": 9}
    rates = {"rate": eer, "low": eer / 2, "high": 2 * eer}
    groups = {
        "rates": [
            {"groups": ["F"], "people": 5, "eer": rates},
            {"groups": ["F", "M"], "people": 9, "eer": None},
            {"groups": ["M"], "people": 4, "eer": rates},
        ]
    }
    kinds = {"stranger": eer, "other_voice": 2 * eer, "other_face": 3 * eer}
    point = {"fmr": 0.2, "false_non_match": 0.25, "false_match": kinds}
    fused = one | {
        "groups": groups,
        "eer_by_kind": kinds,
        "plain_sum": {"eer_by_kind": kinds},
        "standardized_sum": {"eer_by_kind": kinds},
        "default_policy": point if policy else None,
    }
    return {"voice": {"int8": one | {"groups": groups}}, "face": {"int8": one}, "fused": {"int8": fused}}


def card(**options: bool) -> str:
    return starter_sections(
        figures(0.1, **options), seconds=3.0, command="make it", face="a network", voice="another"
    )


def test_the_card_shows_every_figure_by_form_kind_and_sex() -> None:
    text = card()
    for line in (
        "| voice | int8 | 10.00 % | 0.400 | 0.300 | 10, 90 |",
        "| int8 | plain sum | 10.00 % | 20.00 % | 30.00 % |",
        "| int8 | sum of standardized cosines | 10.00 % | 20.00 % | 30.00 % |",
        "| voice | F | 5 | 10.0 % (5.0 to 20.0) |",
        "| fused | M | 4 | 10.0 % (5.0 to 20.0) |",
        "false match rate of at most 0.2) rejected 25.00 %",
        "    make it",
        "first 3 s of clips of 9 speakers",
    ):
        assert line in text
    assert "F | M" not in text  # between groups there is nothing genuine


def test_the_card_says_where_there_is_no_policy() -> None:
    assert "carries no policy" in card(policy=False)


def test_the_card_says_what_the_starter_must_not_be_used_for() -> None:
    assert "must not be used for" in card()
    assert "not for a production door" in USAGE["restrictions"]
    assert "not for a production door" in USAGE["notice"]


def test_packaged_people_are_enough_for_the_demo_and_small(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(starter, "PEOPLE", 4)
    starter.write_people(tmp_path)
    people = list_people(tmp_path)
    assert [person.name for person in people] == [f"person-{starter.FIRST + i}" for i in range(4)]
    assert all(len(person.faces) == len(person.voices) == starter.CAPTURES for person in people)
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert size < 4 * starter.CAPTURES * 50_000
