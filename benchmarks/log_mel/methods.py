"""All rows of the comparison."""

from __future__ import annotations

from benchmarks.log_mel import floor, kaldi_peers, numpy_peers, onnx_peers, ours, torch_peers
from benchmarks.log_mel.method import Method

METHODS: tuple[Method, ...] = (
    *ours.methods(),
    *torch_peers.methods(),
    *numpy_peers.methods(),
    *kaldi_peers.methods(),
    *onnx_peers.methods(),
    *floor.methods(),
)


def find_method(name: str, preset: str) -> Method:
    """The row of this name and preset.

    Raises:
        KeyError: there is none.
    """
    for method in METHODS:
        if (method.name, method.preset) == (name, preset):
            return method
    raise KeyError(f"no method is called {name!r} with the preset {preset!r}")
