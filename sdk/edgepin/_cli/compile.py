"""`edgepin compile`: TensorRT engines of a bundle's encoders, for the GPU that is here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .._safe_files import write_atomic
from .console import Progress, emit_json, exit_codes, say
from .options import FILE

if TYPE_CHECKING:
    from .._runtime.engine_jobs import Job, Outcome


@click.command("compile")
@click.argument("bundle", type=FILE)
@click.option("--allow-unsigned", is_flag=True, help="Use a bundle that no trusted key has signed.")
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=click.Choice(["fp32", "fp16", "int8", "all"]),
    help="May be repeated. Default: all that the bundle has.",
)
@click.option(
    "--target",
    default="this",
    show_default=True,
    metavar="this|sm_86|…",
    help="What GPU to build for. Only TensorRT for RTX builds for one that is not here.",
)
@click.option(
    "--workspace", default=512, show_default=True, metavar="MiB", help="Scratch memory that a layer may use."
)
@click.option("--dla", type=int, metavar="N", help="Run on this DLA core what can run there.")
@click.option(
    "--max-batch",
    default=1,
    show_default=True,
    metavar="N",
    help="The most captures that are encoded at once.",
)
@click.option(
    "--max-seconds",
    type=float,
    metavar="S",
    help="The longest voice. Default: 10 s; on a DLA 3 s, and no other.",
)
@click.option("--cache", type=FILE, metavar="DIR", help="Where engines are kept. Default: this user's cache.")
@click.option("--force", is_flag=True, help="Build also what is there and fits.")
@click.option("--dry-run", is_flag=True, help="Say what would be built, and build nothing.")
@click.option("--report", type=FILE, metavar="FILE", help="Write every layer of every engine here, as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@exit_codes
def compile_engines(
    bundle: Path,
    allow_unsigned: bool,
    precisions: tuple[str, ...],
    target: str,
    workspace: int,
    dla: int | None,
    max_batch: int,
    max_seconds: float | None,
    cache: Path | None,
    force: bool,
    dry_run: bool,
    report: Path | None,
    as_json: bool,
) -> None:
    """Build the TensorRT engines of a bundle on the device that will run them.

    Engines that are in the cache and fit are kept. Others are built, and it is said what was wrong with them.

    \b
    Example:
      edgepin compile site.pin --precision fp16 --precision int8
    """
    from .._bundle.bundle import Bundle
    from .._runtime import engine_jobs as jobs
    from .._runtime.engine_cache import EngineCache
    from .._runtime.tensorrt_api import load_tensorrt

    options = jobs.CompileOptions(
        precisions=() if "all" in precisions else precisions,
        target=target,
        workspace_mib=workspace,
        dla_core=dla,
        max_batch=max_batch,
        max_seconds=max_seconds,
    )
    opened = Bundle.open(bundle, allow_unsigned=allow_unsigned)
    tensorrt = load_tensorrt()
    wanted = jobs.plan(opened, options, tensorrt)
    engines = EngineCache(cache)
    gpu = wanted[0].key
    say(f"{tensorrt.title}, {gpu.gpu or 'any GPU of'} {gpu.capability}; engines in {engines.folder}")
    if tensorrt.flavor == "tensorrt-rtx":
        say("these are engines for TensorRT for RTX; TensorRT, as on a Jetson, does not read them")
    progress = Progress()

    def telling(job: Job) -> Any:
        return lambda done, total, phase: progress(f"building {job.name}", done, total, phase)

    def close_and_say(text: str) -> None:
        progress.close()
        say(text)

    outcomes = []
    for one in (
        jobs.check(wanted, engines, force=force)
        if dry_run
        else jobs.run(wanted, engines, tensorrt, force=force, log=close_and_say, progress=telling)
    ):
        progress.close()
        outcomes.append(one)
        for line in _describe(one):
            say(line)
    if report is not None:
        _write_report(report, outcomes)
    errors = [one.error for one in outcomes if one.error is not None]
    if errors:
        say(f"{len(errors)} of {len(outcomes)} engines could not be built; the first reason again:")
        raise errors[0]
    if as_json:
        emit_json(
            "compile",
            {
                "bundle": str(bundle),
                "digest": opened.digest,
                "tensorrt": {"flavor": tensorrt.flavor, "version": tensorrt.version},
                "gpu": gpu.gpu or None,
                "capability": gpu.capability,
                "cache": str(engines.folder),
                "dry_run": dry_run,
                "engines": [one.to_json() for one in outcomes],
            },
        )


def _describe(one: Outcome) -> list[str]:
    size = f"{one.size / (1 << 20):.1f} MiB"
    if one.state == "failed":
        return [f"{one.job.name}: failed: {one.error}"]
    if one.state == "wanted":
        return [f"{one.job.name}: would be built: {one.reason}"]
    if one.state == "kept":
        return [f"{one.job.name}: there already, {size}"]
    lines = [f"{one.job.name}: built in {one.seconds:.1f} s, {size}; {one.reason}"]
    report = one.report or {}
    counts, dla = report.get("counts"), report.get("dla")
    if counts:
        lines.append(
            f"  {counts['kernels']} kernels, {counts['reformats']} of them reformats; {counts['convolutions']} "
            f"convolutions, {counts['int8_convolutions']} read INT8"
        )
    if dla:
        lines.append(
            f"  DLA core {dla['core']}: {len(dla['on_gpu'])} layers fall back to the GPU (listed above)"
        )
    return lines


def _write_report(path: Path, outcomes: list[Outcome]) -> None:
    engines = [{**one.to_json(), "key": one.job.key.to_json(), "report": one.report} for one in outcomes]
    text = json.dumps({"schema": "edgepin.engine_report/1", "engines": engines}, indent=1, ensure_ascii=False)
    write_atomic(path.absolute(), [text.encode() + b"\n"])
