"""What the docs must mention, so that they cannot fall behind the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import edgepin
from edgepin._cli.main import Verbs, main

DOCS = Path(__file__).resolve().parents[2] / "docs"
COMMAND = (DOCS / "command.md").read_text("utf-8")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")


def _sections(page: str) -> dict[str, str]:
    """Title without backticks -> text of each second-level section."""
    parts = re.split(r"^## +(.+)$", page, flags=re.MULTILINE)
    return {
        title.replace("`", "").strip(): text for title, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def _verbs(group: click.Group, name: str) -> Iterator[tuple[str, click.Command]]:
    """Every verb that does something, by what is typed; groups such as `evaluate` stand for their verbs."""
    context = click.Context(group)
    for verb in group.list_commands(context):
        command = group.get_command(context, verb)
        assert command is not None, verb
        if isinstance(command, click.Group):
            yield from _verbs(command, f"{name} {verb}")
        else:
            yield f"{name} {verb}", command


def _long_options(command: click.Command) -> set[str]:
    return {
        name
        for option in command.params
        if isinstance(option, click.Option)
        for name in (*option.opts, *option.secondary_opts)
        if name.startswith("--")
    }


assert isinstance(main, Verbs)
SECTIONS = _sections(COMMAND)
VERBS = dict(_verbs(main, "edgepin"))


def _section(typed: str) -> str | None:
    """The section whose title is the verb, with or without its argument (`edgepin enroll ID`)."""
    found = [
        text for title, text in SECTIONS.items() if re.fullmatch(rf"{re.escape(typed)}( [A-Z]+)?", title)
    ]
    return found[0] if len(found) == 1 else None


def _subclasses(kind: type) -> Iterator[type]:
    yield kind
    for child in kind.__subclasses__():
        yield from _subclasses(child)


@pytest.mark.parametrize("typed", sorted(VERBS))
def test_every_verb_has_one_section_that_mentions_each_of_its_long_options(typed: str) -> None:
    text = _section(typed)
    assert text is not None, f"docs/command.md has no section, or several, called `{typed}`"
    missing = _long_options(VERBS[typed]) - set(OPTION.findall(text))
    assert not missing, f"docs/command.md, `{typed}`: no mention of {sorted(missing)}"


def test_the_command_page_mentions_no_option_and_no_verb_that_is_not_there() -> None:
    known = set().union(*map(_long_options, VERBS.values())) | {"--help", "--version"}
    if all(
        _long_options(command) for command in VERBS.values()
    ):  # else an extra is missing, and with it its options
        assert set(OPTION.findall(COMMAND)) <= known
    described = {re.sub(r" [A-Z]+$", "", title) for title in SECTIONS if title.startswith("edgepin ")}
    assert described == set(VERBS)


def test_every_exit_code_is_in_the_table() -> None:
    documented = set(re.findall(r"^\| (\d) \|", SECTIONS["Exit codes"], flags=re.MULTILINE))
    codes = {str(kind.exit_code) for kind in _subclasses(edgepin.EdgePinError)}  # type: ignore[attr-defined]
    assert documented == codes | {"0"}


def test_every_environment_variable_of_an_option_is_documented() -> None:
    variables = {
        option.envvar
        for command in VERBS.values()
        for option in command.params
        if isinstance(option.envvar, str)
    }
    assert variables
    assert {name for name in variables if f"`{name}`" not in SECTIONS["Environment"]} == set()


def test_the_python_of_the_quickstart_compiles() -> None:
    page = (DOCS / "quickstart.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    assert blocks
    for number, block in enumerate(blocks, start=1):
        compile(block, f"docs/quickstart.md, block {number}", "exec")


def test_the_table_of_training_options_is_that_of_the_configuration() -> None:
    config = pytest.importorskip("edgepin_training.config", reason="the training package is not here")
    page = (DOCS / "training.md").read_text("utf-8")
    table = dict(re.findall(r"^\| `(\w+)` \| `(.*?)` \|", page, flags=re.MULTILINE))
    expected = {
        name: f'"{value}"' if isinstance(value, str) else str(value)
        for name, value in config.TrainConfig().to_json().items()
    }
    assert table == expected


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.name)
def test_links_between_the_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!\w+://|#)([^)#]+)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).is_file()] == []
