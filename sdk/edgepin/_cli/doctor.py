"""`edgepin doctor`: what is here, what will be used, what is missing and how to get it."""

from __future__ import annotations

import importlib.util
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .._errors import BundleError
from .console import emit_json, exit_codes, say
from .gaps import find_gaps
from .hardware import Machine, survey
from .options import FILE

if TYPE_CHECKING:
    from .._bundle.bundle import Bundle
    from .._decision.evidence import OperatingPoint
    from .._errors import EdgePinError

# What each role of a machine needs, by the name it is imported under.
PACKAGES = {
    "device": ("numpy", "onnxruntime", "cv2", "PIL", "soundfile", "soxr", "cryptography", "click"),
    "train": ("torch", "safetensors"),
    "export": ("torch", "onnx", "onnxscript"),
}
DISTRIBUTIONS = {"cv2": "opencv-python-headless", "PIL": "pillow"}


@click.command()
@click.option(
    "--bundle",
    type=FILE,
    envvar="EDGEPIN_BUNDLE",
    help="The bundle to check, and to say what would run it. Default: the packaged starter.",
)
@click.option(
    "--allow-unsigned", is_flag=True, help="Run the bundle's encoders though no trusted key has signed it."
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@exit_codes
def doctor(bundle: Path | None, allow_unsigned: bool, as_json: bool) -> None:
    """Say what is here, what will be used, what is missing and how to get it. Exits with 6 if the device lacks something.

    \b
    Examples:
      edgepin doctor
      edgepin doctor --bundle site.pin --json
    """
    opened, missing = _open(bundle)
    machine = this_machine()
    found = survey(machine)
    found["tensorrt"], found["onnxruntime_providers"] = _tensorrt(), _providers()
    found["gaps"] = find_gaps(machine, found, found["tensorrt"], found["onnxruntime_providers"])
    findings = {
        **_machine(),
        "roles": _roles(),
        "runtime": _runtime(opened, allow_unsigned, found),
        **found,
        **_places(),
        "bundle": _bundle(bundle, opened, missing),
    }
    runtime = findings["runtime"]
    code = runtime.pop("exit_code") or (missing.exit_code if isinstance(missing, BundleError) else 0)
    if as_json:
        emit_json("doctor", findings)
    else:
        _print(findings)
    sys.exit(code or (0 if findings["roles"]["device"]["ready"] and runtime["ready"] else 6))


def this_machine() -> Machine:
    """Who is asked."""
    return Machine()


def _machine() -> dict[str, Any]:
    return {
        "edgepin": metadata.version("edgepin"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.platform(),
    }


def _open(path: Path | None) -> tuple[Bundle | None, EdgePinError | None]:
    """The bundle that is asked about; or None and why, where nothing is packaged or what is packaged is damaged."""
    from .._bundle.bundle import Bundle
    from .._errors import EdgePinError
    from .._starter import open_starter

    if path is not None:
        return Bundle.open(path, allow_unsigned=True), None
    try:
        return open_starter(), None
    except EdgePinError as error:
        return None, error


def _tensorrt() -> dict[str, Any]:
    from .._errors import EnvironmentFault
    from .._runtime.tensorrt_api import load_tensorrt

    try:
        tensorrt = load_tensorrt()
    except EnvironmentFault as fault:
        return {"version": None, "flavor": None, "why": str(fault), "mend": fault.hint}
    return {"version": tensorrt.version, "flavor": tensorrt.flavor, "why": None, "mend": None}


def _providers() -> list[str]:
    from .._errors import EnvironmentFault
    from .._runtime.runtime import import_onnxruntime

    try:
        return list(import_onnxruntime().get_available_providers())
    except EnvironmentFault:
        return []


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


def _runtime(bundle: Bundle | None, allow_unsigned: bool, found: dict[str, Any]) -> dict[str, Any]:
    """Which backend and precision will run, and why not a better one."""
    from .._capture.faces import HaarFinder
    from .._errors import EnvironmentFault

    ready, mend = True, None
    try:
        HaarFinder()
    except (EnvironmentFault, ImportError) as error:
        ready, mend = False, getattr(error, "hint", None) or str(error)
    if importlib.util.find_spec("onnxruntime") is None:
        ready, mend = False, "pip install onnxruntime"
    log_mel = _log_mel()
    if bundle is None:
        runs = _expected(found, "this depends on the bundle: give --bundle B.pin")
    elif bundle.signature not in ("trusted", "pinned") and not allow_unsigned:
        runs = _expected(found, "the bundle is not trusted, so its encoders were not run (--allow-unsigned)")
    else:
        runs = _opened(bundle)
    log_mel["on_gpu"] = runs.pop("takes_pcm", None)
    ready = ready and runs.pop("runs", True) and log_mel["implementation"] is not None
    return {
        "ready": ready,
        "exit_code": runs.pop("exit_code", 0),
        **runs,
        "engines": _engines(),
        "log_mel": log_mel,
        "mend": mend or runs.get("mend"),
    }


_NOTHING_KNOWN: dict[str, Any] = {
    "backend": None, "device": None, "precision": None, "measured_ms": None, "notes": [], "passed_over": [], "mend": None,
}  # fmt: skip


def _opened(bundle: Bundle) -> dict[str, Any]:
    """What runs, by opening it as a verifier would."""
    from .._errors import EdgePinError
    from .._runtime.backends import close_runtime, open_runtime
    from .._runtime.runtime import PcmRuntime

    try:
        opened = open_runtime(bundle)
    except EdgePinError as error:
        said = {"why": str(error), "mend": error.hint, "exit_code": error.exit_code, "runs": False}
        return {**_NOTHING_KNOWN, **said}
    takes_pcm = isinstance(opened.runtime, PcmRuntime) and opened.runtime.takes_pcm
    close_runtime(opened.runtime)
    return {**_NOTHING_KNOWN, **opened.to_json(), "why": opened.about, "takes_pcm": takes_pcm}


def _expected(found: dict[str, Any], why: str) -> dict[str, Any]:
    """What can run here, without a bundle that could be tried."""
    backend = "onnxruntime-cpu"
    if found["gpu"]["name"] is not None:
        if found["tensorrt"]["version"] and found["packages"]["pycuda"]:
            backend, why = "tensorrt", f"once engines are built (edgepin compile B.pin); {why}"
        elif "CUDAExecutionProvider" in found["onnxruntime_providers"]:
            backend = "onnxruntime-cuda"
    return {**_NOTHING_KNOWN, "backend": backend, "why": why}


def _engines() -> dict[str, Any]:
    from .._runtime.engine_cache import default_folder

    folder = default_folder()
    sizes = [path.stat().st_size for path in folder.glob("*.engine")] if folder.is_dir() else []
    return {"folder": str(folder), "count": len(sizes), "bytes": sum(sizes)}


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
    from .._paths import config_dir, enrollments_path, trusted_dir
    from .._store.tiers import describe_key

    return {
        "config": str(config_dir()),
        "store": {"path": str(enrollments_path()), "exists": enrollments_path().exists()},
        "key": describe_key(),
        "trusted_keys": len(list(trusted_dir().glob("*.pub"))) if trusted_dir().is_dir() else 0,
    }


def _bundle(path: Path | None, opened: Bundle | None, missing: EdgePinError | None) -> dict[str, Any]:
    if opened is None:
        return {"path": None, "note": str(missing), "mend": missing.hint if missing else None}
    point = _usual(opened)
    return {
        "path": str(opened.path),
        "packaged": path is None,
        "name": opened.manifest.name,
        "digest": opened.digest,
        "signature": opened.signature,
        "precisions": [name for name in opened.precisions("face") if name in opened.precisions("voice")],
        "evidence": dict(opened.manifest.evidence),
        "default_policy": None if point is None else {"fmr": point.fmr, "fnmr": point.fnmr},
        "restrictions": opened.manifest.usage["restrictions"],
        "notice": opened.notice,
    }


def _usual(bundle: Bundle) -> OperatingPoint | None:
    from .._decision.fusion import FACE_AND_VOICE, Fusion

    return Fusion.from_json(bundle.manifest.fusion).evidence.sets[FACE_AND_VOICE].usual


def _version(name: str) -> str:
    try:
        return metadata.version(DISTRIBUTIONS.get(name, name))
    except metadata.PackageNotFoundError:
        return "unknown"


def _print(findings: dict[str, Any]) -> None:
    """What runs first, then what it could be, then everything else."""
    from .._runtime.backends import PassedOver, together

    runtime = findings["runtime"]
    click.echo(f"runs     {_what_runs(runtime)}")
    for note in runtime["notes"]:
        click.echo(f"         {note}")
    for one in together(tuple(PassedOver(**one) for one in runtime["passed_over"])):
        click.echo(f"         not {one.name}: {one.why}")
        _mend(one.mend)
    _mend(runtime["mend"])
    for gap in findings["gaps"]:
        click.echo(f"gap      {gap['what']}: {gap['why']}")
        _mend(gap["mend"])
    click.echo(f"edgepin  {findings['edgepin']}, Python {findings['python']}, {findings['system']}")
    _print_hardware(findings)
    for role, found in findings["roles"].items():
        versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
        click.echo(
            f"{role:8} {'ready' if found['ready'] else 'missing ' + ', '.join(found['missing'])}  ({versions})"
        )
        _mend(found["mend"])
    log_mel = runtime["log_mel"]
    kernels = f"compiled kernels of this processor: {', '.join(log_mel['kernels']) or 'none'}"
    where = "on the GPU" if log_mel["on_gpu"] else log_mel["implementation"] or "missing"
    click.echo(f"log-mel  {where} ({kernels})")
    _mend(log_mel["mend"])
    engines = runtime["engines"]
    click.echo(f"engines  {engines['count']}, {engines['bytes'] / (1 << 20):.1f} MiB, in {engines['folder']}")
    store, key = findings["store"], findings["key"]
    click.echo(f"store    {store['path']} ({'there' if store['exists'] else 'made at first enrollment'})")
    there = {None: "", True: " (there)", False: " (made at first use)"}[key["exists"]]
    click.echo(f"key      {key['path'] or key['key']}{there}, tier: {key['tier']}")
    if key["better"] is not None:
        say(f"         this machine has better, tier {key['better']['tier']}: {key['better']['mend']}")
    click.echo(f"trust    {findings['trusted_keys']} public keys of other machines, and this machine's own")
    bundle = findings["bundle"]
    if bundle["path"] is None:
        click.echo(f"bundle   none: {bundle['note']}")
        say(f"         to make one: {bundle['mend']}")
    else:
        name = bundle["name"] + (" (packaged)" if bundle["packaged"] else "")
        click.echo(
            f"bundle   {name}, {bundle['signature']}, {', '.join(bundle['precisions'])}; "
            f"evidence: {bundle['evidence'].get('subject_pairs')} pairs of people; {bundle['restrictions']}"
        )
        point = bundle["default_policy"]
        click.echo(
            "         by default nobody is accepted: the evidence carries no policy"
            if point is None
            else f"         by default: false match rate at most {point['fmr']:g}, rejected {100 * point['fnmr']:.0f} % of right "
            "attempts in calibration"
        )
        if bundle["notice"] is not None:
            click.echo(f"         {bundle['notice']}")


def _what_runs(runtime: dict[str, Any]) -> str:
    if runtime["backend"] is None:
        return f"nothing: {runtime['why']}"
    if runtime["precision"] is None:
        return f"{runtime['backend']}: {runtime['why']}"
    text = f"{runtime['backend']} on {runtime['device']}, {runtime['precision']}"
    times = runtime["measured_ms"]
    if times:
        text += f" (measured here: {', '.join(f'{name} {ms:.2f} ms' for name, ms in times.items())})"
    return text


def _print_hardware(findings: dict[str, Any]) -> None:
    board, gpu, clocks = findings["jetson"], findings["gpu"], findings["clocks"]
    if board:
        click.echo(
            f"jetson   {board['module'] or 'unknown module'}, JetPack {board['jetpack'] or 'unknown'}, "
            f"L4T {board['l4t'] or 'unknown'}"
        )
        power = findings["power"]
        fixed = {True: "fixed", False: "following the load", None: "unknown"}
        click.echo(
            f"power    {power['mode'] or 'unknown'}; clocks: CPU {fixed[clocks['cpu_fixed']]}, "
            f"GPU {fixed[clocks['gpu_fixed']]}"
        )
    if gpu["name"] is None:
        click.echo(f"gpu      none: {gpu['why']}")
        return
    memory = f"{gpu['memory_mib']} MiB{', shared with the processor' if board else ''}"
    click.echo(
        f"gpu      {gpu['name']}, {gpu['capability']}, {memory}, driver {findings['driver'] or 'unknown'} "
        f"(CUDA {gpu['cuda']})"
    )
    tensorrt, packages = findings["tensorrt"], findings["packages"]
    click.echo(
        f"cuda     TensorRT {tensorrt['version'] or 'none'}"
        f"{' for RTX' if tensorrt['flavor'] == 'tensorrt-rtx' else ''}, nvcc {findings['cuda']['nvcc'] or 'none'}, "
        + ", ".join(f"{name} {version or 'none'}" for name, version in packages.items())
        + f"; ONNX Runtime: {', '.join(findings['onnxruntime_providers'])}"
    )


def _mend(command: str | None) -> None:
    if command:
        say(f"         to mend it: {command}")
