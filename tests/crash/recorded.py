"""The scripted session in a folder, told into a file there. Run by `power.record`, with the recorder preloaded."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .power import TOLD
from .session import Session, scripted, write_all

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    telling = os.open(folder / TOLD, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    Session(folder, write_all(telling)).run(scripted())
