"""A network as a teacher: a timm model or one of our runs.

Shape legend: B views, T the network's outputs, C the classes kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from buttress.errors import ModelError
from buttress.models.batch_norm import without_batch_norms
from buttress.models.load import LoadedModel, at_size
from buttress.models.normalise import normalise
from buttress.models.processor import cpu_has_bf16
from buttress.models.uri import parse_model_uri
from buttress.teachers.classes import OF_TEACHER, choose_classes
from buttress.teachers.teacher import COMPILED_BATCH
from buttress.weights.levels import Level

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from buttress.teachers.teacher import Forward, Precision, TeacherSpec


class NetworkTeacher:
    """Runs a network over views, in the precision and memory format chosen once when it is opened."""

    def __init__(self, spec: TeacherSpec, loaded: LoadedModel) -> None:
        """
        spec: how it was asked for; loaded: its model, with weights.

        Raises: ModelError, where its classes or its input size do not fit.
        """
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        precision = choose_precision(spec.precision, device)
        self._loaded = at_size(loaded, spec.size or loaded.preprocessing.size)
        self.size = self._loaded.preprocessing.size
        threads = spec.threads or torch.get_num_threads()
        forward: Forward = "channels_last" if spec.forward == "auto" else spec.forward
        self.spec = replace(spec, size=self.size, precision=precision, threads=threads, forward=forward)
        self._map = choose_classes(
            loaded.classes,
            mode=spec.classes,
            source_classes=spec.source_classes,
            class_map=spec.class_map,
            teacher=parse_model_uri(spec.uri).public,
            way_out=OF_TEACHER,
        )
        self._check_width()
        self.classes = self._map.classes
        self._device = device
        module = self._loaded.module.eval().requires_grad_(False)
        if precision == "fp32":  # in bf16 the norms, which stay in float32, make the answers more exact
            with _threads(threads):
                module = without_batch_norms(module, self.size)
            self._loaded = replace(self._loaded, module=module)
        module = module.to(device)
        self._format = torch.channels_last if forward.startswith("channels_last") else torch.contiguous_format
        module = module.to(memory_format=self._format)
        self._compiled = forward.endswith("compiled")
        self._network: Callable[[Tensor], Tensor] = torch.compile(module, dynamic=False) if self._compiled else module
        self._unmapped, self._seen = 0.0, 0

    @property
    def unmapped_share(self) -> float:
        """Mean probability, over the views seen so far, outside the class map."""
        return self._unmapped / self._seen if self._seen else 0.0

    def probabilities(self, views_BHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Class probabilities [B, C] of uint8 RGB views of `size` pixels."""
        assert views_BHWC.dtype == np.uint8
        assert views_BHWC.shape[1:] == (self.size, self.size, 3), views_BHWC.shape
        logits_BT = self._logits(views_BHWC).astype(np.float64) / self.spec.temperature
        if not np.isfinite(logits_BT).all():
            raise ModelError(f"{self.spec.uri}: gives NaN or infinity in {self.spec.precision}; try --precision fp32")
        probabilities_BC, unmapped_B = self._map.project(logits_BT)
        self._unmapped += float(unmapped_B.sum())
        self._seen += len(views_BHWC)
        return probabilities_BC

    def describe(self) -> dict[str, Any]:
        """What the card says of this teacher."""
        loaded, named = self._loaded, parse_model_uri(self.spec.uri)
        return {
            "uri": named.public,
            "weights_sha256": loaded.weights_sha256,
            **({} if named.level is None else {"level": str(Level.parse(named.level))}),  # of one file other answers
            "model": {"name": loaded.name, "kwargs": loaded.kwargs},
            "size": self.size,
            "mean": list(loaded.preprocessing.mean),
            "std": list(loaded.preprocessing.std),
            "interpolation": loaded.preprocessing.interpolation,
            "temperature": self.spec.temperature,
            "classes": self.spec.kept_classes,
            "class_map": self._map.describe(loaded.classes),
            "licence": loaded.licence,
            "precision": self.spec.precision,
            "device": self._device.type,
            "threads": self.spec.threads,
            "channels_last": self._format is torch.channels_last,
            **({"compiled": True} if self._compiled else {}),
        }

    def _check_width(self) -> None:
        """The classes chosen must exist among the outputs, also where the network does not name its own."""
        width, groups, classes = self._loaded.num_classes, self._map.groups, self._map.classes
        if groups is None and classes is not None and len(classes) != width:
            raise ModelError(
                f"{self.spec.uri}: has {width} outputs without names, the source has {len(classes)} classes; "
                "say which is which by --class-map FILE.yaml, or keep its own by --classes teacher"
            )
        if groups is not None and max(max(group) for group in groups) >= width:
            raise ModelError(f"{self.spec.class_map}: a class number is beyond the teacher's {width} outputs")

    def _logits(self, views_BHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        # A contiguous BHWC batch seen as BCHW is channels_last already: no copy (torch takes no read-only array).
        views = torch.from_numpy(np.require(views_BHWC, requirements=("C", "W")))
        if self._device.type == "cuda":
            views = views.pin_memory()
        images_BCHW = views.to(self._device, non_blocking=True).permute(0, 3, 1, 2)
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        # Autocast and not bf16 weights: as fast, and half as far from float32 (the normalisations stay in float32).
        half = torch.autocast(self._device.type, torch.bfloat16, enabled=self.spec.precision == "bf16")
        with _threads(self.spec.threads or 1), torch.inference_mode(), exact, half:
            inputs = normalise(images_BCHW, self._loaded.preprocessing).contiguous(memory_format=self._format)
            logits: NDArray[np.float32] = self._answers(inputs).float().cpu().numpy()
        return logits

    def _answers(self, images_BCHW: Tensor) -> Tensor:
        """Logits [B, T]; of a compiled network in batches of one size, the last of them filled up.

        Raises: ModelError, where it cannot be compiled here.
        """
        if not self._compiled:
            return self._network(images_BCHW)
        parts = []
        try:
            for part in torch.split(images_BCHW, COMPILED_BATCH):
                filled = nn.functional.pad(part, (0, 0, 0, 0, 0, 0, 0, COMPILED_BATCH - len(part)))
                parts.append(self._network(filled.contiguous(memory_format=self._format))[: len(part)])
        except (RuntimeError, OSError) as failure:  # what torch raises where it finds no compiler, or one that fails
            why = (str(failure).strip().splitlines() or [type(failure).__name__])[0]
            raise ModelError(
                f"{self.spec.uri}: torch.compile does not work here ({why}); install a C++ compiler, or take --forward "
                f"{self.spec.forward.removesuffix('+compiled')} and another --out"
            ) from failure
        return torch.cat(parts)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Torch at `count` threads, and then as it was: what a teacher needs is not for its caller to find."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_precision(asked: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """`auto` becomes bf16 where the device multiplies bf16 natively, else fp32; anything else stays."""
    if asked != "auto":
        return asked
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp32"
    return "bf16" if cpu_has_bf16() else "fp32"
