"""Palettes in ONNX graphs, against naive loops; small, folded at load, and only standard operations."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from buttress.export.onnx_palettes import PLANES, packed_plane, planes_of, store_palettes  # noqa: E402
from buttress.models.packed import Palettised  # noqa: E402


def a_palette(shape, *, axis=0, bits=2, dim=1, groups=1, scaled=False, seed=0):
    rng = torch.Generator().manual_seed(seed)
    numbers = int(np.prod(shape)) // groups
    return Palettised(
        shape=tuple(shape),
        axis=axis,
        bits=bits,
        indices_GN=torch.randint(0, 2**bits, (groups, numbers // dim), generator=rng).to(torch.uint8),
        lut_GKD=torch.randn(groups, 2**bits, dim, generator=rng),
        scale_O=torch.rand(shape[axis], generator=rng) + 0.5 if scaled else None,
        left_GT=torch.randn(groups, numbers % dim, generator=rng),
    )


def naive(palette):
    """Place by place: which number of which group it is, so which row of which table."""
    groups, _, dim = palette.lut_GKD.shape
    channels = palette.shape[palette.axis]
    in_group = channels // groups
    others = [size for axis, size in enumerate(palette.shape) if axis != palette.axis]
    weight = np.zeros(palette.shape, np.float32)
    for position, other in enumerate(product(*map(range, others))):
        for channel in range(channels):
            group, number = channel // in_group, position * in_group + channel % in_group
            row, along = divmod(number, dim)
            if row < palette.indices_GN.shape[1]:
                value = palette.lut_GKD[group, int(palette.indices_GN[group, row]), along].numpy()
                if palette.scale_O is not None:
                    value = value * palette.scale_O[group * in_group + number % in_group].numpy()
            else:
                value = palette.left_GT[group, number - palette.indices_GN.shape[1] * dim].numpy()
            weight[(*other[: palette.axis], channel, *other[palette.axis :])] = value
    return weight


def a_graph(weight, *, as_input=False):
    """`out = weight x factor`, the weight an initializer or an input."""
    shaped = [helper.make_tensor_value_info("weight", TensorProto.FLOAT, weight.shape)] if as_input else []
    graph = helper.make_graph(
        [helper.make_node("Mul", ["weight", "factor"], ["out"])],
        "graph",
        [helper.make_tensor_value_info("factor", TensorProto.FLOAT, [1]), *shaped],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, weight.shape)],
        [] if as_input else [numpy_helper.from_array(weight, "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def unpacked(model):
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"factor": np.ones(1, np.float32)})[0]


@settings(max_examples=60)
@given(data=st.data())
def test_a_weight_comes_out_as_its_palette_says(data):
    groups, in_group = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5))
    others = data.draw(st.lists(st.integers(1, 4), max_size=3))
    axis = data.draw(st.integers(0, len(others)))
    shape = [*others[:axis], groups * in_group, *others[axis:]]
    dim = data.draw(st.integers(1, min(4, int(np.prod(shape)) // groups)))
    palette = a_palette(
        shape, axis=axis, bits=data.draw(st.integers(1, 8)), dim=dim, groups=groups, scaled=data.draw(st.booleans())
    )
    model = a_graph(np.zeros(shape, np.float32), as_input=data.draw(st.booleans()))
    store_palettes(model, {"weight": palette})
    assert [each.name for each in model.graph.input] == ["factor"]
    np.testing.assert_array_equal(unpacked(model), naive(palette))


def test_planes_are_the_bits_of_a_number():
    assert [planes_of(bits) for bits in range(1, 9)] == [(1,), (2,), (2, 1), (4,), (4, 1), (4, 2), (4, 2, 1), (8,)]
    indices = np.array([3, 0, 2, 1, 3], np.uint8)
    assert packed_plane(indices, 0, 2).tolist() == [0b01_10_00_11, 0b11]
    assert packed_plane(indices, 1, 1).tolist() == [0b10101]
    assert packed_plane(indices, 0, 8).tolist() == indices.tolist()
    assert packed_plane(indices, 0, 4).tolist() == [0x03, 0x12, 0x03]


@pytest.mark.parametrize("bits", range(1, 9))
def test_the_graph_holds_b_bits_for_each_weight(bits):
    shape = (64, 32, 3, 3)
    palette = a_palette(shape, bits=bits)
    model = a_graph(np.zeros(shape, np.float32))
    store_palettes(model, {"weight": palette})
    numbers = int(np.prod(shape))
    assert model.ByteSize() < numbers * bits / 8 + 4 * 2**bits + 1500
    assert sum(bits & plane for plane in PLANES) == bits


def test_onnx_runtime_unpacks_at_load(tmp_path):
    palette = a_palette((8, 6, 3), bits=3, dim=2, groups=2, scaled=True)
    model = a_graph(np.zeros((8, 6, 3), np.float32))
    store_palettes(model, {"weight": palette})
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "folded.onnx")
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    assert [node.op_type for node in onnx.load(tmp_path / "folded.onnx").graph.node] == ["Mul"]


def test_several_weights_share_a_graph_and_a_name_must_be_there():
    left, right = a_palette((6, 4), bits=2), a_palette((6, 4), bits=5, seed=1)
    model = a_graph(np.zeros((6, 4), np.float32), as_input=True)
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((6, 4), np.float32), "other"))
    model.graph.node.append(helper.make_node("Add", ["out", "other"], ["both"]))
    model.graph.output[0].name = "both"
    with pytest.raises(KeyError, match="nothing"):
        store_palettes(model, {"nothing": left})
    store_palettes(model, {"weight": left, "other": right})
    np.testing.assert_array_equal(unpacked(model), naive(left) + naive(right))
