"""Palettes inside an ONNX graph: a weight as packed indices and tables, unpacked by standard operations.

Indices of b bits are stored as planes of 8, 4, 2 and 1 bits that sum to b (5 = 4 + 1, the low bits in the first plane),
so that no index crosses a byte; in a plane, index i is in byte i // n, counted from the least significant bits, where n
is how many fit into a byte. All operations have constant inputs: a runtime that folds constants unpacks once, at load.

Shapes: G groups; N rows of a group; K entries of a table; D numbers in a row; T numbers that are left over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

    from buttress.models.packed import Palettised

PLANES = (8, 4, 2, 1)


def store_palettes(model: ModelProto, palettes: Mapping[str, Palettised]) -> None:
    """Replace weights of a graph, in place, by the palettes that they are made of.

    Args:
        model: opset 18 or later; it is not checked again.
        palettes: by the name of an initializer, or of an input of the graph, which becomes none.

    Raises:
        KeyError: the graph has no weight of such a name.
    """
    graph = model.graph
    nodes: list[NodeProto] = []
    shared: dict[str, TensorProto] = {}
    for number, (name, palette) in enumerate(palettes.items()):
        held = [
            (list_of, each) for list_of in (graph.initializer, graph.input) for each in list_of if each.name == name
        ]
        if not held:
            raise KeyError(name)
        for list_of, each in held:
            list_of.remove(each)
        builder = _Builder(name, f"palette{number}", shared)
        builder.weight(palette)
        nodes += builder.nodes
        graph.initializer.extend(builder.constants)
    graph.initializer.extend(shared.values())
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])


def planes_of(bits: int) -> tuple[int, ...]:
    """The planes of indices of 1..8 bits, in the order of their bits."""
    return tuple(plane for plane in PLANES if bits & plane)


def packed_plane(indices_N: NDArray[np.uint8], low: int, plane: int) -> NDArray[np.uint8]:
    """The bits `low` to `low + plane` of every index, uint8 [ceil(N / (8 / plane))]."""
    in_a_byte = 8 // plane
    padded = np.pad(indices_N, (0, -len(indices_N) % in_a_byte))
    part = padded.reshape(-1, in_a_byte) >> low & (2**plane - 1)
    shifted = part << (np.arange(in_a_byte) * plane).astype(np.uint8)
    packed: NDArray[np.uint8] = np.bitwise_or.reduce(shifted, axis=1).astype(np.uint8)
    return packed


class _Builder:
    """The nodes and constants of one weight.

    Args:
        name: of the weight, with which the names of its own constants begin.
        short: with which the names between its nodes begin.
        shared: constants of all weights, by name; what is missing is added.
    """

    def __init__(self, name: str, short: str, shared: dict[str, TensorProto]) -> None:
        self.name, self.short, self.shared = name, short, shared
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def weight(self, palette: Palettised) -> None:
        """Everything, down to the tensor of the weight's name."""
        groups, entries, dim = palette.lut_GKD.shape
        rows = palette.indices_GN.shape[1]
        channels, left = palette.shape[palette.axis], palette.left_GT.shape[1]
        places = self._indices(palette.indices_GN.numpy().reshape(-1), palette.bits)
        if groups > 1:  # the tables stand one behind the other
            first = np.arange(groups, dtype=np.int32)[:, None] * entries
            places = self._node("Add", self._shaped(places, (groups, rows)), self._constant("first", first))
        table = palette.lut_GKD.numpy().reshape(groups * entries, dim)
        value = self._node("Gather", self._constant("lut", table if dim > 1 else table[:, 0]), places)
        if palette.scale_O is not None:
            scale = self._scale(palette.scale_O.numpy().reshape(groups, -1), rows * dim)
            value = self._node("Mul", self._shaped(value, (groups, rows * dim)), scale)
        if left:
            value = self._shaped(value, (groups, rows * dim))
            value = self._node("Concat", value, self._constant("left", palette.left_GT.numpy()), axis=1)
        if groups > 1:
            value = self._shaped(value, (groups, -1, channels // groups))
            value = self._node("Transpose", value, perm=[1, 0, 2])
        at_end = [axis for axis in range(len(palette.shape)) if axis != palette.axis] + [palette.axis]
        value = self._shaped(value, tuple(palette.shape[axis] for axis in at_end))
        self._node("Transpose", value, perm=[at_end.index(axis) for axis in range(len(at_end))], output=self.name)

    def _indices(self, indices_N: NDArray[np.uint8], bits: int) -> str:
        """int32 [N]."""
        low, joined = 0, ""
        for plane in planes_of(bits):
            part = self._plane(packed_plane(indices_N, low, plane), plane, len(indices_N))
            if low:
                up = self._node("BitShift", part, self._integers(low, dtype=np.uint8), direction="LEFT")
                joined = self._node("BitwiseOr", joined, up)
            else:
                joined = part
            low += plane
        return self._node("Cast", joined, to=6)  # int32

    def _plane(self, packed: NDArray[np.uint8], plane: int, count: int) -> str:
        """uint8 [N]."""
        if plane == 8:
            return self._constant("indices8", packed)
        shifts = range(0, 8, plane)
        stored = self._constant(f"indices{plane}", packed[:, None])
        spread = self._node("BitShift", stored, self._integers(*shifts, dtype=np.uint8), direction="RIGHT")
        masked = self._node("BitwiseAnd", spread, self._integers(2**plane - 1, dtype=np.uint8))
        flat = self._shaped(masked, (-1,))
        if len(packed) * len(shifts) == count:
            return flat
        return self._node("Slice", flat, self._integers(0), self._integers(count))

    def _scale(self, scale_GO: NDArray[np.floating[Any]], numbers: int) -> str:
        """[G, numbers]: the scales of a group, again and again."""
        times = -(-numbers // scale_GO.shape[1])
        scale = self._constant("scale", scale_GO)
        tiled = self._node("Tile", scale, self._integers(1, times))
        if times * scale_GO.shape[1] == numbers:
            return tiled
        ends = self._integers(0), self._integers(numbers), self._integers(1)
        return self._node("Slice", tiled, *ends)

    def _shaped(self, value: str, shape: tuple[int, ...]) -> str:
        return self._node("Reshape", value, self._integers(*shape))

    def _integers(self, *values: int, dtype: type[np.integer[Any]] = np.int64) -> str:
        name = f"{dtype.__name__}/{','.join(map(str, values))}"
        if name not in self.shared:
            self.shared[name] = _tensor(name, np.array(values, dtype))
        return name

    def _constant(self, what: str, value: NDArray[Any]) -> str:
        name = f"{self.name}/{what}"
        self.constants.append(_tensor(name, value))
        return name

    def _node(self, operation: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        from onnx import helper

        output = output or f"{self.short}/{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, list(inputs), [output], **attributes))
        return output


def _tensor(name: str, value: NDArray[Any]) -> TensorProto:
    from onnx import numpy_helper

    return numpy_helper.from_array(np.ascontiguousarray(value), name)
