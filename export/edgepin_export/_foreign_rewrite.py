"""Bringing a foreign graph into a normal form: standard operators, one output, a free batch axis, folded constants."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import TensorProto, numpy_helper

from edgepin._errors import UsageError

OPSETS = (18, 20)
"""Without converting. 18 is what our own encoders have; ONNX Runtime 1.17 reads up to 20, and IR version 9."""
MAX_IR_VERSION = 9

_STANDARD = ("", "ai.onnx")


def standard(model: onnx.ModelProto, name: str) -> tuple[onnx.ModelProto, list[str]]:
    """The model without functions, in standard operators of opset 18 to 20 and an IR version that goes with them."""
    notes: list[str] = []
    if model.functions:
        from onnx import inliner

        model = inliner.inline_local_functions(model)
    strange = sorted(
        {f"{node.domain}.{node.op_type}" for node in _nodes(model.graph) if node.domain not in _STANDARD}
    )
    if strange:
        raise UsageError(
            f"{name} uses operators that are not standard ONNX: {', '.join(strange[:5])}",
            hint="give the model as it was before it was optimized for one runtime",
        )
    opset = max((entry.version for entry in model.opset_import if entry.domain in _STANDARD), default=0)
    wanted = min(max(opset, OPSETS[0]), OPSETS[1])
    if wanted != opset:
        from onnx import version_converter

        try:
            model = version_converter.convert_version(model, wanted)
        except Exception as error:  # the converter's errors share no base below Exception
            raise UsageError(
                f"{name} has opset {opset}, which cannot be brought to {wanted}: {first_line(error)}",
                hint="export it again with opset 18",
            ) from error
        notes.append(f"its opset {opset} was converted to {wanted}")
    if model.ir_version > MAX_IR_VERSION:
        notes.append(f"its IR version {model.ir_version} was lowered to {MAX_IR_VERSION}")
        model.ir_version = MAX_IR_VERSION
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", wanted))
    return model, notes


def free_batch(model: onnx.ModelProto, batch: int | None) -> None:
    """Names the first axis of every input and output N, and frees constant reshapes to that number of rows.

    Whether the graph then computes each row by itself is tested later, by running it.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.name not in constants and len(dims):
            dims[0].dim_param = "N"
    if batch is None:
        return
    for value in model.graph.output:
        for dim in value.type.tensor_type.shape.dim[1:]:
            dim.Clear()  # may follow from the rows, as where a window's rows are outputs
    model.graph.ClearField("value_info")
    shapes = {
        node.input[1] for node in model.graph.node if node.op_type == "Reshape" and not _allows_zero(node)
    }
    for name, tensor in _constant_tensors(model.graph):
        if name in shapes and tensor.data_type == TensorProto.INT64:
            shape = numpy_helper.to_array(tensor).copy()
            if shape.ndim == 1 and len(shape) and shape[0] == batch:
                shape[0] = 0  # Reshape: as in the input
                tensor.CopyFrom(numpy_helper.from_array(shape, tensor.name))


def _constant_tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Constants under the names by which nodes use them."""
    yield from ((tensor.name, tensor) for tensor in graph.initializer)
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    yield node.output[0], attribute.t


def _allows_zero(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "allowzero" and attribute.i for attribute in node.attribute)


def keep_only(model: onnx.ModelProto, output: str) -> None:
    """Removes what one output does not need: a classifier's head, scores, auxiliary embeddings."""
    graph = model.graph
    needed, kept = {output}, []
    for node in reversed(graph.node):  # ONNX lists nodes in an order of use
        if needed & set(node.output):
            needed |= {name for name in _uses(node) if name}
            kept.append(node)
    for field, items in (
        ("node", list(reversed(kept))),
        ("initializer", [tensor for tensor in graph.initializer if tensor.name in needed]),
        ("input", [value for value in graph.input if value.name in needed]),
        ("output", [value for value in graph.output if value.name == output]),
    ):
        copies = [type(item).FromString(item.SerializeToString()) for item in items]
        graph.ClearField(field)
        getattr(graph, field).extend(copies)
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]  # as before IR version 4
    copies = [type(value).FromString(value.SerializeToString()) for value in inputs]
    graph.ClearField("input")
    graph.input.extend(copies)


def _uses(node: onnx.NodeProto) -> Iterator[str]:
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _uses(inner)
            yield from (value.name for value in graph.output)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def folded(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The model after ONNX Runtime's basic rewriting, which stays in standard operators.

    It computes constants once and folds batch normalizations into convolutions, so that INT8 has whole layers to work
    on. Tensors are sorted by name after it: it writes them in no fixed order.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory(prefix="edgepin-") as folder:
        path = Path(folder) / "folded.onnx"
        options.optimized_model_filepath = str(path)
        try:
            onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors share no base below Exception
            raise UsageError(f"ONNX Runtime refuses {name}: {first_line(error)}") from error
        folded = onnx.load_model(path)
    if any(node.domain not in _STANDARD for node in _nodes(folded.graph)):
        _name_nodes(model.graph)
        return model
    opset = next(entry.version for entry in model.opset_import)
    del folded.opset_import[:]
    folded.opset_import.append(onnx.helper.make_opsetid("", opset))
    folded.ir_version = min(folded.ir_version, MAX_IR_VERSION)
    tensors = sorted(folded.graph.initializer, key=lambda tensor: tensor.name)
    copies = [TensorProto.FromString(tensor.SerializeToString()) for tensor in tensors]
    folded.graph.ClearField("initializer")
    folded.graph.initializer.extend(copies)
    _name_nodes(folded.graph)
    return folded


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Gives every node a name of its own: a quantizer speaks of layers by their names."""
    taken: set[str] = set()
    for number, node in enumerate(graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type.lower()}_{number}"
        while node.name in taken:
            node.name += "_"
        taken.add(node.name)


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
