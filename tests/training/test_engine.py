"""The loop: same bits after a resume, the protocol in its order, and stops that say why."""

import copy
import math
from typing import Any

import pytest
import timm
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.nn.utils import parametrize

from buttress.errors import TrainingError
from buttress.loading.targets import Batch
from buttress.training.checkpoints import newest_checkpoint
from buttress.training.compute import resolve_precision
from buttress.training.engine import fit
from buttress.training.optim import learning_rate
from buttress.training.rng import StepRng, seed_everything
from buttress.training.settings import EngineSettings, OptimizerSettings, ScheduleSettings, TrainingSettings

from .tiny import CLASSES, Folder, Loader, batch, network, update


def settings(**changed):
    return TrainingSettings(**{"epochs": 4, "batch": 4, "lr": 0.01, "precision": "fp32", **changed})


def train(path, asked=None, model=None, loader=None, **options):
    seed_everything(0)
    run = Folder(path)
    module = network() if model is None else model
    history = fit(module, loader or Loader(), asked or settings(), run=run, **options)
    return module, history, run


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Recorder:
    """A method that does nothing but tell when it is called."""

    def __init__(self, name="", passes=1):
        self.name, self.count, self.calls, self.drawn = name, passes, [], []

    def prepare(self, model):
        self.calls.append("prepare")

    def before_step(self, step, total_steps, generator):
        self.calls.append(f"before_step {step}/{total_steps}")
        self.drawn.append(torch.rand((), generator=generator).item())

    def passes(self, step):
        return [lambda i=i: self.calls.append(f"pass {i}") for i in range(self.count)]

    def auxiliary_loss(self, model):
        self.calls.append("auxiliary")

    def before_evaluation(self, model, images, *, last):
        self.calls.append("before_evaluation")

    def materialise(self, model):
        raise AssertionError("training does not materialise")


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize(("optimizer", "stop"), [("adamw", (2, 0)), ("sgd", (1, 1)), ("adamw", (3, 2))])
def test_a_resumed_training_gives_the_same_bits(tmp_path, soft, optimizer, stop):
    asked = settings(optimizer=OptimizerSettings(name=optimizer, clip_grad=1.0))
    straight, history, run = train(tmp_path / "a", asked, loader=Loader(soft=soft), val_loader=Loader(soft=False))
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "b", asked, loader=Loader(soft=soft, die_at=stop), val_loader=Loader(soft=False))
    torch.rand(17)
    resumed, again, second = train(
        tmp_path / "b", asked, loader=Loader(soft=soft), val_loader=Loader(soft=False), resume=True
    )
    assert same(straight.state_dict(), resumed.state_dict())
    assert same(run.weights, second.weights)
    assert again.step_losses == history.step_losses[stop[0] * 3 :]
    assert [(e.epoch, e.loss, e.lr, e.val) for e in again.epochs] == [
        (e.epoch, e.loss, e.lr, e.val) for e in history.epochs
    ]


def test_a_real_network_resumes_to_the_same_bits(tmp_path):
    def model():
        seed_everything(1)
        return timm.create_model("test_efficientnet", num_classes=CLASSES, drop_rate=0.2, drop_path_rate=0.2)

    class Images(Loader):
        def __iter__(self):
            for small in super().__iter__():
                yield Batch(small.images.repeat(1, 1, 6, 6), small.targets, small.ids)

    asked = settings(epochs=2)
    straight, _, _ = train(tmp_path / "a", asked, model(), Images())
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "b", asked, model(), Images(die_at=(1, 1)))
    resumed, _, _ = train(tmp_path / "b", asked, model(), Images(), resume=True)
    assert same(straight.state_dict(), resumed.state_dict())


def test_a_finished_training_resumes_to_itself(tmp_path):
    first, history, _ = train(tmp_path)
    again, told, run = train(tmp_path, resume=True)
    assert same(first.state_dict(), again.state_dict())
    assert same(first.state_dict(), run.weights)
    assert told.epochs == history.epochs
    assert told.step_losses == []


