"""What stands behind a store's key, and what better this machine has."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._paths import store_key_path
from .tpm import tpm_is_here

KEY_VARIABLE = "EDGEPIN_KEY"
TIERS = ("tpm", "systemd", "passphrase", "file", "memory")


def describe_key(environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The key that stores are locked with where none is named, for `edgepin doctor`.

    `key` as `open_key` reads it, `path` of its file or null, `exists` (null where that is not known without asking), `tier`,
    and `better`: null, or the `tier` that this machine could offer with the `mend` that moves a store to it. Asks
    nothing of a TPM.
    """
    environment = os.environ if environment is None else environment
    named = environment.get(KEY_VARIABLE) or f"file:{environment.get('EDGEPIN_KEY_FILE') or store_key_path()}"
    kind, _, rest = named.partition(":")
    tier = kind if kind in TIERS else "unknown"
    path = rest if tier in ("file", "passphrase") else None
    return {
        "key": named,
        "path": path,
        "exists": None if path is None else Path(path).exists(),
        "tier": tier,
        "better": _better(tier),
    }


def _better(tier: str) -> dict[str, str] | None:
    if tier in ("tpm", "systemd"):
        return None
    if tpm_is_here():
        tools = "" if shutil.which("tpm2_unseal") else "apt install tpm2-tools; "
        return {"tier": "tpm", "mend": f"{tools}edgepin store rotate --to tpm"}
    if shutil.which("systemd-creds"):
        return {
            "tier": "systemd",
            "mend": "run edgepin as a service with LoadCredentialEncrypted= (docs/keys.md)",
        }
    return None
