"""The plugin's creator: fields by name, there and back, and refusals that say what is wrong."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import numpy as np
import pytest

from edgepin_kernels import LogMelSpec
from edgepin_kernels._presets import PRESETS

from ..cuda.test_cuda_log_mel import OTHERS
from .trt_harness import BUILD, FIELD_TYPES, RUNTIME, Field, PluginHarness, fields_of, text_field

SPECS = {**PRESETS, **OTHERS}


def with_spec(**changes: object) -> Callable[[list[Field]], list[Field]]:
    """Other values in the JSON, as no LogMelSpec would have them."""

    def change(fields: list[Field]) -> list[Field]:
        data = json.loads(bytes(field_named(fields, "spec").values[:-1]))
        for key, value in changes.items():
            if value is ...:
                del data[key]
            else:
                data[key] = value
        return replaced(fields, text_field("spec", json.dumps(data)))

    return change


def field_named(fields: list[Field], name: str) -> Field:
    return next(field for field in fields if field.name == name)


def replaced(fields: list[Field], new: Field) -> list[Field]:
    return [new if field.name == new.name else field for field in fields]


def with_values(name: str, values: list[float]) -> Callable[[list[Field]], list[Field]]:
    def change(fields: list[Field]) -> list[Field]:
        old = field_named(fields, name)
        return replaced(fields, dataclasses.replace(old, values=np.array(values, old.values.dtype)))

    return change


def with_text(text: str) -> Callable[[list[Field]], list[Field]]:
    return lambda fields: replaced(fields, text_field("spec", text))


def without(name: str) -> Callable[[list[Field]], list[Field]]:
    return lambda fields: [field for field in fields if field.name != name]


def test_the_creator_is_found_by_what_the_node_says(trt: PluginHarness) -> None:
    kind, name, version, namespace, *fields = trt.library.test_creator().decode().split("|")
    assert (kind, name, version, namespace) == ("PLUGIN CREATOR_V3ONE", "LogMel", "1", "edgepin")
    assert sorted(fields) == sorted(f"{field.name}:{field.type}" for field in fields_of(LogMelSpec()))


@pytest.mark.parametrize("name", SPECS)
def test_a_plugin_from_an_engine_is_the_one_that_was_built_into_it(trt: PluginHarness, name: str) -> None:
    built = trt.plugin(SPECS[name])
    kept = built.fields()
    assert {field.name: field.values.tobytes().rstrip(b"\0") for field in kept} == {
        field.name: field.values.tobytes().rstrip(b"\0") for field in fields_of(SPECS[name])
    }
    loaded = trt.create(kept, RUNTIME)
    assert loaded is not None
    assert [field.data for field in loaded.fields()] == [field.data for field in kept]
    assert loaded.identity() == built.identity()
    assert built.identity()[:3] == ["LogMel", "1", "edgepin"]
    assert LogMelSpec.from_json(json.loads(built.identity()[3])) == SPECS[name]
    copy = loaded.clone()
    assert copy is not None
    assert [field.data for field in copy.fields()] == [field.data for field in kept]


def test_fields_may_come_in_any_order_and_with_others_between(trt: PluginHarness) -> None:
    fields = [Field("alien", np.zeros(3, np.int32), 5), *reversed(fields_of(LogMelSpec()))]
    assert trt.create(fields, BUILD) is not None


def test_an_engine_s_fields_may_lie_on_any_address(trt: PluginHarness) -> None:
    fields = []
    for field in fields_of(LogMelSpec()):
        raw = np.zeros(field.values.nbytes + 1, np.uint8)
        raw[1:] = np.frombuffer(field.values.tobytes(), np.uint8)
        fields.append(dataclasses.replace(field, values=raw[1:].view(field.values.dtype)))
    assert trt.create(fields, RUNTIME) is not None


REFUSED: dict[str, tuple[Callable[[list[Field]], list[Field]], str]] = {
    "no spec": (without("spec"), "the attribute spec is missing"),
    "no window": (without("window"), "the attribute window is missing; write the graph anew"),
    "no weights": (without("mel_weights"), "the attribute mel_weights is missing"),
    "a field twice": (lambda fields: [*fields, fields[0]], "is there twice"),
    "another type": (
        lambda fields: replaced(fields, Field("window", np.zeros(400, np.int32), FIELD_TYPES["INTS"])),
        "the attribute window is of another type",
    ),
    "no JSON": (with_text("kaldi"), "the JSON has no {"),
    "cut short": (with_text('{"log":"ln"'), "the JSON has no }"),
    "text behind": (with_text("{} {}"), "text behind the object"),
    "an escape": (with_text('{"a":"\\u0041"}'), "a string with an escape"),
    "nested": (with_text('{"a":[1]}'), "no finite number"),
    "infinite": (with_text('{"a":inf}'), "no finite number"),
    "a key twice": (with_text('{"a":1,"a":1}'), "the key a twice"),
    "a key is missing": (with_spec(log=...), "spec: log is missing"),
    "a key is unknown": (with_spec(dither=0.1), "spec: this plugin does not know dither"),
    "another transform": (with_spec(fft_length=511), "transforms of 400 and 512 points, not of 511"),
    "a long transform": (with_spec(fft_length=1024), "spec: fft_length is out of range"),
    "a frame longer than the transform": (with_spec(frame_length=513), "spec: frame_length is out of range"),
    "half a sample": (with_spec(hop_length=160.5), "spec: hop_length is not a whole number"),
    "no hop": (with_spec(hop_length=0), "spec: hop_length is out of range"),
    "too many mels": (with_spec(num_mels=257), "spec: num_mels is out of range"),
    "an unknown choice": (with_spec(normalize="median"), "spec: normalize is a choice that this plugin"),
    "a number for a boolean": (with_spec(remove_dc=1), "spec: remove_dc is not a boolean"),
    "a dropped frame": (with_spec(drop_last_frame=True), "spec: drop_last_frame without padding"),
    "no floor": (with_spec(log_floor=0.0), "spec: log_floor is out of range"),
    "a short window": (with_values("window", [1.0] * 399), "window has 399 values for a frame of 400"),
    "too few mels": (with_values("mel_firsts", [1.0] * 79), "one value for each of 80 mels"),
    "a mel before the spectrum": (with_values("mel_firsts", [-1.0] * 80), "beyond the spectrum"),
    "a mel with the bin of the mean": (with_values("mel_firsts", [0.0] * 80), "beyond the spectrum"),
    "a mel behind the spectrum": (with_values("mel_firsts", [257.0] * 80), "beyond the spectrum"),
    "a mel of nothing and less": (with_values("mel_counts", [-1.0] * 80), "beyond the spectrum"),
    "a mel of too much": (with_values("mel_counts", [2.0**31 - 1] * 80), "beyond the spectrum"),
    "too few weights": (with_values("mel_weights", [0.5]), "mel_weights has 1 values, and mel_counts says"),
}


@pytest.mark.parametrize("phase", [BUILD, RUNTIME])
@pytest.mark.parametrize("name", REFUSED)
def test_a_node_that_the_kernel_cannot_take_is_refused_with_the_reason(
    trt: PluginHarness, name: str, phase: int
) -> None:
    change, message = REFUSED[name]
    assert trt.create(change(fields_of(LogMelSpec())), phase) is None
    log = trt.log()
    assert log.startswith("1 edgepin LogMel, createPlugin: ")
    assert message in log
    assert len(log.splitlines()) == 1
