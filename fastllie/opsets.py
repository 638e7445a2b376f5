"""ONNX of opset 18, as torch's exporter writes it, in the words of older opsets.

The converter that comes with onnx knows no way back for `Pad`, of which every network has some. What the
networks hold changed little from 13 to 18: settings that older opsets lack are at their defaults, and axes
were an attribute.
"""

from collections.abc import Callable
from typing import Any

WRITTEN = 18  # by the exporter
OLDEST = 13
# operator -> (the opset that brought it, attribute, the value that means what was before)
_SETTINGS: dict[str, list[tuple[int, str, Any]]] = {
    "AveragePool": [(19, "dilations", [1, 1])],
    "BatchNormalization": [(14, "training_mode", 0)],
    "Cast": [(19, "saturate", 1)],
    "Reshape": [(14, "allowzero", 0)],
    "Resize": [
        (18, "antialias", 0),
        (18, "keep_aspect_ratio_policy", b"stretch"),
    ],
}
_REDUCTIONS = {"ReduceMax", "ReduceMin", "ReduceMean"}  # ReduceSum had axes as an input in 13
_REDUCED, _PADDED, _SPLIT, _SHAPED = 18, 18, 18, 15  # the opsets that changed them


def lowered(model: Any, opset: int) -> Any:
    """The model in an opset of 13 to 17, which onnx then checks.

    Raises:
        ValueError: an operator or a setting that this opset does not have; the message says the least.
    """
    why, least = "", WRITTEN
    for version in range(opset, WRITTEN):
        try:
            made = _lowered(model, version)
        except _NewerError as error:
            why = why or str(error)
            continue
        if version == opset:
            return made
        least = version
        break
    raise ValueError(f"opset {opset} cannot hold this network: {why}; the least that can is {least}")


class _NewerError(ValueError):
    """What an opset does not have."""


def _lowered(model: Any, opset: int) -> Any:
    import onnx

    made = onnx.ModelProto()
    made.CopyFrom(model)
    constants = {entry.name: onnx.numpy_helper.to_array(entry) for entry in made.graph.initializer}
    for node in made.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
    nodes = list(made.graph.node)
    del made.graph.node[:]
    for node in nodes:
        change = _CHANGES.get(node.op_type)
        new = [node] if change is None else change(node, opset, constants)
        made.graph.node.extend(new)
    for entry in made.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = opset
    # what older readers take: the version of the format that came with the opset
    made.ir_version = onnx.helper.find_min_ir_version_for(made.opset_import)
    try:
        onnx.checker.check_model(made)
    except onnx.checker.ValidationError as error:
        raise _NewerError(str(error).strip().split("\n")[0]) from error
    return made


def _drop(node: Any, opset: int, constants: Any) -> list[Any]:
    for since, name, default in _SETTINGS[node.op_type]:
        found = [entry for entry in node.attribute if entry.name == name]
        if not found or opset >= since:
            continue
        value = list(found[0].ints) if isinstance(default, list) else found[0].s or found[0].i
        if value != default:
            raise _NewerError(f"{node.op_type} with {name}={value}")
        node.attribute.remove(found[0])
    return [node]


def _reduce(node: Any, opset: int, constants: Any) -> list[Any]:
    """Axes are an attribute again."""
    if opset >= _REDUCED:
        return [node]
    import onnx

    kept = [entry for entry in node.attribute if entry.name == "keepdims"]
    if len(node.input) > 1 and node.input[1]:
        if node.input[1] not in constants:
            raise _NewerError(f"{node.op_type} over axes that are computed")
        kept.append(onnx.helper.make_attribute("axes", [int(axis) for axis in constants[node.input[1]]]))
    del node.attribute[:]
    del node.input[1:]
    node.attribute.extend(kept)
    return [node]


def _pad(node: Any, opset: int, constants: Any) -> list[Any]:
    if opset < _PADDED and len(node.input) > 3:
        if node.input[3]:
            raise _NewerError("Pad along axes that are named")
        del node.input[3]
    return [node]


def _split(node: Any, opset: int, constants: Any) -> list[Any]:
    """Without a list of lengths older opsets split equally, as `num_outputs` does where that is possible."""
    if opset < _SPLIT:
        for entry in [entry for entry in node.attribute if entry.name == "num_outputs"]:
            node.attribute.remove(entry)
    return [node]


def _shape(node: Any, opset: int, constants: Any) -> list[Any]:
    """A part of the shape is cut from the whole."""
    part = {entry.name: entry.i for entry in node.attribute if entry.name in ("start", "end")}
    if opset >= _SHAPED or not part:
        return [node]
    import onnx

    name, whole = node.output[0], f"{node.output[0]}_whole"
    bounds = {"starts": part.get("start", 0), "ends": part.get("end", 2**31)}
    held = [
        onnx.helper.make_node(
            "Constant",
            [],
            [f"{name}_{key}"],
            value=onnx.helper.make_tensor(key, onnx.TensorProto.INT64, [1], [value]),
        )
        for key, value in bounds.items()
    ]
    return [
        onnx.helper.make_node("Shape", node.input, [whole], name=node.name),
        *held,
        onnx.helper.make_node("Slice", [whole, f"{name}_starts", f"{name}_ends"], [name]),
    ]


_CHANGES: dict[str, Callable[[Any, int, Any], list[Any]]] = {
    **dict.fromkeys(_SETTINGS, _drop),
    **dict.fromkeys(_REDUCTIONS, _reduce),
    "Pad": _pad,
    "Split": _split,
    "Shape": _shape,
}
