"""Checkpoints: folders that are whole or do not count. safetensors and JSON, nothing pickled.

`checkpoints/step-00000700/` holds the state after 700 updates: model.safetensors, optimizer.safetensors, where there is
a moving average ema.safetensors, and state.json with the place in the training, the other files' sizes and SHA-256, the
settings, the versions, and its own digest. It is written under a name that starts with a dot and renamed when
everything is on the disk. There is no state of chance in it: every draw is a function of (seed, step), rng.py.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from buttress.errors import TrainingError
from buttress.files import json_bytes, read_json, sha256_file, sync_folder, write_atomic, write_json
from buttress.versions import library_versions

FORMAT, VERSION = "buttress-checkpoint", 2
KEEP = 2  # the newest, and one before it should the disk damage the newest
BEFORE = ".before"  # ends the name of a checkpoint that one of the same step is about to replace
SHOWN = 40  # longest value that an error repeats
# What a resumed training may change, because the result stays: how it is computed, and where the data lies.
FREE_TO_CHANGE = frozenset(
    {"workers", "data.uri", "engine.checkpoint_every", "engine.checkpoint_minutes", "engine.trackers"}
)

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """How far a training has come: whole epochs, steps of the next, the losses of these, and a line per whole epoch."""

    epoch: int
    step: int
    losses: list[float]
    history: list[JSON]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingState:
    """What a checkpoint holds and gives back.

    Args:
        model: prepared by the methods.
        optimizer: of its parameters.
        average: the module that holds the moving average, or None.
        scaler: of the losses in fp16, or None.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: nn.Module | None = None
    scaler: torch.amp.GradScaler | None = None


def save_checkpoint(folder: Path, trained: TrainingState, place: Place, *, updates: int, settings: JSON) -> Path:
    """Save a state under `folder`, then remove all but the newest two.

    Args:
        folder: of the run's checkpoints.
        trained: the state.
        place: where in the training it is.
        updates: steps since the training began.
        settings: what must be the same for a resume.

    Raises:
        TrainingError: the optimizer keeps a state that safetensors and JSON cannot hold.
    """
    tensors, plain = _optimizer_parts(trained.optimizer)
    parts = {"model": _unique_tensors(trained.model), "optimizer": tensors}
    if trained.average is not None:
        parts["ema"] = _unique_tensors(trained.average)
    path, temporary = folder / f"step-{updates:08d}", folder / f".step-{updates:08d}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    files = {f"{name}.safetensors": _write_tensors(temporary / f"{name}.safetensors", t) for name, t in parts.items()}
    state = {"format": FORMAT, "version": VERSION, "updates": updates, "settings": settings, **asdict(place)}
    state |= {"files": files, "optimizer": plain, "versions": library_versions()}
    state["scaler"] = None if trained.scaler is None else trained.scaler.state_dict()
    write_json(temporary / "state.json", state | {"digest": _digest(state)})
    if path.exists():  # of a training that was to end before its epoch was scored: it counts until this one does
        os.rename(path, aside := path.with_name(f"{path.name}{BEFORE}"))
        os.rename(temporary, path)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        os.rename(temporary, path)
    sync_folder(folder)
    _prune(folder, updates)
    return path


def newest_checkpoint(folder: Path) -> tuple[Path, JSON] | None:
    """The newest whole checkpoint and its state.json; damaged and half-written ones do not count."""
    for *_, path in sorted(_steps(folder), reverse=True):
        state = _valid_state(path)
        if state is not None:
            return path, state
    return None


def load_checkpoint(path: Path, state: JSON, trained: TrainingState, *, new_settings: bool = False) -> Place:
    """Put a checkpoint's state into `trained`, and say how far it is.

    new_settings: leave the optimizer its own settings (weight decay, momentum) and give it the state alone.

    Raises:
        TrainingError: it belongs to another model.
    """
    for name, module in {"model": trained.model, "ema": trained.average}.items():
        if module is not None:
            _load_module(module, path, f"{name}.safetensors")
    _load_optimizer(trained.optimizer, load_file(path / "optimizer.safetensors"), state["optimizer"], new_settings)
    if trained.scaler is not None and state["scaler"] is not None:
        trained.scaler.load_state_dict(state["scaler"])
    return Place(**{field.name: state[field.name] for field in fields(Place)})


def _load_module(module: nn.Module, path: Path, file: str) -> None:
    live = _unique_tensors(module)
    if not (path / file).exists():
        raise TrainingError(f"{path}: has no {file}; resume with the engine.ema_decay that it was started with")
    stored = load_file(path / file)
    if {n: t.shape for n, t in stored.items()} != {n: t.shape for n, t in live.items()}:
        names = sorted(n for n in stored.keys() | live.keys() if n not in stored or n not in live) or ["a shape"]
        raise TrainingError(
            f"{path}: a checkpoint of another model (differs in {names[0]}); start in a new --out folder"
        )
    with torch.no_grad():
        for name, tensor in live.items():
            tensor.copy_(stored[name])


