"""Damaged files for the decoders' fuzz tests: bytes changed anywhere, bytes changed in the header, and the end cut off."""

from __future__ import annotations

from hypothesis import strategies as st


@st.composite
def mutated(draw: st.DrawFn, valid: list[bytes]) -> bytes:
    """One of `valid`, with up to 8 bytes changed anywhere, up to 4 in the first 81, and perhaps cut short."""
    changed = bytearray(draw(st.sampled_from(valid)))
    anywhere = draw(st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), max_size=8))
    header = draw(st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), max_size=4))
    cut = draw(st.one_of(st.none(), st.integers(0, 2**20)))
    for position, value in anywhere + header:
        changed[position % len(changed)] = value
    return bytes(changed if cut is None else changed[: cut % len(changed)])
