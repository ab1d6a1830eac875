"""Settings refuse what makes no sense, in one line, and import no torch."""

import subprocess
import sys

import pytest

from buttress.errors import SettingsError
from buttress.training.settings import EngineSettings, OptimizerSettings, ScheduleSettings, TrainingSettings

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        (TrainingSettings, "epochs", 0),
        (TrainingSettings, "batch", -1),
        (TrainingSettings, "lr", 0.0),
        (TrainingSettings, "lr", NAN),
        (TrainingSettings, "lr", INF),
        (TrainingSettings, "seed", -1),
        (TrainingSettings, "precision", "fp64"),
        (TrainingSettings, "label_smoothing", 1.0),
        (OptimizerSettings, "clip_grad", -1.0),
        (TrainingSettings, "workers", -1),
        (TrainingSettings, "evaluate_every", 0),
        (EngineSettings, "checkpoint_every", 0),
        (EngineSettings, "checkpoint_minutes", NAN),
        (EngineSettings, "micro_batch", 0),
        (EngineSettings, "ema_decay", 1.0),
        (OptimizerSettings, "weight_decay", NAN),
        (OptimizerSettings, "momentum", 1.0),
        (ScheduleSettings, "name", "linear"),
        (ScheduleSettings, "warmup", 1.5),
        (ScheduleSettings, "min_lr", -1e-6),
    ],
)
def test_nonsense_is_refused_by_name_in_one_line(kind, key, value):
    with pytest.raises(SettingsError, match=rf"{key} = {value}: ") as told:
        kind(**{key: value})
    assert "\n" not in str(told.value)


def test_the_learning_rate_depends_on_where_the_weights_come_from():
    assert TrainingSettings().resolved(pretrained=False).lr == 1e-3
    assert TrainingSettings().resolved(pretrained=True).lr == 1e-4
    assert TrainingSettings(lr=0.5).resolved(pretrained=True).lr == 0.5


def test_settings_do_not_import_torch():
    code = "import sys, buttress.training.settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
