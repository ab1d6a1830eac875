"""The largest tensor that a piece of code makes."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Largest(TorchDispatchMode):
    """Within it, `bytes` is the size of the largest memory that an operation takes for its result; views take none."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {memory.data_ptr() for memory in _memories((args, kwargs))}
        for memory in _memories(result):
            if memory.data_ptr() not in given:
                self.bytes = max(self.bytes, memory.nbytes())
        return result


def _memories(tree: Any) -> list[Any]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
