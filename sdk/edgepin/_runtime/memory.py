"""Memory that was needed for a while: parsing and optimizing models, decoding and searching an image."""

from __future__ import annotations

import ctypes


def give_back_memory() -> None:
    """Returns freed memory to the system, where the C library can (glibc); a millisecond or two. It would keep some ten
    megabytes otherwise.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
