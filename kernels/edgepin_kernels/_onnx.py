"""The log-mel as ONNX: a model of its own, or in front of a voice encoder.

It is a node `LogMel` of the domain `edgepin`, with input `pcm` and output `log_mel`, in one of three forms:

- ``function``: the node, and in the model the function that says in plain operators what it is. Any runtime that
  knows functions runs it; one that has an operator or plugin of this name may take that instead.
- ``inlined``: the plain operators in the node's place, for runtimes and compilers that know no functions.
- ``node``: the node alone. Without a plugin this model does not load, where ``function`` would quietly run slower.

The node's attributes are what a TensorRT plugin needs: ``plugin_version`` and ``plugin_namespace``, by which TensorRT
finds it; ``spec``, the whole `LogMelSpec` as JSON with its keys in order; and the spec's tables, so that nobody has to
define windows and mels a second time: ``window`` (frame_length floats), ``mel_firsts`` and ``mel_counts`` (num_mels
whole numbers) and ``mel_weights`` (floats, mel after mel), as `MelTable` has them. Whether samples are int16 or float32
is the type of the node's input.

What to know before building an engine of these models: TensorRT has no int16 tensors, so that it needs
``samples="float32"``; and it may compute a convolution of float32 in TF32, whose 10 bits are far too few for a
spectrum, so that its builder's TF32 flag has to be cleared.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal, get_args

from edgepin_kernels._onnx_body import LogMelBody
from edgepin_kernels._spec import LogMelSpec
from edgepin_kernels._tables import mel_table, scaled_window

if TYPE_CHECKING:
    from onnx import AttributeProto, FunctionProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

OnnxForm = Literal["function", "inlined", "node"]
OnnxSamples = Literal["int16", "float32"]

_SOURCE, _TARGET, _PREFIX = "pcm", "log_mel", "log_mel/"
_DOMAIN, _DOMAIN_VERSION, _OPERATOR = "edgepin", 1, "LogMel"
_PLUGIN_VERSION, _PLUGIN_NAMESPACE = "1", "edgepin"

# Since 18 the reductions take their axes as an input. Nothing that is used here has changed its meaning since.
_OPSETS = range(18, 26)
# The oldest IR that has functions; opset 18 goes with it.
_IR_VERSION = 8


def log_mel_onnx(
    spec: LogMelSpec, *, samples: OnnxSamples = "int16", form: OnnxForm = "function", opset: int = 18
) -> ModelProto:
    """The log-mel as a model. The same arguments give the same model, byte for byte.

    Its input is ``pcm`` ``(N, samples)``, its output ``log_mel`` float32 ``(N, frames, mels)`` with
    ``spec.num_frames(samples)`` frames; ``N`` and ``samples`` are free. It does not check samples as `LogMel` does:
    fewer than ``spec.min_samples`` are an error of the runtime, but none at all, where ``spec`` pads with zeros and
    keeps the last frame, are a frame of silence.

    It computes in float32. In ONNX Runtime mel energies are within 1e-5 of the frame's largest from
    `reference_log_mel`, unless ``spec`` keeps a far louder offset below its mels; digital silence is the floor exactly.
    The logarithm of a mel is the less exact the fainter it is beside the loudest of its frame.

    Args:
        spec: what to compute.
        samples: ``"int16"``, or ``"float32"`` with full scale 1.
        form: ``"function"``, ``"inlined"`` or ``"node"``, as above.
        opset: version of the standard operators, 18 to 25.

    Raises:
        ImportError: the `onnx` package is not installed.
        TypeError: ``spec`` is not a `LogMelSpec`.
        ValueError: an argument is not allowed, or the frames are so long that the matrix of their transform does
            not fit into an ONNX model (2 GiB).
    """
    _check(spec, samples, form, opset)
    from onnx import TensorProto, helper

    pcm = helper.make_tensor_value_info(_SOURCE, _element_type(samples), ["N", "samples"])
    log_mel = helper.make_tensor_value_info(_TARGET, TensorProto.FLOAT, ["N", "frames", spec.num_mels])
    model = helper.make_model(
        helper.make_graph([], "edgepin_log_mel", [pcm], [log_mel]),
        ir_version=helper.find_min_ir_version_for([helper.make_opsetid("", opset)]),
        opset_imports=[helper.make_opsetid("", opset)],
        producer_name="edgepin",
    )
    return _put_in_front(model, spec, samples, form, opset)


def prepend_log_mel(
    encoder: ModelProto, spec: LogMelSpec, *, samples: OnnxSamples = "int16", form: OnnxForm = "function"
) -> ModelProto:
    """A voice encoder that takes samples: a copy of ``encoder`` with its log-mel in front.

    The encoder's own nodes and weights stay as they are.

    Args:
        encoder: a model with an input ``log_mel``, float32 ``(N, frames, mels)``; its other inputs and all its
            outputs are kept. Its opset is 18 to 25.
        spec: what it was trained on.
        samples: ``"int16"``, or ``"float32"`` with full scale 1: the new input ``pcm`` ``(N, samples)``.
        form: ``"function"``, ``"inlined"`` or ``"node"``, as above.

    Raises:
        ImportError: the `onnx` package is not installed.
        TypeError: ``spec`` is not a `LogMelSpec`.
        ValueError: as for `log_mel_onnx`; or the encoder has no such input, another number of mels or another
            opset, or uses a name that the front-end needs.
    """
    opset = max(
        (entry.version for entry in encoder.opset_import if entry.domain in ("", "ai.onnx")), default=0
    )
    _check(spec, samples, form, opset)
    _check_names(encoder)
    from onnx import ModelProto, helper

    names = [value.name for value in encoder.graph.input]
    if _TARGET not in names:
        raise ValueError(f"the encoder must have an input {_TARGET!r}; it has: {', '.join(names) or 'none'}")
    at = names.index(_TARGET)
    log_mel = encoder.graph.input[at]
    _check_log_mel(log_mel, spec)

    model = ModelProto()
    model.CopyFrom(encoder)
    model.ir_version = max(model.ir_version, _IR_VERSION)
    pcm = helper.make_tensor_value_info(_SOURCE, _element_type(samples), ["N", "samples"])
    batch = log_mel.type.tensor_type.shape.dim[0]
    if batch.WhichOneof("value"):
        pcm.type.tensor_type.shape.dim[0].CopyFrom(batch)
    model.graph.input[at].CopyFrom(pcm)
    # It is an inner value now; without this nothing would say what the node alone gives.
    model.graph.value_info.append(log_mel)
    return _put_in_front(model, spec, samples, form, opset)


def _put_in_front(
    model: ModelProto, spec: LogMelSpec, samples: OnnxSamples, form: OnnxForm, opset: int
) -> ModelProto:
    """Completes ``model``, which has ``pcm`` as its input and nothing yet that computes ``log_mel``."""
    from onnx import checker, helper

    if form == "inlined":
        body = LogMelBody(spec, samples, _SOURCE, _TARGET, prefix=_PREFIX)
        nodes = body.nodes
        model.graph.initializer.extend(body.constants)
    else:
        nodes = [_node(spec)]
        if all(entry.domain != _DOMAIN for entry in model.opset_import):
            model.opset_import.append(helper.make_opsetid(_DOMAIN, _DOMAIN_VERSION))
    if form == "function":
        model.functions.append(_function(spec, samples, opset))
    own = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *own])
    checker.check_model(model, full_check=True)
    return model


def _node(spec: LogMelSpec) -> NodeProto:
    from onnx import helper

    node = helper.make_node(_OPERATOR, [_SOURCE], [_TARGET], _TARGET, domain=_DOMAIN)
    node.attribute.extend(_attributes(spec))
    return node


def _attributes(spec: LogMelSpec) -> list[AttributeProto]:
    """In the order of their names."""
    from onnx import AttributeProto, helper

    table = mel_table(spec)
    values = {
        "mel_counts": (AttributeProto.INTS, table.counts.tolist()),
        "mel_firsts": (AttributeProto.INTS, table.firsts.tolist()),
        # None at all, if every mel lies between two bins: then the type has to be said.
        "mel_weights": (AttributeProto.FLOATS, table.weights.tolist()),
        "plugin_namespace": (AttributeProto.STRING, _PLUGIN_NAMESPACE),
        "plugin_version": (AttributeProto.STRING, _PLUGIN_VERSION),
        "spec": (AttributeProto.STRING, json.dumps(spec.to_json(), sort_keys=True, separators=(",", ":"))),
        "window": (AttributeProto.FLOATS, scaled_window(spec, 1.0).tolist()),
    }
    return [helper.make_attribute(name, value, attr_type=kind) for name, (kind, value) in values.items()]


def _function(spec: LogMelSpec, samples: OnnxSamples, opset: int) -> FunctionProto:
    """What the node is, for this spec and these samples: the node's attributes tell plugins, not this."""
    from onnx import helper

    body = LogMelBody(spec, samples, _SOURCE, _TARGET)
    # A function has no initializers.
    constants = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in body.constants]
    return helper.make_function(
        _DOMAIN,
        _OPERATOR,
        [_SOURCE],
        [_TARGET],
        [*constants, *body.nodes],
        [helper.make_opsetid("", opset)],
        attributes=[attribute.name for attribute in _attributes(spec)],
    )


