"""A Python function as a teacher: `python:pkg.mod:func`, uint8 BHWC -> probabilities BC. Needs no torch."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from buttress.errors import ModelError
from buttress.files import sha256_file
from buttress.nearest import did_you_mean
from buttress.teachers.classes import OF_TEACHER, choose_classes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from buttress.teachers.teacher import TeacherSpec

_SUM_TOLERANCE = 1e-3


class PythonTeacher:
    """Calls the user's function; its attributes `classes` (names) and `size` (pixels) are honoured where present."""

    def __init__(self, spec: TeacherSpec) -> None:
        """
        spec: how it was asked for.

        Raises: ModelError, where the function cannot be imported, says no size, or its classes do not fit.
        """
        self._function = import_function(spec.uri)
        size = spec.size or getattr(self._function, "size", None)
        if size is None:
            raise ModelError(f"{spec.uri}: says no input size; give --teacher-size, or set the function's `size`")
        self.size = int(size)
        self.spec = replace(spec, size=self.size, precision="fp32", threads=None)
        own = getattr(self._function, "classes", None)
        self._own = None if own is None else tuple(map(str, own))
        self._map = choose_classes(
            self._own,
            mode=spec.classes,
            source_classes=spec.source_classes,
            class_map=spec.class_map,
            teacher=spec.uri,
            way_out=OF_TEACHER,
        )
        self.classes = self._map.classes
        self._unmapped, self._seen = 0.0, 0

    @property
    def unmapped_share(self) -> float:
        """Mean probability, over the views seen so far, outside the class map."""
        return self._unmapped / self._seen if self._seen else 0.0

    def probabilities(self, views_BHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Class probabilities [B, C] of uint8 RGB views.

        Raises: ModelError, where the function fails or does not give [B, C] probabilities.
        """
        own_BT = self._check(self._answer(views_BHWC), len(views_BHWC))
        if self._map.groups is None and self.spec.temperature == 1:
            whole_BT: NDArray[np.float64] = own_BT / own_BT.sum(axis=1, keepdims=True)
            return whole_BT.astype(np.float32)
        with np.errstate(divide="ignore"):
            logits_BT = np.log(own_BT) / self.spec.temperature
        probabilities_BC, unmapped_B = self._map.project(logits_BT)
        self._unmapped += float(unmapped_B.sum())
        self._seen += len(views_BHWC)
        return probabilities_BC

    def describe(self) -> dict[str, Any]:
        """What the card says of this teacher."""
        return {
            "uri": self.spec.uri,
            "weights_sha256": None,
            "source_sha256": _source_digest(self._function),
            "model": None,
            "size": self.size,
            "mean": None,
            "std": None,
            "interpolation": None,
            "temperature": self.spec.temperature,
            "classes": self.spec.kept_classes,
            "class_map": self._map.describe(self._own),
            "licence": None,
            "precision": "fp32",
            "device": "cpu",
            "threads": None,
            "channels_last": False,
        }

    def _answer(self, views_BHWC: NDArray[np.uint8]) -> Any:
        try:
            return self._function(views_BHWC)
        except Exception as failure:
            views = f"{len(views_BHWC)} views of {self.size} pixels"
            raise ModelError(f"{self.spec.uri}: the function failed on {views} ({_one_line(failure)})") from failure

    def _check(self, value: Any, batch: int) -> NDArray[np.float64]:
        array = np.asarray(value)
        if array.ndim != 2 or len(array) != batch or array.dtype.kind != "f":
            what = f"{array.dtype} of shape {array.shape}"
            raise ModelError(f"{self.spec.uri}: gave {what} for {batch} views, floats of shape ({batch}, C) are needed")
        if (wanted := self._width(array.shape[1])) != array.shape[1]:
            raise ModelError(f"{self.spec.uri}: gave {array.shape[1]} classes, {wanted} are needed")
        result = array.astype(np.float64)
        if not np.isfinite(result).all() or result.min(initial=0) < 0:
            raise ModelError(f"{self.spec.uri}: gave NaN, infinite or negative values; probabilities are needed")
        sums = result.sum(axis=1)
        if len(sums) and (off := float(np.abs(sums - 1).max())) > _SUM_TOLERANCE:
            raise ModelError(f"{self.spec.uri}: rows must sum to 1, one is off by {off:.3g}; did it give logits?")
        return result

    def _width(self, given: int) -> int:
        """How many classes the function must give for `given` to fit."""
        if self._own is not None:
            return len(self._own)
        if self._map.groups is not None:
            return max(given, 1 + max(max(group) for group in self._map.groups))
        return given if self._map.classes is None else len(self._map.classes)


def _source_digest(function: Callable[..., Any]) -> str | None:
    """Digest of the file that the function stands in: edited, it is another teacher. None where there is none."""
    file = getattr(sys.modules.get(function.__module__), "__file__", None)
    return sha256_file(Path(file)) if file else None


def import_function(uri: str) -> Callable[[NDArray[np.uint8]], Any]:
    """The function of `python:pkg.mod:func`, from `sys.path` with the working directory.

    Raises: ModelError, where the module cannot be imported or has no such function.
    """
    module_name, _, name = uri.removeprefix("python:").partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ImportError as failure:
        raise ModelError(f"{uri}: cannot import {module_name} ({failure}); looked in sys.path and {here}") from failure
    except (Exception, SystemExit) as failure:  # its code is the user's: anything can come, a call of sys.exit too
        raise ModelError(f"{uri}: {module_name} failed while it was imported ({_one_line(failure)})") from failure
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value)]
        raise ModelError(f"{uri}: {module_name} has no function {name!r}{did_you_mean(name, known)}")
    return function  # type: ignore[no-any-return]


def _one_line(failure: BaseException) -> str:
    """Type and message of a failure, and the line of code that it came from."""
    *_, last = traceback.extract_tb(failure.__traceback__)
    message = " ".join(str(failure).split())
    return f"{type(failure).__name__}{': ' if message else ''}{message}; {last.filename}, line {last.lineno}"