def differing_keys(stored: Mapping[str, Any], current: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted keys of settings that differ, but for those that do not change the result (FREE_TO_CHANGE)."""
    names: list[str] = []
    for key in sorted(stored.keys() | current.keys()):
        one, other = stored.get(key), current.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            names += differing_keys(one, other, f"{prefix}{key}.")
        elif one != other and prefix + key not in FREE_TO_CHANGE:
            names.append(prefix + key)
    return names


def require_same_settings(path: Path, stored: JSON, current: JSON) -> None:
    """Refuse to go on from a checkpoint, or a run, of other settings.

    Raises:
        TrainingError: naming every differing key, with both values where they are short.
    """
    names = differing_keys(stored, current)
    if names:
        told = ", ".join(name + _values(_at(stored, name), _at(current, name)) for name in names)
        raise TrainingError(
            f"{path}: was started with other settings: {told}; resume with the same, choose another --out, or, of "
            "buttress train and compress, add --other-settings to go on with these"
        )


def require_same_optimizer(path: Path, stored: JSON, current: JSON) -> None:
    """One optimizer cannot go on from the state of another.

    Raises:
        TrainingError: they differ.
    """
    there, asked = (settings["optimizer"]["name"] for settings in (stored, current))
    if there != asked:
        raise TrainingError(
            f"{path}: has the state of {there}, which {asked} cannot go on from; resume with --optimizer.name {there}, "
            "or choose another --out"
        )


def require_storable(optimizer: torch.optim.Optimizer) -> None:
    """Raises: TrainingError, where the optimizer keeps a state that safetensors and JSON cannot hold."""
    _optimizer_parts(optimizer)


def _at(settings: JSON, dotted: str) -> object:
    value: Any = settings
    for key in dotted.split("."):
        value = value.get(key, "absent")
    return value


def _values(there: object, asked: object) -> str:
    """Both values in brackets; nothing for a policy, say, whose text would fill the screen."""
    if not all(value is None or isinstance(value, bool | int | float | str) for value in (there, asked)):
        return ""
    return f" ({there} there, {asked} asked for)" if max(len(str(there)), len(str(asked))) <= SHOWN else ""


def _steps(folder: Path) -> list[tuple[int, bool, Path]]:
    """Number of updates and path of each checkpoint, and whether it is not the one before of the same step."""
    name = re.compile(rf"step-(\d{{8,}})({re.escape(BEFORE)})?")
    found = ((name.fullmatch(path.name), path) for path in folder.glob("step-*"))
    return [(int(match[1]), match[2] is None, path) for match, path in found if match]


def _prune(folder: Path, newest: int) -> None:
    older = sorted((step for step, whole, _ in _steps(folder) if whole and step < newest), reverse=True)
    keep = {newest, *older[: KEEP - 1]}
    gone = [path for step, whole, path in _steps(folder) if step not in keep or not whole]
    leftovers = [*folder.glob(".step-*.tmp"), *gone]
    for path in leftovers:
        shutil.rmtree(path, ignore_errors=True)


def _valid_state(path: Path) -> JSON | None:
    try:
        state = read_json(path / "state.json", TrainingError)
    except TrainingError:
        return None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        return None
    if (path / "state.json").read_bytes() != json_bytes(state):
        return None
    if _digest({key: value for key, value in state.items() if key != "digest"}) != state.get("digest"):
        return None
    if state["version"] != VERSION:
        raise TrainingError(
            f"{path}: checkpoint format {state['version']}, this Buttress reads {VERSION}; go on with the version that "
            "wrote it, or start in a new --out"
        )
    whole = all(_is_whole(path / name, entry) for name, entry in state["files"].items())
    return state if whole else None


def _is_whole(file: Path, entry: JSON) -> bool:
    return file.is_file() and file.stat().st_size == entry["bytes"] and sha256_file(file) == entry["sha256"]


def _digest(state: JSON) -> str:
    return hashlib.sha256(json_bytes(state)).hexdigest()


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> JSON:
    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    write_atomic(path, data)
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _unique_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The model's state; tied tensors once, under their first name."""
    unique: dict[tuple[Any, ...], tuple[str, Tensor]] = {}
    for name, tensor in model.state_dict().items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else (name,)
        unique.setdefault(place, (name, tensor))
    return dict(unique.values())


def _optimizer_parts(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], JSON]:
    """The optimizer's tensors and its plain values, each by `state.PARAMETER.key` or `group.GROUP.key`."""
    saved = optimizer.state_dict()
    places = [(f"state.{i}", entry) for i, entry in saved["state"].items()]
    places += [(f"group.{i}", entry) for i, entry in enumerate(saved["param_groups"])]
    flat = {f"{place}.{key}": value for place, entry in places for key, value in entry.items() if key != "params"}
    tensors = {name: value for name, value in flat.items() if isinstance(value, Tensor)}
    plain = {name: value for name, value in flat.items() if not isinstance(value, Tensor)}
    for name, value in plain.items():
        if not _is_plain(value):
            what = f"optimizer {type(optimizer).__name__} keeps a {type(value).__name__} ({name})"
            raise TrainingError(f"{what}, which a checkpoint cannot hold; choose another optimizer.name")
    return tensors, plain


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)


def _load_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], plain: JSON, new_settings: bool
) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    groups = optimizer.state_dict()["param_groups"]
    state: dict[int, JSON] = {}
    for name, value in {**plain, **tensors}.items():
        kind, number, key = name.split(".", 2)
        index = int(number)
        if kind == "state":
            state.setdefault(index, {})[key] = _in_format_of(parameters[index], value)
        elif not (new_settings and key in optimizer.defaults):  # JSON has no tuples
            groups[index][key] = tuple(value) if isinstance(groups[index].get(key), tuple) else value
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _in_format_of(parameter: Tensor, value: Any) -> Any:
    """safetensors keeps no strides: give a moment the memory format of its parameter again."""
    if not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, device=value.device, dtype=value.dtype, requires_grad=False).copy_(value)
