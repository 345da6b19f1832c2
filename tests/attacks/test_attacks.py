"""Every hostile bundle is refused in its own words, before a byte of it reaches what it is aimed at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgepin import Bundle, BundleError, EdgePinError, MemoryKey, Verifier
from edgepin._decision.fusion import Fusion

from ..sdk.golden.make_golden import key
from . import hostile_files, hostile_models  # noqa: F401  (they enter themselves)
from .forge import ATTACKS, bundle

README = Path(__file__).resolve().parent / "README.md"
STAGES = {"open": "opening", "fusion": "opening a verifier", "run": "the first run"}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a bundle goes, on a machine that trusts the maker of the hostile ones."""
    home = tmp_path / "home"
    (home / "trusted").mkdir(parents=True, mode=0o700)
    (home / "trusted" / "maker.pub").write_bytes(key().public_key.to_pem())
    monkeypatch.setenv("EDGEPIN_HOME", str(home))
    return tmp_path / "site.pin"


def use(path: Path) -> None:
    """What a device does with a bundle, to the first embedding."""
    picture = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    store = path.with_suffix(".db")
    with Verifier.open(path, store, key=MemoryKey(bytes(32)), allow_unsigned=True) as verifier:
        verifier.pipeline.face(picture, cropped=True, gate=False)


def test_the_bundle_that_they_are_made_of_is_fine(site: Path) -> None:
    site.write_bytes(bundle())
    assert Bundle.open(site).signature == "trusted"
    use(site)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_in_its_own_words(
    name: str, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack = ATTACKS[name]
    site.write_bytes(attack.build())
    if attack.stage == "open":
        with pytest.raises(BundleError) as caught:
            Bundle.open(site, allow_unsigned=attack.allow_unsigned)
    elif attack.stage == "fusion":
        # Of an unknown maker's bundle too, nothing is loaded into a runtime before this is read.
        monkeypatch.setattr("edgepin._verifier.open_runtime", None)
        Bundle.open(site)
        with pytest.raises(BundleError) as caught:
            use(site)
    else:
        Fusion.from_json(Bundle.open(site).manifest.fusion)
        with pytest.raises(EdgePinError) as caught:
            use(site)
    assert attack.verdict in str(caught.value)
    assert len(str(caught.value)) < 400  # what a hostile file says is quoted, not poured out


def table() -> Iterator[str]:
    group = ""
    for name, attack in ATTACKS.items():
        if attack.group != group:
            group = attack.group
            yield f"\n## The {group}\n"
            yield "| bundle | what is wrong with it | refused at | in these words |"
            yield "|---|---|---|---|"
        yield f"| {name} | {attack.about} | {STAGES[attack.stage]} | {attack.verdict} |"


def test_the_table_in_the_readme_is_this_one() -> None:
    text = README.read_text("utf-8")
    assert text[text.index("\n## The ") :] == "\n".join(table()) + "\n"


def test_no_two_attacks_are_the_same_bytes() -> None:
    assert len({attack.build() for attack in ATTACKS.values()}) == len(ATTACKS)
