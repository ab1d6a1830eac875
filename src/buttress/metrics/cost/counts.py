"""What a model costs anywhere: the figures that are the same on every machine and in every run."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry


def parameter_count(module: nn.Module) -> int:
    """How many numbers are learnt; a tensor that several layers share counts once."""
    return sum(parameter.numel() for parameter in module.parameters())


def state_bytes(module: nn.Module) -> int:
    """What the tensors of its state dict take, in the type that they have; one that several layers share counts once.

    This is the size of a weights file but for its header.
    """
    tensors = {id(each): each for each in module.state_dict(keep_vars=True).values() if isinstance(each, Tensor)}
    return sum(each.nbytes for each in tensors.values())


def multiply_accumulates(module: nn.Module, images_BCHW: Tensor) -> int:
    """Multiply-accumulates of one pass: of convolutions and of products of matrices, those of attention among them.

    All else counts nothing (`unseen_operations`). torch counts a multiply-accumulate as two operations.
    """
    counter = FlopCounterMode(display=False)
    with _written_out(), counter:
        module(images_BCHW)
    return int(counter.get_total_flops()) // 2


def unseen_operations(module: nn.Module, images_BCHW: Tensor) -> tuple[str, ...]:
    """Names of the operations of one pass that write a tensor and have no count, such as `native_batch_norm`."""
    heard = _Operations()
    with _written_out(), heard:
        module(images_BCHW)
    return tuple(sorted(heard.unseen))


def peak_activations(module: nn.Module, images_BCHW: Tensor) -> int:
    """The most bytes that the images and the tensors made from them take at one moment of a pass.

    Weights do not count, nor do memory that kernels take for themselves and what an allocator rounds up to: so it is
    the same on every device.
    """
    watched = _LiveTensors(of=(*module.parameters(), *module.buffers()), images=images_BCHW)
    with _plain_layers(), watched:
        module(images_BCHW)
    return watched.peak


@contextmanager
def _plain_layers() -> Iterator[None]:
    """torch's own transformer layers as their parts, not as one operation that nobody can look into."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def _written_out() -> Iterator[None]:
    """Attention as products of matrices too: some of its fused kernels have no count."""
    with ExitStack() as stack:
        stack.enter_context(_plain_layers())
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


_NO_WORK = ("empty", "empty_like", "empty_strided", "new_empty", "detach", "alias")


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Hears which operations run."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.unseen: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func._overloadpacket not in flop_registry and not func.is_view:
            with self:
                whole = func.decompose(*args, **(kwargs or {}))
            if whole is not NotImplemented:
                return whole
            if func._overloadpacket.__name__ not in _NO_WORK:
                self.unseen.add(func._overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


class _LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages that operations make, and takes them off when their last tensor goes.

    Args:
        of: tensors that do not count.
        images: what counts from the start.
    """

    def __init__(self, *, of: Sequence[Tensor], images: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        # Python knows each storage by one object as long as a tensor holds it, so that object's end is its own.
        self._known: dict[int, weakref.ref[Any]] = {}
        for tensor in of:
            self._note(tensor, 0)
        self._note(images, images.untyped_storage().nbytes())

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in _tensors(made):
            self._note(tensor, tensor.untyped_storage().nbytes())
        return made

    def _note(self, tensor: Tensor, size: int) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known[key] = weakref.ref(storage, partial(self._gone, key, size))
        self.live += size
        self.peak = max(self.peak, self.live)

    def _gone(self, key: int, size: int, _: Any) -> None:
        del self._known[key]
        self.live -= size


def _tensors(made: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(made) if isinstance(leaf, Tensor))
