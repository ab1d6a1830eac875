"""What models cost: layers counted by hand, a clock that is told, and models that come back as they were."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from buttress.errors import ModelError
from buttress.metrics.cost import measure, onnx_runtime, variants
from buttress.metrics.cost.counts import multiply_accumulates, parameter_count, peak_activations, unseen_operations
from buttress.metrics.cost.measure import Cost, Timing, measure_cost
from buttress.metrics.cost.timing import RUNS, WARM_UP, median_of, seconds_of
from buttress.models.load import LoadedModel
from buttress.models.preprocessing import Preprocessing
from buttress.terminal import Progress

SIDE = 8
CPU = torch.device("cpu")
FLOAT = 4  # bytes


def loaded(module: nn.Module, size: int = SIDE) -> LoadedModel:
    return LoadedModel(
        module=module,
        preprocessing=Preprocessing(size=size, mean=(0, 0, 0), std=(1, 1, 1), interpolation="bicubic", crop_pct=1),
        classes=None,
        uri="timm:tiny",
        weights_sha256=None,
        licence=None,
        pretrained=False,
        name="tiny",
        kwargs={"num_classes": 5},
    )


def tiny() -> nn.Sequential:
    """3x8x8 -> 4x8x8 -> depthwise 4x4x4 -> 5."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4),
        nn.Flatten(),
        nn.Linear(64, 5),
    )


def image(size: int = SIDE) -> Tensor:
    return torch.zeros(1, 3, size, size)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few runs of everything, and no package for ONNX whatever is installed."""
    monkeypatch.setattr("buttress.metrics.cost.timing.LEAST_SECONDS", 0.0)
    monkeypatch.setattr(onnx_runtime, "PACKAGES", ("onnx_that_is_not_there", "onnxscript_neither"))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        self.out.weight = self.into.weight

    def forward(self, images: Tensor) -> Tensor:
        said: Tensor = self.out(self.into(images.mean(dim=(2, 3))))
        return said


def test_tied_weights_count_once_and_their_products_twice():
    assert parameter_count(Tied()) == 9
    assert multiply_accumulates(Tied(), image()) == 18


def test_multiply_accumulates_of_layers_counted_by_hand():
    by_hand = 4 * 8 * 8 * 3 * 9 + 4 * 4 * 4 * 9 + 64 * 5
    assert multiply_accumulates(tiny().eval(), image()) == by_hand


@torch.inference_mode()
@pytest.mark.parametrize("fused", [True, False])
def test_transformer_layers_of_torch_count_as_their_parts(fused):
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True).eval()
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(fused)
    try:
        with torch.inference_mode():
            counted = multiply_accumulates(layer, torch.zeros(1, 5, 8))
        assert torch.backends.mha.get_fastpath_enabled() == fused
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    projections, attention, feed_forward = 5 * 8 * (3 * 8 + 8), 2 * 5 * 5 * 8, 2 * 5 * 8 * 16
    assert counted == projections + attention + feed_forward


class Recurrent(nn.Module):
    """Rows of the image, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3 * SIDE, 2, batch_first=True)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        rows: Tensor = self.lstm(images_BCHW.permute(0, 2, 1, 3).flatten(2))[0]
        return rows[:, -1]


def test_recurrent_layers_cannot_be_counted():
    assert measure_cost(loaded(Recurrent()), weights_file=None, batch=2).figures()["macs"]["value"] is None


def test_known_models():
    # Its paper rounds them to 300 M (Sandler et al. 2018, table 4).
    module = timm.create_model("mobilenetv2_100").eval()
    assert multiply_accumulates(module, image(224)) == by_shapes(module, image(224)) == 300_774_272
    assert parameter_count(module) == 3_504_872
    vit = timm.create_model("test_vit").eval()
    tokens, width, layers = 101, 64, 6  # 10 x 10 patches of 16 pixels and one for the class
    attention = layers * 2 * tokens * tokens * width
    assert multiply_accumulates(vit, image(160)) == by_shapes(vit, image(160)) + attention