def test_the_step_is_the_textbook_step(tmp_path):
    """A bare loop of torch, written again, gives the same weights."""
    schedule = ScheduleSettings(warmup=0.5)
    asked = settings(epochs=2, optimizer=OptimizerSettings(name="sgd", weight_decay=0.0), schedule=schedule)
    model, history, _ = train(tmp_path, asked)
    seed_everything(0)
    bare = network().train()
    optimizer = torch.optim.SGD(bare.parameters(), lr=1.0, momentum=0.9, nesterov=True)
    losses, chance = [], StepRng(0, rank=0)
    for step in range(6):
        chance.seed(step)
        optimizer.param_groups[0]["lr"] = learning_rate(step, 6, 0.01, schedule)
        losses.append(update(bare, optimizer, 1000 * (step // 3) + step % 3))
    assert history.step_losses == pytest.approx(losses, rel=1e-4)
    for name, value in bare.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_the_loss_goes_down(tmp_path):
    class Same(Loader):
        def __iter__(self):
            yield from (batch(7, soft=True) for _ in range(self.steps_per_epoch))

    _, history, _ = train(tmp_path, settings(epochs=30, lr=0.05), loader=Same())
    assert history.epochs[-1].loss < history.epochs[0].loss / 2


def test_every_epoch_is_told(tmp_path):
    loader = Loader()
    _, history, run = train(tmp_path, loader=loader, val_loader=Loader(2, soft=False))
    assert loader.epochs == [0, 1, 2, 3]
    assert [line["epoch"] for line in run.lines] == [1, 2, 3, 4]
    assert [line["step"] for line in run.lines] == [3, 6, 9, 12]
    assert run.lines[1]["loss"] == pytest.approx(sum(history.step_losses[3:6]) / 3)
    assert run.lines[3]["val"]["top1"]["count"] == 8
    assert len(history.step_losses) == 12


def test_evaluation_and_checkpoints_come_as_often_as_asked_and_at_the_end(tmp_path):
    asked = settings(epochs=5, evaluate_every=2, engine=EngineSettings(checkpoint_every=3))
    _, history, _ = train(tmp_path, asked, val_loader=Loader(soft=False))
    assert [e.val is not None for e in history.epochs] == [False, True, False, True, True]
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-00000009", "step-00000015"]


def test_the_protocol_is_called_in_its_order(tmp_path):
    method = Recorder(passes=2)
    train(tmp_path, settings(epochs=2), loader=Loader(1), methods=(method,), val_loader=Loader(soft=False))
    step = ["pass 0", "pass 1", "auxiliary", "before_evaluation"]
    assert method.calls == ["prepare", "before_step 0/2", *step, "before_step 1/2", *step]


def test_without_val_data_the_methods_are_told_once_before_the_end(tmp_path):
    method = Recorder()
    train(tmp_path, settings(epochs=3), methods=(method,))
    assert method.calls.count("before_evaluation") == 1
    assert method.calls[-1] == "before_evaluation"


def test_a_method_that_does_nothing_changes_nothing(tmp_path):
    plain, _, _ = train(tmp_path / "a")
    other, _, _ = train(tmp_path / "b", methods=(Recorder(), Recorder()))
    assert same(plain.state_dict(), other.state_dict())


def test_passes_of_several_methods_are_combined_and_summed(tmp_path):
    asked = settings(epochs=1, optimizer=OptimizerSettings(name="sgd", weight_decay=0.0))

    def model():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(108, CLASSES))

    methods = (Recorder(passes=2), Recorder(passes=3))
    start: Any = model()
    one, once, _ = train(tmp_path / "a", asked, model(), Loader(1))
    other, six, _ = train(tmp_path / "b", asked, model(), Loader(1), methods=methods)
    torch.testing.assert_close(other[1].weight - start[1].weight, 6 * (one[1].weight - start[1].weight))
    assert six.step_losses[0] == pytest.approx(once.step_losses[0], rel=1e-6), "what is told is of one pass"


def test_what_a_method_draws_is_the_same_after_a_resume(tmp_path):
    straight, before, after = Recorder(), Recorder(), Recorder()
    train(tmp_path / "a", methods=(straight,))
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "b", loader=Loader(die_at=(2, 0)), methods=(before,))
    train(tmp_path / "b", methods=(after,), resume=True)
    assert straight.drawn == before.drawn + after.drawn


class Line(Recorder):
    """A line of weights: `start + where * along`, two passes at both ends, and a pull on its length."""

    class Point(nn.Module):
        where: Tensor

        def __init__(self, weight):
            super().__init__()
            self.along = nn.Parameter(torch.full_like(weight, 0.01))
            self.register_buffer("where", torch.zeros(()), persistent=False)

        def forward(self, weight):
            return weight + self.where * self.along

    def prepare(self, model):
        self.point = self.Point(model[6].weight)
        parametrize.register_parametrization(model[6], "weight", self.point)

    def passes(self, step):
        return [lambda: self.point.where.fill_(0.0), lambda: self.point.where.fill_(1.0)]

    def auxiliary_loss(self, model):
        return self.point.along.square().sum()


def test_a_weight_method_trains_every_coordinate_and_resumes(tmp_path):
    """The second pass sees its own weights, not the cached ones of the first: only so does `along` get a gradient."""
    model, history, run = train(tmp_path / "a", methods=(Line(),))
    assert model[6].parametrizations.weight[0].along.std() > 1e-3
    assert "6.parametrizations.weight.0.along" in run.weights
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "b", loader=Loader(die_at=(2, 1)), methods=(Line(),))
    resumed, again, _ = train(tmp_path / "b", methods=(Line(),), resume=True)
    assert same(model.state_dict(), resumed.state_dict())
    assert again.step_losses == history.step_losses[6:]


