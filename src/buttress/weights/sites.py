"""The tensors of a model that a weight method may act on, by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize
from torch.nn.utils.parametrize import ParametrizationList

from buttress.errors import ModelError

SiteKind = Literal["conv", "linear", "norm"]
SiteTensor = Literal["weight", "bias"]
TENSORS: tuple[SiteTensor, ...] = get_args(SiteTensor)
CacheKey = tuple[int, str]
NOTHING = "has no layer that it could act on"


@dataclass(frozen=True, slots=True)
class Site:
    """A parameter of a convolution, linear layer or norm.

    Args:
        name: of the module, as in `named_modules()`.
        module: that holds it.
        tensor: `weight` or `bias`.
        kind: of the module.
    """

    name: str
    module: nn.Module
    tensor: SiteTensor
    kind: SiteKind

    @property
    def full_name(self) -> str:
        """As in the plain model's state dict."""
        return f"{self.name}.{self.tensor}" if self.name else self.tensor

    @property
    def parameter(self) -> nn.Parameter:
        """The plain parameter; of a parametrized tensor the first original."""
        if parametrize.is_parametrized(self.module, self.tensor):
            return cast(nn.Parameter, self.parametrizations.original)
        return cast(nn.Parameter, getattr(self.module, self.tensor))

    @property
    def parametrizations(self) -> ParametrizationList:
        """Those of the tensor, which has some."""
        return cast(ParametrizationList, cast(Any, self.module).parametrizations[self.tensor])

    def register(self, parametrization: nn.Module) -> None:
        """Register a parametrization after those that are there; the plain parameter lives on as `original`."""
        parametrize.register_parametrization(self.module, self.tensor, parametrization, unsafe=True)

    @property
    def key(self) -> CacheKey:
        """Under which torch's cache of parametrizations keeps the tensor."""
        return id(self.module), self.tensor

    def bake(self) -> None:
        """Remove all parametrizations of its module and leave their values, as parameters of their own.

        torch's own removal would write into the original, which an average may share, and take the tensor away from the
        copies of the module too: their class is the same.
        """
        module = self.module
        if not parametrize.is_parametrized(module):
            return
        values = {name: getattr(module, name).detach().clone() for name in cast(Any, module).parametrizations}
        del module.parametrizations
        module.__class__ = type(module).__bases__[0]
        for name, value in values.items():
            module.register_parameter(name, nn.Parameter(value))


def give(values: Iterable[tuple[CacheKey, Tensor]]) -> None:
    """Make these what parametrizations give until `parametrize.cached()` ends; outside of it nothing happens.

    torch has no public way to tell that cache values that were made together.
    """
    if parametrize._cache_enabled:
        parametrize._cache.update(values)


def sites(model: nn.Module, *kinds: SiteKind, tensors: tuple[str, ...] = ("weight", "bias")) -> list[Site]:
    """Every weight and bias of layers of these kinds (default: all), in the order of `named_modules()`."""
    return [site for site in _sites(model) if site.kind in (kinds or (site.kind,)) and site.tensor in tensors]


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict that baking every site would leave; the model stays as it is."""
    baked = {site.full_name: getattr(site.module, site.tensor).detach() for site in sites(model)}
    kept = {name: value for name, value in model.state_dict().items() if ".parametrizations." not in f".{name}"}
    return {**baked, **kept}


def classifier_of(model: nn.Module) -> nn.Module | None:
    """The layer that gives the logits, where timm says which; else the last linear layer or convolution."""
    said = getattr(model, "get_classifier", None)
    if said is not None and isinstance(found := said(), (nn.Linear, _ConvNd)):
        return found
    layers = [site.module for site in sites(model, "conv", "linear", tensors=("weight",))]
    return layers[-1] if layers else None


def require_plain(model: nn.Module, acted_on: list[Site], method: str, *, nothing: str = NOTHING) -> None:
    """Raises: ModelError, where there is nothing to act on, a tensor is parametrized, or two layers share one."""
    if not acted_on:
        raise ModelError(f"{method}: this model ({type(model).__name__}) {nothing}")
    for site in acted_on:
        if parametrize.is_parametrized(site.module, site.tensor):
            raise ModelError(f"{method}: {site.full_name} is parametrized already; a model takes one method of weights")
    uses = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    for site in acted_on:
        if uses[id(site.parameter)] > 1:
            raise ModelError(f"{method}: {site.full_name} is shared with another layer, which it cannot keep so")


def _sites(model: nn.Module) -> Iterator[Site]:
    for name, module in model.named_modules():
        kind = _kind(module)
        if kind is None:
            continue
        for tensor in TENSORS:
            if module._parameters.get(tensor) is not None or parametrize.is_parametrized(module, tensor):
                yield Site(name, module, tensor, kind)


def _kind(module: nn.Module) -> SiteKind | None:
    if isinstance(module, _ConvNd):
        return "conv"
    if isinstance(module, nn.Linear):
        return "linear"
    known = isinstance(module, (_NormBase, nn.GroupNorm, nn.LayerNorm))
    return "norm" if known or _own_norm(module) else None


def _own_norm(module: nn.Module) -> bool:
    """A norm of timm's own, such as RmsNorm."""
    if "norm" not in type(module).__name__.lower():
        return False
    if parametrize.is_parametrized(module, "weight"):
        return True
    weight = module._parameters.get("weight")
    return weight is not None and weight.ndim == 1
