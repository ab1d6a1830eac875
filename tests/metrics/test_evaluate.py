"""The whole evaluation: independent of the batches, of the module's mode, and honest about what counts."""

import numpy as np
import pytest
import torch
from torch import nn

from buttress.errors import ModelError, SourceError
from buttress.loading.targets import Batch
from buttress.metrics.evaluate import Evaluation, figures_of, predictions
from buttress.models.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(
    size=4, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), interpolation="bilinear", crop_pct=1.0
)
NAMES = ("a", "b", "c", "d", "e", "f")


def data(count=23, classes=6):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 4, 4), dtype=torch.uint8, generator=generator)
    return images, torch.randint(0, classes, (count,), generator=generator)


def batches(images, labels, size):
    names = [str(i) for i in range(len(images))]
    return [
        Batch(images[i : i + size], labels[i : i + size], tuple(names[i : i + size]))
        for i in range(0, len(images), size)
    ]


def loader(size):
    images, labels = data()
    return batches(images, labels, size)


def network(classes=6):
    torch.manual_seed(3)
    layers = [nn.Flatten(), nn.Linear(48, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, classes)]
    return nn.Sequential(*layers).train()


def evaluate(module, given, classes=NAMES, **options):
    said = predictions(module, given, preprocessing=PREPROCESSING, classes=len(classes), **options)
    return Evaluation.of(said, tuple(map(str, classes)))


def test_the_logits_are_those_of_the_normalised_images_in_evaluation_mode():
    images, labels = data()
    module = network()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    result = evaluate(module, batches(images, labels, 23))
    mean, std = (np.array(v).reshape(1, 3, 1, 1) for v in (PREPROCESSING.mean, PREPROCESSING.std))
    normal = torch.from_numpy((images.numpy() / 255 - mean) / std).float()
    expected = module.eval()(normal).detach().numpy()
    np.testing.assert_allclose(result.logits, expected, atol=1e-5)
    np.testing.assert_array_equal(result.labels, labels.numpy())
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_module_is_put_back(training):
    module = network().train(training)
    evaluate(module, loader(8))
    assert module.training is training


@pytest.mark.parametrize("size", [1, 2, 7, 22, 23, 100])
def test_figures_do_not_depend_on_the_batches(size):
    whole, cut = (evaluate(network(), loader(s)) for s in (23, size))
    assert cut.ids == whole.ids
    assert cut.figures["top1"] == whole.figures["top1"]
    assert cut.figures["top5"] == whole.figures["top5"]
    for name in ("nll", "ece"):
        assert cut.figures[name]["value"] == pytest.approx(whole.figures[name]["value"], abs=1e-6)
        assert cut.figures[name]["count"] == 23


def test_images_without_a_label_do_not_count():
    images, labels = data()
    some = labels.clone()
    some[[0, 5, 22]] = -1
    kept = some >= 0
    result = evaluate(network(), batches(images, some, 8))
    alone = evaluate(network(), batches(images[kept], labels[kept], 8))
    assert result.figures["top1"] == alone.figures["top1"]
    assert len(result.ids) == len(result.labels) == 20
    assert "5" not in result.ids


def test_saved_predictions_give_the_figures_again():
    result = evaluate(network(), loader(8))
    assert figures_of(result.logits, result.labels) == result.figures
    assert sum(b.count for b in result.reliability()) == 23


def test_top5_below_five_classes_has_no_value():
    images, labels = data(classes=3)
    result = evaluate(network(3), batches(images, labels, 8), classes=("a", "b", "c"))
    assert result.figures["top5"] == {"value": None, "count": 23, "low": None, "high": None}


def test_a_class_map_sums_the_classes_of_a_group_and_renormalises():
    images, labels = data(classes=2)
    result = evaluate(network(), batches(images, labels, 8), classes=("a", "b"), class_map=((4, 1), (0,)))
    full = evaluate(network(), batches(images, labels, 8)).logits.astype(np.float64)
    masses = np.exp(full)
    kept = np.stack([masses[:, 4] + masses[:, 1], masses[:, 0]], 1)
    told = np.exp(result.logits.astype(np.float64))
    np.testing.assert_allclose(told / told.sum(1, keepdims=True), kept / kept.sum(1, keepdims=True), atol=1e-6)


def test_another_number_of_classes_is_refused():
    with pytest.raises(ModelError, match="6 classes, the data 2; give a --class-map"):
        evaluate(network(), loader(8), classes=("a", "b"))
    with pytest.raises(ModelError, match="names class 6, the model has only 6"):
        evaluate(network(), loader(8), classes=("a", "b"), class_map=((6,), (0,)))


def test_logits_that_are_not_finite_name_the_image():
    module = network()
    images, labels = data()
    with torch.no_grad():
        module[-1].weight[2, 3] = float("nan")
    with pytest.raises(ModelError, match=r"^0: the model gives a logit that is not finite"):
        evaluate(module, batches(images, labels, 8))


@pytest.mark.parametrize("count", [0, 23])
def test_no_label_at_all_is_refused(count):
    images, _ = data()
    with pytest.raises(SourceError, match="no image has a label"):
        evaluate(network(), batches(images[:count], torch.full((count,), -1), 8))


def test_it_runs_without_tf32_and_puts_the_settings_back():
    seen = []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, images):
            seen.append((torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()))
            return self.inner(images)

    before = torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    try:
        evaluate(Spy(), loader(23))
        assert seen == [(False, "highest")]
        assert (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()) == (before, "high")
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_module_comes_back_from_the_gpu():
    module = network()
    on_gpu, on_cpu = (evaluate(module, loader(8), device=device).logits for device in ("cuda", "cpu"))
    assert next(module.parameters()).device.type == "cpu"
    np.testing.assert_allclose(on_gpu, on_cpu, atol=1e-5)
