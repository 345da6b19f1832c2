"""Text from elsewhere that a terminal may show: no character in it moves the cursor or turns the reading order."""

from __future__ import annotations

import unicodedata

# Marks, overrides and isolates of the Unicode bidirectional algorithm (UAX #9): with them a text reads other than
# it is stored. Other invisible characters stay allowed: Persian and emoji need some.
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# Controls (an escape sequence begins with one), separators of lines and paragraphs, halves of a character.
_CATEGORIES = frozenset({"Cc", "Zl", "Zp", "Cs"})


def unsafe_character(text: str) -> str | None:
    """The first such character, as `U+001B`, or None. Line feed and tab are no such characters."""
    if text.isprintable():
        return None  # the common case, at once
    for character in text:
        if character not in "\n\t" and (character in _BIDI or unicodedata.category(character) in _CATEGORIES):
            return f"U+{ord(character):04X}"
    return None