def test_an_auxiliary_loss_counts(tmp_path):
    class Constant(Recorder):
        def auxiliary_loss(self, model):
            return 0 * model[6].bias.sum() + 10

    _, plain, _ = train(tmp_path / "a", settings(epochs=1), loader=Loader(1))
    _, more, _ = train(tmp_path / "b", settings(epochs=1), loader=Loader(1), methods=(Constant(),))
    assert more.step_losses[0] == pytest.approx(plain.step_losses[0] + 10)


def test_other_settings_or_data_do_not_resume(tmp_path):
    train(tmp_path)
    with pytest.raises(TrainingError, match=r"other settings: lr \(0\.01 there, 0\.02 asked for\)"):
        train(tmp_path, settings(lr=0.02), resume=True)
    with pytest.raises(TrainingError, match=r"steps_per_epoch \(3 there, 2 asked for\)"):
        train(tmp_path, loader=Loader(2), resume=True)


def test_checkpoints_are_not_overwritten_unasked(tmp_path):
    train(tmp_path)
    with pytest.raises(TrainingError, match="holds checkpoints of an earlier training; add --resume"):
        train(tmp_path)


def test_a_resume_with_nothing_there_starts_at_the_beginning(tmp_path, capsys):
    plain, _, _ = train(tmp_path / "a")
    resumed, _, _ = train(tmp_path / "b", resume=True)
    assert same(plain.state_dict(), resumed.state_dict())
    assert "no whole checkpoint, training starts at the first epoch" in capsys.readouterr().err


@pytest.mark.parametrize(("value", "told"), [(math.nan, "nan"), (math.inf, "nan|inf")])
def test_a_loss_that_is_not_finite_stops_with_step_and_ids(tmp_path, value, told):
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.steps = network(), 0

        def forward(self, images):
            self.steps += 1
            return self.inner(images) + (value if self.steps == 5 else 0)

    run = Folder(tmp_path)
    with pytest.raises(TrainingError, match=rf"^step 4: the loss is ({told}) on 1001-0, 1001-1, 1001-2, 1001-3; "):
        fit(Broken(), Loader(soft=False), settings(), run=run)
    assert run.weights is None
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000003"]


def test_nothing_to_train_on(tmp_path):
    with pytest.raises(TrainingError, match="no full batch of 4 images"):
        train(tmp_path, loader=Loader(0))

    class Unreadable(Loader):
        def __iter__(self):
            yield from ()

    with pytest.raises(TrainingError, match="epoch 1: no image could be read"):
        train(tmp_path, loader=Unreadable())


def test_bf16_trains_in_bf16_and_is_evaluated_in_fp32(tmp_path):
    seen = []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, images):
            logits = self.inner(images)
            seen.append((self.training, logits.dtype))
            return logits

    model, history, _ = train(tmp_path, settings(epochs=2, precision="bf16"), Spy(), val_loader=Loader(soft=False))
    assert set(seen) == {(True, torch.bfloat16), (False, torch.float32)}
    assert seen[3][0] is False
    assert seen[6] == (True, torch.bfloat16)
    assert all(value.dtype != torch.bfloat16 for value in model.state_dict().values())
    assert all(math.isfinite(loss) for loss in history.step_losses)
    assert model(torch.zeros(1, 3, 6, 6)).dtype == torch.float32
    copy.deepcopy(model)