def by_shapes(module: nn.Module, images: Tensor) -> int:
    """Output numbers of each convolution and linear layer times what each of them is summed from."""
    found: list[int] = []

    def seen(layer: Any, _: Any, out: Tensor) -> None:
        found.append(out.numel() * layer.weight[0].numel())

    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(seen)
    module(images)
    for layer in module.modules():
        layer._forward_hooks.clear()
    return sum(found)


@torch.inference_mode()
def test_operations_without_a_count_are_named():
    names = unseen_operations(tiny().eval(), image())
    assert any("batch_norm" in name for name in names)
    assert "relu" in names
    assert not {"convolution", "addmm", "view", "empty"} & set(names)


@torch.inference_mode()
def test_peak_of_a_chain():
    # The caller holds the image; the widest moment is when the middle layer has read 8 channels and written 16.
    chain = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 16, 1), nn.Conv2d(16, 2, 1)).eval()
    assert peak_activations(chain, image()) == (3 + 8 + 16) * SIDE * SIDE * FLOAT


@torch.inference_mode()
def test_peak_counts_what_is_kept_and_not_what_is_reused():
    pixels = SIDE * SIDE * FLOAT

    class Kept(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            first = images + 1
            second = first * 2
            return first + second

    assert peak_activations(Kept(), image()) == 4 * 3 * pixels
    in_place = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(inplace=True), nn.Flatten(), nn.Unflatten(1, (8, SIDE, SIDE)))
    assert peak_activations(in_place.eval(), image()) == (3 + 8) * pixels
    copied = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU())
    assert peak_activations(copied.eval(), image()) == (3 + 8 + 8) * pixels


def test_counts_are_the_same_each_time_and_nothing_is_left_behind(tmp_path):
    module = tiny().to(memory_format=torch.channels_last).train()
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"1234567")
    before = {
        name: (tensor.clone(), tensor.stride(), tensor.data_ptr()) for name, tensor in module.state_dict().items()
    }
    costs = [measure_cost(loaded(module), weights_file=weights, batch=2) for _ in range(2)]
    fixed = [
        {name: told for name, told in cost.figures().items() if name not in ("latency", "throughput")} for cost in costs
    ]
    assert fixed[0] == fixed[1]
    assert {name: told["value"] for name, told in fixed[0].items()} == {
        "parameters": 3 * 4 * 9 + 4 + 8 + 4 * 9 + 4 + 64 * 5 + 5,
        "bytes": 7,
        "macs": 7808,
        "peak_memory": (3 + 4 + 4) * SIDE * SIDE * FLOAT,
    }
    assert module.training
    for name, tensor in module.state_dict().items():
        values, stride, place = before[name]
        assert torch.equal(tensor, values)
        assert (tensor.stride(), tensor.data_ptr()) == (stride, place)
    assert all(parameter.requires_grad and not parameter.is_inference() for parameter in module.parameters())
    module(torch.ones(2, 3, SIDE, SIDE)).sum().backward()


def test_channels_last_is_what_runs_and_contiguous_what_comes_back():
    module = tiny()
    weight: Any = module[0].weight
    with variants.channels_last(module, CPU, SIDE) as way:
        assert way.memory_format is torch.channels_last
        assert next(module.parameters()) is weight
        assert weight.is_contiguous(memory_format=torch.channels_last)
        assert not weight.is_contiguous()
    assert weight.is_contiguous()


def test_every_variant_and_batch_has_its_line():
    cost = measure_cost(loaded(tiny()), weights_file=None, batch=4)
    lines = json.loads(json.dumps(cost.details()))
    assert [(line["variant"], line["batch"]) for line in lines] == list(
        itertools.product(("eager", "channels_last", "onnxruntime", "compiled"), (1, 4))
    )
    for line in lines[:4]:
        assert line["not_measured"] is None
        assert line["agrees"] is True
        assert line["difference"] < 1e-5
        assert line["threads"] == torch.get_num_threads()
        assert line["device"].strip()
        seconds = line["seconds"]
        assert seconds["count"] >= RUNS
        assert 0 < seconds["low"] <= seconds["value"] <= seconds["high"]
    for line in lines[4:]:
        asked = line["variant"] == "onnxruntime"
        assert ("pip install onnx_that_is_not_there onnxscript_neither" if asked else "--compiled") in line[
            "not_measured"
        ]
        assert line["seconds"] == {"value": None, "count": 0, "low": None, "high": None}
        assert line["agrees"] is None
    assert cost.figures()["bytes"]["value"] is None


