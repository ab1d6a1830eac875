"""coremltools' own converter, in a fresh process, takes the buffers of palettes (Core ML itself runs on Macs alone)."""

import subprocess
import sys

CONVERT = """
import coremltools as ct
import numpy as np
import torch
from coremltools.optimize._utils import lut_to_dense
from torch import nn

from buttress.weights.build import create_method
from buttress.weights.dkm import coreml_buffers
from buttress.weights.settings import DkmSettings

torch.set_num_threads(1)


def rebuilt(op):
    lut = op.lut.val if op.lut.val is not None else op.lut.op.materialized_val_inference()
    return lut_to_dense(op.indices.val, lut, None if op.vector_axis is None else op.vector_axis.val)


for chosen in ({}, {"group_size": 4}, {"cluster_dim": 2}, {"per_channel_scale": True}):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.Flatten(), nn.Linear(192, 10)).eval()
    method = create_method(DkmSettings(bits=2, classifier_bits=2, min_weights=1, **chosen))
    method.prepare(model)
    buffers = coreml_buffers(model)
    method.materialise(model)
    weights = [layer.weight.detach().numpy().copy() for layer in (model[0], model[2], model[4])]
    for name, values in buffers.items():
        layer, _, buffer = name.rpartition("_COREML_/")
        model.get_submodule(layer.removesuffix(".")).register_buffer(f"_COREML_/{buffer}", values)
    image = torch.randn(1, 3, 8, 8)
    program = ct.convert(
        torch.jit.trace(model, image),
        inputs=[ct.TensorType(name="image", shape=image.shape)],
        convert_to="milinternal",
        minimum_deployment_target=ct.target.iOS18,
        compute_precision=ct.precision.FLOAT32,
    )
    palettes = [op for op in program.functions["main"].operations if op.op_type == "constexpr_lut_to_dense"]
    assert len(palettes) == len(weights), (chosen, len(palettes))
    assert all(op.indices.val.max() < 4 for op in palettes)
    for weight, op in zip(weights, palettes, strict=True):
        np.testing.assert_allclose(rebuilt(op), weight, atol=1e-6, err_msg=str(chosen))
print("converted")
"""


def test_the_converter_stores_every_palette_as_a_palette():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CONVERT], capture_output=True, text=True, check=False, timeout=250
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "converted"
