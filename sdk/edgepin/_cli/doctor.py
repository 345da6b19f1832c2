"""`edgepin doctor`: what is here, what will be used, what is missing and how to get it."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from .console import emit_json, exit_codes, say
from .options import FILE

# What each role of a machine needs, by the name it is imported under.
PACKAGES = {
    "device": ("numpy", "onnxruntime", "cv2", "PIL", "soundfile", "soxr", "cryptography", "click"),
    "train": ("torch", "safetensors"),
    "export": ("torch", "onnx", "onnxscript"),
}
DISTRIBUTIONS = {"cv2": "opencv-python-headless", "PIL": "pillow"}


@click.command()
@click.option("--bundle", type=FILE, envvar="EDGEPIN_BUNDLE", help="Also check this bundle.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@exit_codes
def doctor(bundle: Path | None, as_json: bool) -> None:
    """Say what is here, what will be used, what is missing and how to get it. Exits with 6 if the device lacks something."""
    findings = {
        **_machine(),
        "roles": _roles(),
        "runtime": _runtime(),
        **_places(),
        "bundle": _bundle(bundle),
    }
    if as_json:
        emit_json("doctor", findings)
    else:
        _print(findings)
    sys.exit(0 if findings["roles"]["device"]["ready"] and findings["runtime"]["ready"] else 6)


def _machine() -> dict[str, Any]:
    return {
        "edgepin": metadata.version("edgepin"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.platform(),
        "gpu": "nvidia" if shutil.which("nvidia-smi") else None,
    }


def _roles() -> dict[str, Any]:
    roles = {}
    for role, packages in PACKAGES.items():
        missing = [name for name in packages if importlib.util.find_spec(name) is None]
        extra = "edgepin" if role == "device" else f"'edgepin[{role}]'"
        roles[role] = {
            "ready": not missing,
            "versions": {name: _version(name) for name in packages if name not in missing},
            "missing": missing,
            "mend": f"pip install {extra}" if missing else None,
        }
    return roles


def _runtime() -> dict[str, Any]:
    """Which backend will run, and why not a better one."""
    from .._errors import EnvironmentFault
    from .._faces import HaarFinder

    ready, mend = True, None
    try:
        HaarFinder()
    except (EnvironmentFault, ImportError) as error:
        ready, mend = False, getattr(error, "hint", None) or str(error)
    if importlib.util.find_spec("onnxruntime") is None:
        ready, mend = False, "pip install onnxruntime"
    log_mel = _log_mel()
    return {
        "ready": ready and log_mel["implementation"] is not None,
        "backend": "onnxruntime-cpu",
        "why": "this version runs its encoders on ONNX Runtime's CPU provider only",
        "log_mel": log_mel,
        "mend": mend,
    }


def _log_mel() -> dict[str, Any]:
    """What computes the front-end of the voice, and why not something faster."""
    from edgepin_kernels import LogMel, LogMelSpec, available_kernels

    try:
        kernels = available_kernels()
    except ImportError:
        kernels = []
    try:
        implementation, mend = LogMel(LogMelSpec()).implementation, None
    except (ImportError, ValueError) as error:
        implementation, mend = None, str(error)
    if implementation == "numpy":
        mend = "unset EDGEPIN_LOG_MEL" if kernels else "install edgepin with a C++ compiler at hand"
        mend += "; numpy is about ten times slower"
    return {"implementation": implementation, "kernels": kernels, "mend": mend}


def _places() -> dict[str, Any]:
    from .._paths import config_dir, enrollments_path, store_key_path, trusted_dir

    return {
        "config": str(config_dir()),
        "store": {"path": str(enrollments_path()), "exists": enrollments_path().exists()},
        "key": {"path": str(store_key_path()), "exists": store_key_path().exists(), "tier": "file"},
        "trusted_keys": len(list(trusted_dir().glob("*.pub"))) if trusted_dir().is_dir() else 0,
    }


def _bundle(path: Path | None) -> dict[str, Any]:
    from .._bundle import Bundle

    if path is None:
        return {
            "path": None,
            "note": "no packaged starter in this version",
            "mend": "edgepin train --data DIR --out RUN && edgepin export RUN --out site.pin",
        }
    opened = Bundle.open(path, allow_unsigned=True)
    return {
        "path": str(path),
        "name": opened.manifest.name,
        "digest": opened.digest,
        "signature": opened.signature,
        "precisions": list(opened.precisions("face")),
        "evidence": dict(opened.manifest.evidence),
        "restrictions": opened.manifest.usage["restrictions"],
    }


def _version(name: str) -> str:
    try:
        return metadata.version(DISTRIBUTIONS.get(name, name))
    except metadata.PackageNotFoundError:
        return "unknown"


def _print(findings: dict[str, Any]) -> None:
    click.echo(f"edgepin {findings['edgepin']}, Python {findings['python']}, {findings['system']}")
    for role, found in findings["roles"].items():
        versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
        click.echo(
            f"{role:8} {'ready' if found['ready'] else 'missing ' + ', '.join(found['missing'])}  ({versions})"
        )
        if found["mend"]:
            say(f"         to get it: {found['mend']}")
    runtime = findings["runtime"]
    click.echo(f"runtime  {runtime['backend']}: {runtime['why']}")
    if runtime["mend"]:
        say(f"         to mend it: {runtime['mend']}")
    log_mel = runtime["log_mel"]
    kernels = f"compiled kernels of this processor: {', '.join(log_mel['kernels']) or 'none'}"
    click.echo(f"log-mel  {log_mel['implementation'] or 'missing'} ({kernels})")
    if log_mel["mend"]:
        say(f"         to mend it: {log_mel['mend']}")
    store, key = findings["store"], findings["key"]
    click.echo(f"store    {store['path']} ({'there' if store['exists'] else 'made at first enrollment'})")
    click.echo(
        f"key      {key['path']} ({'there' if key['exists'] else 'made at first use'}), tier: {key['tier']}"
    )
    click.echo(f"trust    {findings['trusted_keys']} public keys of other machines, and this machine's own")
    bundle = findings["bundle"]
    if bundle["path"] is None:
        click.echo(f"bundle   none: {bundle['note']}")
        say(f"         to make one: {bundle['mend']}")
    else:
        click.echo(
            f"bundle   {bundle['name']}, {bundle['signature']}, {', '.join(bundle['precisions'])}; "
            f"evidence: {bundle['evidence'].get('subject_pairs')} pairs of people; {bundle['restrictions']}"
        )
