"""`torchvision:NAME[:ROOT]`: a class of torchvision.datasets, opened by name. The room's only file with torchvision.

What is trusted: torchvision's readers. Those of CIFAR-10 and CIFAR-100 unpickle the files they were published as, each
only after its MD5 proved equal to the one in torchvision's code; nothing here goes around that check. LSUN's unpickles
a cache file that nothing proves, so it is refused.
"""

from __future__ import annotations

import inspect
import operator
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from buttress.errors import SourceError
from buttress.nearest import did_you_mean
from buttress.sources.decode import rgb_of_pillow
from buttress.sources.identity import content_hash, content_ids
from buttress.sources.locations import absolute, split_query
from buttress.sources.remote import one_line
from buttress.sources.source import (
    NO_LABEL,
    Sample,
    UndecodableImage,
    checked_labels,
    first_repeat,
    label_or_none,
    nfc,
    numbered_classes,
)
from buttress.terminal import progress

DEFAULT_ROOT = "data"  # the folder that torchvision's own examples name
_REFUSED = ("LSUN", "LSUNClass")
_NO_SETS = ("VisionDataset", "wrap_dataset_for_transforms_v2")
_YES_OR_NO = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


class TorchvisionSource:
    """An image classification set of torchvision.

    Where torchvision would load image files, samples are those files: their bytes as they are, ids = paths below the
    root. Else they are the pictures that torchvision makes (uint8 [H, W, 3]), ids = content hashes (repeats with `.1`,
    `.2`), and all of them are looked at once when the set is opened. Classes: WordNet ids or names where the set has
    them, else numbers.

    Args:
        location: `NAME[:ROOT][?key=value&...]`; ROOT is `data` by default. Keys are the class's own arguments that are
            text, numbers or yes/no; `split=train|test` also works where the class has `train=`. Without `download=1`
            nothing is ever downloaded.
        labels: false ignores labels and class names.

    Raises: `SourceError` where there is no such set, or torchvision does not find or accept its files.
    """

    def __init__(self, location: str, *, labels: bool = True) -> None:
        self.uri = f"torchvision:{location}"
        self._opening = _opening(location)
        dataset = self._opening.open()
        if not len(dataset):
            raise SourceError(f"{self.uri}: found 0 images")
        images, numbers = _look_through(dataset, self.uri, labels=labels)
        self._files = tuple(image for image in images if isinstance(image, str))
        self.ids = (
            _path_ids(self._files, self._opening.root or "", self.uri)
            if self._files
            else content_ids(image for image in images if isinstance(image, int))
        )
        self.classes = _class_names(dataset, numbers, self.uri) if (numbers >= 0).any() else None
        self.labels = checked_labels(numbers, len(self.ids), self.classes or (), self.uri)
        self._dataset: Any = None if self._files else dataset

    def __len__(self) -> int:
        return len(self.ids)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_dataset": None}

    def __getitem__(self, index: int) -> Sample:
        sample_id, number = self.ids[index], int(index) % len(self)
        try:
            data = self._file(number) if self._files else self._picture(number)
        except OSError as failure:
            raise UndecodableImage(f"{self.uri}: {sample_id!r} cannot be read ({one_line(failure)})") from failure
        return Sample(sample_id, data, label_or_none(self.labels[index]))

    def _file(self, number: int) -> bytes:
        with open(self._files[number], "rb", buffering=0) as file:
            return file.readall()

    def _picture(self, number: int) -> NDArray[np.uint8]:
        if self._dataset is None:  # in another process
            self._dataset = self._opening.open()
        return rgb_of_pillow(self._dataset[number][0])


@dataclass(frozen=True, kw_only=True)
class _Opening:
    """What it takes to open a set: here, and again in another process."""

    uri: str
    name: str
    root: str | None
    arguments: Mapping[str, Any]
    takes_loader: bool

    def open(self) -> Any:
        arguments = dict(self.arguments) | ({"loader": _path_itself} if self.takes_loader else {})
        if self.root is not None:
            arguments["root"] = self.root
        try:
            return getattr(_torchvision(), self.name)(**arguments)
        except Exception as failure:  # every set has its own way to fail
            reason = re.sub(r"\s*You can use download=True.*", "", one_line(failure))
            where = f" (looked in {self.root})" if self.root else ""
            raise SourceError(f"{self.uri}: {reason}{where}{self._advice()}") from failure

    def _advice(self) -> str:
        if self.arguments.get("download", True):
            return ""
        return f"; say where it is with torchvision:{self.name}:ROOT, or let it be downloaded there with ?download=1"


def _torchvision() -> Any:
    import torchvision.datasets

    return torchvision.datasets


def _path_itself(path: Any) -> str:
    """Stands where torchvision's image loader would: samples are then files, not decoded pictures."""
    return str(path)


