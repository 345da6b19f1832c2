"""Coverage-guided fuzzing of what opens a bundle, by atheris, which is installed by hand (it is no dependency):

    pip install atheris
    python tests/fuzz/fuzz_bundle.py -max_total_time=600 CORPUS tests/sdk/golden

CORPUS is a folder for what it finds. An input that begins like a bundle is opened as one; one that begins like JSON is
read as a manifest, and any other as a model: behind checksums and digests, no random change would reach these. Whatever
is neither taken nor refused by a `BundleError` stops the run.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["edgepin"]):
    from edgepin import Bundle, BundleError
    from edgepin._bundle.manifest import Manifest
    from edgepin._bundle.onnx_scan import scan_model
    from edgepin._decision.fusion import Fusion

FILE = Path(tempfile.mkdtemp()) / "fuzz.pin"


def one(data: bytes) -> None:
    with contextlib.suppress(BundleError):
        if data.startswith(b"PK"):
            FILE.write_bytes(data)
            Bundle.open(FILE, allow_unsigned=True)
        elif data.startswith(b"{"):
            Fusion.from_json(Manifest.from_bytes(data).fusion)
        else:
            scan_model(data, "fuzz.onnx")


atheris.Setup(sys.argv, one)
atheris.Fuzz()
