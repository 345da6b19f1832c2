"""The presets against the packages they are named after: their golden arrays always, themselves where installed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepin_kernels import LogMelSpec, reference_log_mel

from .packages import PACKAGES, Package
from .parity import (
    IMPLEMENTATIONS,
    RESULT_TOLERANCE,
    Mels,
    energy_error,
    largest_difference,
    linear,
)
from .sounds import SOUNDS, Pcm, real_speech

GOLDEN = Path(__file__).resolve().parent / "golden"
SAMPLES = 32_037


def golden(file: str) -> dict[str, Mels]:
    with np.load(GOLDEN / f"{file}.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def installed(name: str) -> Package:
    missing = PACKAGES[name].missing()
    if missing:
        pytest.skip(f"{missing} is not installed: parity with it is NOT tested (its golden arrays are)")
    return PACKAGES[name]


def hold(implementation: str, package: Package, sound: str, pcm: Pcm, result: Mels, energies: Mels) -> None:
    spec, ours = LogMelSpec.preset(package.preset), IMPLEMENTATIONS[implementation]
    bound = package.energy_bound + ours.energy_error
    assert energy_error(ours.call(linear(spec), pcm), energies, spec.log_floor) <= bound
    tolerance = package.own_rounding.get(sound, RESULT_TOLERANCE)
    assert largest_difference(ours.call(spec, pcm), result) <= tolerance


@pytest.mark.parametrize("sound", SOUNDS)
@pytest.mark.parametrize("name", PACKAGES)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_preset_equals_what_its_package_returned(implementation: str, name: str, sound: str) -> None:
    pcm, arrays = golden("sounds")[sound], golden(name)
    result = arrays[f"{sound}.result"]
    hold(implementation, PACKAGES[name], sound, pcm, result, arrays.get(f"{sound}.energies", result))


@pytest.mark.parametrize("name", PACKAGES)
def test_a_preset_equals_its_package(name: str) -> None:
    package = installed(name)
    for sound, make in SOUNDS.items():
        pcm = make(SAMPLES)
        result, energies = package.result(pcm), package.energies(pcm)
        for implementation in IMPLEMENTATIONS:
            hold(implementation, package, sound, pcm, result, energies)


@pytest.mark.real_data
@pytest.mark.parametrize("name", PACKAGES)
def test_a_preset_equals_its_package_on_real_speech(name: str) -> None:
    package = installed(name)
    for pcm in real_speech():
        result, energies = package.result(pcm), package.energies(pcm)
        for implementation in IMPLEMENTATIONS:
            hold(implementation, package, "real speech", pcm, result, energies)


@pytest.mark.parametrize("name", PACKAGES)
def test_a_preset_makes_as_many_frames_as_its_package(name: str) -> None:
    package = installed(name)
    spec = LogMelSpec.preset(package.preset)
    for samples in (560, 639, 640, 641, 719, 720, 800, 1_599, 1_600, 1_601):
        assert spec.num_frames(samples) == len(package.result(SOUNDS["noise"](samples))), samples


# Each field that acts before the logarithm, changed; where a preset has that value already, there is nothing to notice.
ENERGY_CHANGES: list[dict[str, Any]] = [
    {"amplitude": "unit"},
    {"amplitude": "int16"},
    {"fft_length": 512},
    {"fft_length": 400},
    {"padding": "zeros"},
    {"padding": "reflect"},
    {"window": "povey"},
    {"window": "hann"},
    {"window": "hamming"},
    {"window": "rectangular"},
    {"window_periodic": True},
    {"window_periodic": False},
    {"remove_dc": True},
    {"remove_dc": False},
    {"preemphasis": 0.0},
    {"preemphasis": 0.97},
    {"preemphasis_over": "frame"},
    {"preemphasis_over": "utterance"},
    {"low_hz": 0.0},
    {"low_hz": 20.0},
    {"high_hz": 7_600.0},
    {"mel_scale": "htk"},
    {"mel_scale": "slaney"},
    {"triangles": "mel"},
    {"triangles": "hz"},
    {"triangles": "hz_symmetric"},
    {"triangles": "bins"},
    {"mel_norm": "none"},
    {"mel_norm": "slaney"},
]
# And each that acts from there on. A floor far above the preset's, as only the quietest energies are near it.
RESULT_CHANGES: list[dict[str, Any]] = [
    {"log": "ln"},
    {"log": "log10"},
    {"log": "db"},
    {"log": "none"},
    {"log_floor": 1e-5},
    {"log_floor": 1e-5, "floor_mode": "clamp"},
    {"log_floor": 1e-5, "floor_mode": "add"},
    {"dynamic_range": None},
    {"dynamic_range": 0.01},
    {"output_offset": 0.5},
    {"output_scale": 2.0},
    {"normalize": "none"},
    {"normalize": "mean"},
    {"normalize": "mean_std"},
]


@pytest.mark.parametrize("name", PACKAGES)
def test_other_energies_would_be_noticed(name: str) -> None:
    package, arrays, sounds = PACKAGES[name], golden(name), golden("sounds")
    spec = linear(LogMelSpec.preset(package.preset))
    for change in ENERGY_CHANGES:
        other = dataclasses.replace(spec, **change)
        if other == spec or (spec.preemphasis == 0.0 and "preemphasis_over" in change):
            continue
        errors = []
        for sound in ("voiced", "noise", "square"):
            energies = arrays.get(f"{sound}.energies", arrays[f"{sound}.result"])
            if other.num_frames(len(sounds[sound])) != len(energies):
                errors.append(np.inf)
            else:
                ours = reference_log_mel(other, sounds[sound])
                errors.append(energy_error(ours, energies, spec.log_floor))
        assert max(errors) > 5 * package.energy_bound, change


@pytest.mark.parametrize("name", PACKAGES)
def test_another_logarithm_or_normalization_would_be_noticed(name: str) -> None:
    package, arrays, sounds = PACKAGES[name], golden(name), golden("sounds")
    spec = LogMelSpec.preset(package.preset)
    for change in RESULT_CHANGES:
        other = dataclasses.replace(spec, **change)
        if other == spec or (spec.log == "none" and "log_floor" in change):
            continue
        # The standard deviation divides by the unit of the logarithm too.
        if spec.normalize == "mean_std" and not change.keys().isdisjoint(
            ("log", "output_offset", "output_scale")
        ):
            continue
        differences = [
            largest_difference(reference_log_mel(other, sounds[sound]), arrays[f"{sound}.result"])
            for sound in ("voiced", "noise", "impulse")
        ]
        assert max(differences) > 5 * RESULT_TOLERANCE, change