def _element_type(samples: OnnxSamples) -> TensorProto.DataType:
    from onnx import TensorProto

    return TensorProto.INT16 if samples == "int16" else TensorProto.FLOAT


def _check(spec: object, samples: object, form: object, opset: int) -> None:
    if not isinstance(spec, LogMelSpec):
        raise TypeError(f"spec must be a LogMelSpec, not {type(spec).__name__}")
    for name, value, kind in (("samples", samples, OnnxSamples), ("form", form, OnnxForm)):
        if value not in get_args(kind):
            raise ValueError(f"{name} must be one of {', '.join(get_args(kind))}, not {value!r}")
    if opset not in _OPSETS:
        raise ValueError(f"opset must be {_OPSETS[0]} to {_OPSETS[-1]}, not {opset!r}")
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "models need the onnx package; the extra has it: pip install 'edgepin[export]'"
        ) from error


def _check_names(encoder: ModelProto) -> None:
    graph = encoder.graph
    values = {value.name for value in (*graph.input, *graph.initializer)}
    values.update(output for node in graph.node for output in node.output)
    taken = sorted(name for name in values if name == _SOURCE or name.startswith(_PREFIX))
    taken += [f"{_DOMAIN}.{_OPERATOR}" for function in encoder.functions if _is_log_mel(function)]
    if taken:
        raise ValueError(f"the encoder already uses the front-end's name {taken[0]!r}")


def _is_log_mel(function: FunctionProto) -> bool:
    return (function.domain, function.name) == (_DOMAIN, _OPERATOR)


def _check_log_mel(log_mel: ValueInfoProto, spec: LogMelSpec) -> None:
    from onnx import TensorProto

    tensor = log_mel.type.tensor_type
    if tensor.elem_type != TensorProto.FLOAT or len(tensor.shape.dim) != 3:
        raise ValueError(f"the encoder's {_TARGET} must be float32 (N, frames, mels)")
    mels = tensor.shape.dim[2]
    if mels.HasField("dim_value") and mels.dim_value != spec.num_mels:
        raise ValueError(f"the encoder takes {mels.dim_value} mels, and the spec makes {spec.num_mels}")