def test_latency_and_throughput_are_those_of_eager():
    def timing(variant: str, batch: int, *runs: float) -> Timing:
        return Timing(variant=variant, batch=batch, threads=1, device="a", runs=runs)

    cost = Cost(
        parameters=1,
        bytes=None,
        macs=1,
        unseen=(),
        peak_memory=1,
        timings=(timing("eager", 1, 1.0, 2.0, 9.0), timing("eager", 8, 4.0, 2.0, 1.0), timing("channels_last", 8, 0.1)),
    )
    figures = cost.figures()
    assert figures["latency"]["value"] == 2.0
    assert figures["throughput"]["value"] == 4.0
    assert figures["throughput"]["low"] == pytest.approx(2.2)
    assert figures["throughput"]["high"] == pytest.approx(7.6)


class Units(Progress):
    def __init__(self) -> None:
        self.done = 0

    def advance(self, count: int = 1) -> None:
        self.done += count


def told_clock(seconds: Callable[[], float]) -> Callable[[], float]:
    """A clock by which each run takes what `seconds` says."""
    times = (moment for start in itertools.count(0.0, 100.0) for moment in (start, start + seconds()))
    return lambda: next(times)


@pytest.mark.parametrize(
    ("each", "warm_up", "runs"),
    [(0.2, WARM_UP, RUNS), (0.01, WARM_UP, 50), (0.0001, WARM_UP, 200), (1.5, 2, 2), (60.0, 1, 1)],
)
def test_how_many_runs(each: float, warm_up: int, runs: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("buttress.metrics.cost.timing.LEAST_SECONDS", 0.499999)
    calls, units = [], Units()
    taken = seconds_of(lambda: calls.append(1), CPU, bar=units, clock=told_clock(lambda: each))
    assert (len(calls), len(taken)) == (warm_up + runs, runs)
    assert units.done == WARM_UP + RUNS


def test_the_warm_up_is_not_timed():
    lengths: Iterator[float] = itertools.chain([2.9, 0.01, 0.01], itertools.repeat(0.25))
    taken = seconds_of(lambda: None, CPU, bar=Progress(), clock=told_clock(lambda: next(lengths)))
    assert max(taken) == pytest.approx(0.25)


def test_two_runs_have_no_percentiles():
    assert median_of((1.0, 3.0)) == {"value": 2.0, "count": 2, "low": None, "high": None}
    assert median_of(tuple(float(value) for value in range(101))) == {"value": 50, "count": 101, "low": 5, "high": 95}


def test_a_variant_with_other_answers_says_so(capsys: pytest.CaptureFixture[str]):
    class Layout(nn.Module):
        """Answers by the memory format of its images."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 5, 1)

        def forward(self, images: Tensor) -> Tensor:
            said: Tensor = self.layer(images).mean(dim=(2, 3))
            return said if images.is_contiguous() else said + 0.5

    cost = measure_cost(loaded(Layout()), weights_file=None, batch=2)
    other = [timing for timing in cost.timings if timing.variant == "channels_last"]
    assert [timing.agrees for timing in other] == [False, False]
    assert other[0].difference == pytest.approx(0.5, abs=1e-3)
    assert "channels_last, batch 2: the logits differ from eager's by 0.5" in capsys.readouterr().err


def test_answers_that_are_not_finite_do_not_agree():
    bad = torch.tensor([[1.0, float("nan")]])
    assert measure._compared(bad, bad) == (None, False)
    assert measure._compared(torch.tensor([[5000.5]]), torch.tensor([[5000.0]])) == (0.5, True)
    assert measure._compared(torch.tensor([[0.002]]), torch.tensor([[0.0]]))[1] is False


def test_no_compiler_is_said_and_no_error(monkeypatch: pytest.MonkeyPatch):
    def compile_nothing(module: nn.Module, **_: Any) -> Callable[[Tensor], Tensor]:
        def run(images: Tensor) -> Tensor:
            raise RuntimeError("backend='inductor' raised:\nInvalidCxxCompiler: No working C++ compiler found")

        return run

    monkeypatch.setattr(torch, "compile", compile_nothing)
    cost = measure_cost(loaded(tiny()), weights_file=None, batch=2, compiled=True)
    said = {timing.batch: timing.not_measured for timing in cost.timings if timing.variant == "compiled"}
    assert said == dict.fromkeys((1, 2), "no compiler; install g++ or name one in CXX")


def test_a_batch_that_does_not_fit_is_said():
    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 5)

        def forward(self, images: Tensor) -> Tensor:
            if len(images) > 1:
                raise torch.OutOfMemoryError("tried to allocate")
            said: Tensor = self.layer(images.mean(dim=(2, 3)))
            return said

    cost = measure_cost(loaded(Small()), weights_file=None, batch=4)
    assert [timing.not_measured for timing in cost.timings[:2]] == [
        None,
        "a batch of 4 fails (OutOfMemoryError: tried to allocate)",
    ]
    assert cost.figures()["latency"]["value"] is not None
    assert cost.figures()["throughput"]["value"] is None


def test_the_batch_of_a_processor_follows_from_the_arithmetic():
    assert measure._batch(300_774_272, CPU) == 16
    assert measure._batch(859_736_272, CPU) == 8
    assert measure._batch(0, CPU) == 64
    assert measure._batch(10**12, CPU) == 1
    assert measure._batch(10**12, torch.device("cuda")) == 64


def test_a_model_that_takes_other_images_is_refused_in_one_line():
    with pytest.raises(
        ModelError, match=r"^timm:tiny: cannot run on one image, float32 \[1, 3, 16, 16\] .*"
    ) as failure:
        measure_cost(loaded(tiny(), size=16), weights_file=None)
    assert "\n" not in str(failure.value)


def test_a_model_without_logits_is_refused():
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 1)

        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            return images, images

    with pytest.raises(ModelError, match="gives a tuple; its cost needs logits"):
        measure_cost(loaded(Several()), weights_file=None)


def test_a_weights_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(ModelError, match="no such weights file"):
        measure_cost(loaded(tiny()), weights_file=tmp_path / "none.safetensors")


def test_an_export_that_fails_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch):
    def export(*_: Any, **__: Any) -> None:
        raise RuntimeError("Failed to export the model.\nThis is step 1/3") from ValueError("no such operator\nat all")

    monkeypatch.setattr(onnx_runtime, "PACKAGES", ())
    monkeypatch.setattr("torch.onnx.export", export)
    cost = measure_cost(loaded(tiny().train()), weights_file=None, batch=2)
    said = {timing.not_measured for timing in cost.timings if timing.variant == "onnxruntime"}
    assert said == {"torch.onnx.export fails (ValueError: no such operator)"}


def test_onnx_runtime_answers_as_eager_does(monkeypatch: pytest.MonkeyPatch):
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name)
    monkeypatch.setattr(onnx_runtime, "PACKAGES", ("onnx", "onnxruntime", "onnxscript"))
    cost = measure_cost(loaded(tiny()), weights_file=None, batch=4)
    by_onnx = [timing for timing in cost.timings if timing.variant == "onnxruntime"]
    assert [(timing.batch, timing.agrees, timing.not_measured) for timing in by_onnx] == [
        (1, True, None),
        (4, True, None),
    ]


def test_a_full_disk_costs_one_line_and_not_the_evaluation(monkeypatch: pytest.MonkeyPatch):
    def full(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(onnx_runtime, "find_spec", lambda _: True)
    monkeypatch.setattr(torch.onnx, "export", full)
    lines = measure_cost(loaded(tiny()), weights_file=None, batch=2).details()
    assert {"torch.onnx.export fails (OSError: No space left on device)"} == {
        line["not_measured"] for line in lines if line["variant"] == "onnxruntime"
    }
