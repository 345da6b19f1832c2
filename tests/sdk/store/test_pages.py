"""The commands that `docs/keys.md` and `docs/erase.md` show can be given. Their Python: tests/sdk/test_docs_run.py."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from edgepin._cli.store import store as verbs

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGES = ("keys.md", "erase.md")


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text("utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    chosen = [block for kind, block in found if kind == language]
    assert chosen
    return chosen


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_the_page_are_ones_that_there_are(page: str) -> None:
    assert isinstance(verbs, click.Group)
    count = 0
    for line in "".join(blocks(page, "")).splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] and "=" in words[0]:
            words.pop(0)
        if words[:2] == ["edgepin", "store"]:
            verbs.commands[words[2]].make_context(words[2], words[3:])  # raises for what cannot be parsed
            count += 1
    assert count >= 5