def test_precisions_may_follow_one_another(tmp_path):
    first, _, _ = train(tmp_path / "a")
    train(tmp_path / "b", settings(precision="bf16"))
    again, _, _ = train(tmp_path / "c")
    assert same(first.state_dict(), again.state_dict())


def test_the_module_comes_back_in_evaluation_mode_and_channels_last(tmp_path):
    model, _, _ = train(tmp_path)
    assert not model.training
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_the_gradient_is_clipped(tmp_path):
    asked = settings(epochs=1, optimizer=OptimizerSettings(name="momentum", weight_decay=0, momentum=0, clip_grad=1e-3))
    before = network().state_dict()
    model, _, _ = train(tmp_path, asked, loader=Loader(1))
    moved = [(model.state_dict()[name] - before[name]).square().sum() for name, _ in model.named_parameters()]
    assert math.sqrt(sum(moved)) == pytest.approx(0.01 * 1e-3, rel=1e-2)


def test_the_accelerate_state_of_the_caller_is_kept_where_it_fits(tmp_path, monkeypatch):
    resets = []
    train(tmp_path / "a")
    mine = Accelerator(mixed_precision="no")
    monkeypatch.setattr(AcceleratorState, "_reset_state", lambda *_: resets.append(1))
    train(tmp_path / "b")
    assert (resets, mine.mixed_precision) == ([], "no")


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16"), (False, "fp32")])
def test_emulated_bf16_is_not_chosen(monkeypatch, native, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
    assert resolve_precision("auto") == expected
    assert resolve_precision("fp32") == "fp32"


def test_a_batch_too_small_for_batch_normalisation_is_told(tmp_path):
    class Single(Loader):
        def __iter__(self):
            yield batch(0, soft=True)
            yield batch(1, soft=True, count=1)

    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 8), nn.BatchNorm1d(8), nn.Linear(8, CLASSES))
    with pytest.raises(
        TrainingError,
        match=r"^step 1: a batch of 1 image is too small .* raise --batch, --engine.micro_batch or --size",
    ):
        train(tmp_path, model=model, loader=Single(2))


def test_other_value_errors_of_a_model_stay_as_they_are(tmp_path):
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, images):
            raise ValueError("mine")

    with pytest.raises(ValueError, match=r"^mine$"):
        train(tmp_path, model=Broken())


def test_tensorboard_is_told_what_the_metrics_file_is(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, _, run = train(
        tmp_path, settings(engine=EngineSettings(trackers=["tensorboard"])), val_loader=Loader(2, soft=False)
    )
    (events,) = run.path.glob("buttress/events.out.tfevents.*")  # a second file deeper holds the settings
    told = EventAccumulator(str(events.parent)).Reload()
    lines = run.lines
    assert len(lines) == 4
    for tag, key in (("train/loss", "loss"), ("train/lr", "lr")):
        assert [(each.step, each.value) for each in told.Scalars(tag)] == [
            (line["step"], pytest.approx(line[key])) for line in lines
        ]
    assert [each.value for each in told.Scalars("val/top1")] == [
        pytest.approx(line["val"]["top1"]["value"]) for line in lines
    ]


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    """The loss of the update before was finite, its gradient was not: a root at 0."""

    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.square = network(), nn.Parameter(torch.zeros(1, 1))

        def forward(self, images):
            return self.inner(images) + self.square.sqrt()

    asked = settings(engine=EngineSettings(checkpoint_minutes=0))
    with pytest.raises(TrainingError, match=r"square is not finite any more, so it is not saved"):
        train(tmp_path, asked, model=Root())
    assert newest_checkpoint(tmp_path / "checkpoints") is None


def test_accumulation_asked_for_by_the_environment_scales_no_gradient(tmp_path, monkeypatch):
    plain, _, _ = train(tmp_path / "plain")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    again, _, _ = train(tmp_path / "again")
    assert same(plain.state_dict(), again.state_dict())