def _opening(location: str) -> _Opening:
    uri = f"torchvision:{location}"
    name = location.partition("?")[0].partition(":")[0]
    known = [one for one in _torchvision().__all__ if one not in (*_NO_SETS, *_REFUSED)]
    if name in _REFUSED:
        raise SourceError(f"{uri}: torchvision unpickles a cache file for it that nothing proves; export its images")
    if name not in known:
        raise SourceError(f"{uri}: torchvision has no data set {name!r}{did_you_mean(name, known)}")
    parameters = _parameters(getattr(_torchvision(), name))
    path, chosen = split_query("torchvision", location, _keys(parameters))
    root = path.partition(":")[2]
    if root and "root" not in parameters:
        raise SourceError(f"{uri}: {name} takes no folder; leave {root!r} out")
    return _Opening(
        uri=uri,
        name=name,
        root=absolute(root or DEFAULT_ROOT) if "root" in parameters else None,
        arguments=_arguments(parameters, chosen, uri),
        takes_loader="loader" in parameters,
    )


def _parameters(dataset: type) -> dict[str, inspect.Parameter]:
    """The arguments of a class, with those that it hands on to its parents."""
    found: dict[str, inspect.Parameter] = {}
    for base in dataset.__mro__:
        if "__init__" not in vars(base):
            continue
        own = inspect.signature(vars(base)["__init__"]).parameters
        found = dict(own) | found
        if all(one.kind is not inspect.Parameter.VAR_KEYWORD for one in own.values()):
            break
    return found


def _kind(parameter: inspect.Parameter) -> type | None:
    """The type of an argument that can stand in a URI, else none."""
    if isinstance(parameter.default, bool | int | str):
        return type(parameter.default)
    optional = parameter.default in (None, inspect.Parameter.empty)
    return str if optional and str(parameter.annotation) in ("<class 'str'>", "typing.Optional[str]", "str") else None


def _keys(parameters: Mapping[str, inspect.Parameter]) -> list[str]:
    """What may stand behind `?`; `split` stands for `train` where the class has no split of its own."""
    keys = {name for name, one in parameters.items() if name != "root" and _kind(one)}
    return sorted(keys - {"train"} | {"split"} if "train" in keys and "split" not in keys else keys)


def _arguments(parameters: Mapping[str, inspect.Parameter], chosen: dict[str, str], uri: str) -> dict[str, Any]:
    """Arguments of the class. `download` is always said: for some classes it is on by default."""
    arguments: dict[str, Any] = {"download": False} if "download" in parameters else {}
    for key, value in chosen.items():
        if key == "split" and "split" not in parameters:
            if value not in ("train", "test"):
                raise SourceError(f"{uri}: its splits are train and test, not {value!r}")
            arguments["train"] = value == "train"
        else:
            arguments[key] = _value(value, _kind(parameters[key]), f"{uri}: {key}={value}")
    return arguments


def _value(text: str, kind: type | None, place: str) -> Any:
    if kind is bool:
        if text.lower() not in _YES_OR_NO:
            raise SourceError(f"{place}: say 1 or 0")
        return _YES_OR_NO[text.lower()]
    if kind is int and not re.fullmatch(r"-?\d{1,18}", text):
        raise SourceError(f"{place}: a whole number is expected")
    return int(text) if kind is int else text


def _look_through(dataset: Any, uri: str, *, labels: bool) -> tuple[list[str | int], NDArray[np.int64]]:
    """Of every sample: its file, else the hash of its picture (of nothing where it cannot be read), and its label."""
    images: list[str | int] = []
    numbers = np.full(len(dataset), NO_LABEL, np.int64)
    with progress("looking through", len(dataset), "images") as bar:
        for index in range(len(dataset)):
            bar.advance()
            try:
                image, target = _pair(dataset[index], uri)
                images.append(image if isinstance(image, str) else content_hash(rgb_of_pillow(image)))
            except (OSError, UndecodableImage):
                images.append(content_hash(b""))
                continue
            if labels and target is not None:
                numbers[index] = _class_number(target, uri)
    return images, numbers


def _pair(item: Any, uri: str) -> tuple[Any, Any]:
    from PIL.Image import Image

    if not isinstance(item, tuple) or len(item) != 2 or not isinstance(item[0], Image | str):
        raise SourceError(f"{uri}: its samples are not an image with a class; it is no set for image classification")
    return item


def _class_number(target: Any, uri: str) -> int:
    try:
        return operator.index(target)
    except TypeError as failure:
        what = f"its targets are no class numbers ({type(target).__name__})"
        raise SourceError(f"{uri}: {what}; it is no set for image classification") from failure


def _path_ids(files: tuple[str, ...], root: str, uri: str) -> tuple[str, ...]:
    outside = next((file for file in files if not file.startswith(root + os.sep)), None)
    if outside is not None:
        raise SourceError(f"{uri}: {outside} lies outside {root}, so it has no stable id")
    ids = tuple(nfc(file[len(root) + 1 :].replace(os.sep, "/")) for file in files)
    if (repeat := first_repeat(ids)) is not None:
        raise SourceError(f"{uri}: two samples are the file {repeat!r}")
    return ids


def _class_names(dataset: Any, numbers: NDArray[np.int64], uri: str) -> tuple[str, ...]:
    """WordNet ids, else names where they are unique texts for every number, else the numbers."""
    for attribute in ("wnids", "classes"):
        names = getattr(dataset, attribute, None)
        if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
            texts = tuple(map(nfc, names))
            if len(texts) > numbers.max() and first_repeat(texts) is None:
                return texts
    return numbered_classes(numbers, uri)
