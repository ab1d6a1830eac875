"""What trackers (TensorBoard, W&B, MLflow) are told, in their own terms."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from buttress.errors import SettingsError
from buttress.training.history import EpochResult
from buttress.training.settings import TrainingSettings

PACKAGES = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "wandb": ("wandb",),
    "mlflow": ("mlflow", "mlflow-skinny"),
}
PROJECT = "buttress"  # name of the trackers' project, and of the folder that tensorboard fills


def require_trackers(settings: TrainingSettings) -> None:
    """Raises: SettingsError, where a tracker is not installed."""
    for tracker in settings.engine.trackers:
        if not any(map(_installed, PACKAGES[tracker])):
            raise SettingsError(
                f"engine.trackers = {tracker}: it is not installed here; pip install {tracker}, or leave it out"
            )


def _installed(package: str) -> bool:
    try:
        version(package)  # a folder of that name in the working directory is none
    except PackageNotFoundError:
        return False
    return True


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> plain value."""
    values: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            values |= flat(value, f"{prefix}{key}.")
        else:
            values[prefix + key] = value if isinstance(value, bool | int | float | str) else str(value)
    return values


def scalars(result: EpochResult) -> dict[str, float]:
    """The figures of an epoch by the tags that they are shown under."""
    scored = {} if result.val is None else result.val
    values = {f"val/{name}": one["value"] for name, one in scored.items() if one["value"] is not None}
    return {"train/loss": result.loss, "train/lr": result.lr, **values}
