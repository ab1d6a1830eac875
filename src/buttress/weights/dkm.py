"""DKM: weights become indices into small palettes that are learnt through k-means (arXiv 2108.12659).

While training, a layer's weight is a soft mixture of its palette, and the palette is a few iterations of soft k-means
on the weight; the gradient runs through all of them to the plain weight, which alone is trained. In evaluation each row
is its nearest entry. Distances are squared Euclidean, as coremltools has it, and the temperature is in their unit; the
paper writes Euclidean ones, so its temperatures mean something else.

Shapes: G groups, each with a palette of its own; N rows of a group; K entries; D numbers in a row; T numbers left over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.utils import parametrize

from buttress.errors import ModelError
from buttress.models.packed import Entry, Palettised, Plain
from buttress.weights.batch_norm import reestimate_batch_norm
from buttress.weights.kmeans import kmeans, lloyd, nearest, reseated
from buttress.weights.levels import Level
from buttress.weights.settings import DkmSettings
from buttress.weights.sites import NOTHING, Site, classifier_of, require_plain, sites
from buttress.weights.soft_kmeans import gathered, soft_kmeans

HARD_ITERATIONS = 20  # before an evaluation
SMALLEST = 1e-16  # temperature: of rows that are all alike it would be 0, and what is divided by it NaN


class Palette(nn.Module):
    """The parametrization of one weight; its original lives on and is what is trained.

    Rows are D neighbouring output channels at one place of the input, within a group of output channels; what is left
    of a group stays as it is. A forward writes nothing. In evaluation mode it gives the original no gradient.

    Buffers: `centroids` [G, K, D]; `variance` 0-d, of the rows that it began with; where channels are scaled
    `scale`, one for each output channel.

    Args:
        weight: of a convolution or linear layer, not read.
        settings: of all layers.
        axis: of the output channels, in `weight`.
    """

    centroids: Tensor
    variance: Tensor

    def __init__(self, weight: Tensor, settings: DkmSettings, axis: int) -> None:
        super().__init__()
        channels = weight.shape[axis]
        self.settings, self.axis = settings, axis
        self.groups = channels // _group(channels, settings)
        numbers = weight.numel() // self.groups
        self.rows_of_a_group = numbers // settings.cluster_dim
        shape = self.groups, 2**settings.bits, settings.cluster_dim
        self.register_buffer("centroids", weight.new_zeros(shape))
        self.register_buffer("variance", weight.new_ones(()))
        self.register_buffer("scale", weight.new_ones(channels) if settings.per_channel_scale else None)

    @property
    def temperature(self) -> Tensor:
        """0-d, above 0, of squared distances between rows."""
        return (self.settings.softness * self.variance).clamp(min=SMALLEST)

    def forward(self, original: Tensor) -> Tensor:
        """The weight that the layer uses, of the original's shape: soft while training, else hard."""
        with torch.autocast(original.device.type, enabled=False):
            return self.soft(original) if self.training else self.hard(original)

    def soft(self, original: Tensor) -> Tensor:
        """Mixtures of the palette after some iterations from the stored one; differentiable in `original`."""
        rows_GND, left_GT = self.split(original)
        mixed = soft_kmeans(rows_GND, self.centroids, self.temperature, self.settings.iterations)
        return self._joined(mixed, left_GT, original)

    def hard(self, original: Tensor) -> Tensor:
        """Every row the nearest entry of the stored palette."""
        rows_GND, left_GT = self.split(original)
        places = nearest(rows_GND, self.centroids)[..., None].expand_as(rows_GND)
        return self._joined(self.centroids.gather(1, places), left_GT, original)

    def split(self, original: Tensor) -> tuple[Tensor, Tensor]:
        """A weight's rows [G, N, D], scaled, and what is left over [G, T], as it is."""
        channels_at_end = original.movedim(self.axis, -1)
        numbers = channels_at_end.reshape(-1, self.groups, channels_at_end.shape[-1] // self.groups)
        numbers_GX = numbers.transpose(0, 1).reshape(self.groups, -1)
        clustered = self.rows_of_a_group * self.settings.cluster_dim
        rows_GND = numbers_GX[:, :clustered].reshape(self.groups, self.rows_of_a_group, -1)
        if self.settings.per_channel_scale:
            rows_GND = rows_GND / self._scale_of_rows()
        return rows_GND, numbers_GX[:, clustered:]

    @torch.no_grad()
    def start(self, original: Tensor) -> None:
        """Set scale, temperature and palette by hard k-means on a weight."""
        self._rescale(original)
        rows_GND, _ = self.split(original)
        rows = rows_GND.flatten(0, 1).double()
        variance = (rows - rows.mean(0)).square().sum(1).mean()
        self.variance.copy_(variance)
        self.centroids.copy_(kmeans(rows_GND, self.centroids.shape[1]))

    @torch.no_grad()
    def follow(self, original: Tensor) -> None:
        """One soft iteration from the stored palette, which it replaces; of equal entries one moves elsewhere."""
        self._rescale(original)
        rows_GND, _ = self.split(original)
        sums_GKD, masses_GK1 = gathered(rows_GND, self.centroids, self.temperature)
        moved = sums_GKD / masses_GK1
        equal_GKK = (moved[:, :, None] == moved[:, None]).all(-1).tril(-1)
        if bool(equal_GKK.any()):
            moved = reseated(rows_GND, moved, equal_GKK.any(-1))
        self.centroids.copy_(moved)

    @torch.no_grad()
    def settle(self, original: Tensor) -> None:
        """Hard k-means from the stored palette, which it replaces."""
        self._rescale(original)
        rows_GND, _ = self.split(original)
        self.centroids.copy_(lloyd(rows_GND, self.centroids, HARD_ITERATIONS))

    def _rescale(self, original: Tensor) -> None:
        if self.settings.per_channel_scale:
            largest = original.movedim(self.axis, 0).flatten(1).abs().amax(1)
            cast(Tensor, self.scale).copy_(torch.where(largest > 0, largest, 1.0))

    def _scale_of_rows(self) -> Tensor:
        """[G, N, D]."""
        scale_GO = cast(Tensor, self.scale).view(self.groups, -1)
        numbers = self.rows_of_a_group * self.settings.cluster_dim
        times = -(-numbers // scale_GO.shape[1])
        return scale_GO.repeat(1, times)[:, :numbers].reshape(self.groups, self.rows_of_a_group, -1)

    def _joined(self, rows_GND: Tensor, left_GT: Tensor, original: Tensor) -> Tensor:
        """The inverse of `split`."""
        if self.settings.per_channel_scale:
            rows_GND = rows_GND * self._scale_of_rows()
        numbers_GX = torch.cat([rows_GND.flatten(1), left_GT], 1)
        channels_at_end = original.movedim(self.axis, -1).shape
        numbers = numbers_GX.reshape(self.groups, -1, channels_at_end[-1] // self.groups).transpose(0, 1)
        return numbers.reshape(channels_at_end).movedim(-1, self.axis).contiguous()


class Dkm:
    """Clusters every convolution and linear weight of more than `min_weights` numbers, the first and last included.

    Without a step of training, `prepare` and `before_evaluation` are post-training k-means with fresh batch statistics:
    the baseline that a training is to be measured by.
    """

    name = "dkm"

    def __init__(self, settings: DkmSettings) -> None:
        self.settings = settings
        self._live: list[tuple[nn.Module, Palette]] = []

    def attach(self, model: nn.Module) -> None:
        """Register the palettes, with any values.

        Raises:
            ModelError: no weight is large enough, or one is parametrized already or shared by two layers.
        """
        weights = sites(model, "conv", "linear", tensors=("weight",))
        chosen = [site for site in weights if site.parameter.numel() > self._fewest(site)]
        why = f"has no weight of more than {self.settings.min_weights:,} numbers; lower --dkm.min_weights"
        require_plain(model, chosen, self.name, nothing=why if weights else NOTHING)
        classifier = classifier_of(model)
        for site in chosen:
            settings = self.settings.of_classifier() if site.module is classifier else self.settings
            palette = Palette(site.parameter, settings, _output_axis(site.module))
            site.register(palette.train(site.module.training))
        self._live = [(layer, palette) for _, layer, palette in _palettes(model)]

    def prepare(self, model: nn.Module) -> None:
        """Register the palettes, and start them by k-means.

        Raises:
            ModelError: as `attach`; or a layer's weights are not finite or all the same.
        """
        self.attach(model)
        for name, layer, palette in _palettes(model):
            original = _original(layer)
            if not bool(torch.isfinite(original).all()):
                raise ModelError(f"dkm: {name}.weight is not finite; start from sound weights")
            if bool((original == original.flatten()[0]).all()):
                raise ModelError(f"dkm: {name}.weight is the same everywhere; start from trained weights")
            palette.start(original)

    def before_step(self, step: int, total_steps: int, generator: Generator) -> None:
        """Bring every palette nearer to the weights by one soft iteration."""
        for layer, palette in self._live:
            palette.follow(_original(layer))

    def passes(self, step: int) -> Sequence[Callable[[], object]]:
        """One."""
        return (lambda: None,)

    def auxiliary_loss(self, model: nn.Module) -> Tensor | None:
        """None."""
        return None

    def before_evaluation(self, model: nn.Module, images: Iterable[Tensor], *, last: bool) -> None:
        """Bring the palettes to rest on the weights that `model` holds by hard k-means; then batch statistics anew."""
        for _, layer, palette in _palettes(model):
            palette.settle(_original(layer))
        reestimate_batch_norm(model, images)

    def materialise(self, model: nn.Module) -> None:
        """Bake the hard weights."""
        for name, layer, palette in list(_palettes(model)):
            palette.eval()
            Site(name, layer, "weight", "linear" if isinstance(layer, nn.Linear) else "conv").bake()

    def levels(self) -> tuple[Level, ...]:
        """None: the model has but one form."""
        return ()

    def _fewest(self, site: Site) -> int:
        """Weights of at most so many numbers stay as they are: also those of less than a row in a group."""
        channels = site.parameter.shape[_output_axis(site.module)]
        groups = channels // _group(channels, self.settings)
        return max(self.settings.min_weights, groups * self.settings.cluster_dim - 1)

    def packed(self, model: nn.Module) -> dict[str, Entry]:
        """What `packed.write_packed` stores of a prepared model: its materialised state dict, palettes as palettes.

        Raises:
            ModelError: the model has no palettes.
        """
        found = _require_palettes(model)
        entries: dict[str, Entry] = {
            f"{_prefix(name)}weight": _entry(_original(layer).detach(), palette) for name, layer, palette in found
        }
        inner = tuple(f"{_prefix(name)}parametrizations.weight." for name, _, _ in found)
        rest = {name: Plain(value) for name, value in model.state_dict().items() if not name.startswith(inner)}
        return {**entries, **rest}


@torch.no_grad()
def gap(model: nn.Module) -> dict[str, float]:
    """How far each layer's soft weight is from its hard one: the root mean square of the difference, relative to that
    of the hard weight; by layer.

    Raises:
        ModelError: the model has no palettes.
    """
    found = {}
    for name, layer, palette in _require_palettes(model):
        soft, hard = palette.soft(_original(layer)), palette.hard(_original(layer))
        found[name] = float((soft - hard).norm() / hard.norm())
    return found


@torch.no_grad()
def coreml_buffers(model: nn.Module) -> dict[str, Tensor]:
    """The buffers by which coremltools knows palettes: beside the materialised weights in a state dict, or registered
    on the modules, its converter stores them as such.

    A layer of which D does not divide a group's output channels has none: Core ML has no such layout, and stores it
    whole.

    Args:
        model: prepared.

    Returns: by name; `<layer>._COREML_/weight/lut` is [G, 1, .., 1, K, D] for palettes along the first axis.

    Raises:
        ModelError: the model has no palettes.
    """
    buffers = {"_COREML_/metadata_version": torch.tensor(1)}
    for name, layer, palette in _require_palettes(model):
        rank, (groups, entries, dim) = _original(layer).ndim, palette.centroids.shape
        if _original(layer).shape[palette.axis] // groups % dim:
            continue
        prefix = f"{_prefix(name)}_COREML_/weight/"
        along = [1] * rank
        along[palette.axis] = groups
        buffers[prefix + "lut"] = palette.centroids.clone().view(*along, entries, dim)
        buffers[prefix + "compression_type"] = torch.tensor([2])
        if dim > 1:
            buffers[prefix + "vector_axis"] = torch.tensor(palette.axis)
        if palette.settings.per_channel_scale:
            along[palette.axis] = -1
            buffers[prefix + "palettization_scale"] = cast(Tensor, palette.scale).clone().view(along)
    return buffers


def _group(channels: int, settings: DkmSettings) -> int:
    """Output channels that share a palette: the smallest divisor not below the asked one, of whole rows if there is."""
    if settings.group_size is None:
        return channels
    divisors = [size for size in range(min(settings.group_size, channels), channels + 1) if channels % size == 0]
    return next((size for size in divisors if size % settings.cluster_dim == 0), divisors[0])


def _entry(original: Tensor, palette: Palette) -> Palettised:
    rows_GND, left_GT = palette.split(original)
    return Palettised(
        shape=tuple(original.shape),
        axis=palette.axis,
        bits=palette.settings.bits,
        indices_GN=nearest(rows_GND, palette.centroids).to(torch.uint8),
        lut_GKD=palette.centroids.clone(),
        scale_O=None if palette.scale is None else cast(Tensor, palette.scale).clone(),
        left_GT=left_GT.clone(),
    )


def _output_axis(layer: nn.Module) -> int:
    return int(isinstance(layer, _ConvTransposeNd))


def _prefix(name: str) -> str:
    return f"{name}." if name else ""


def _original(layer: nn.Module) -> Tensor:
    return cast(Tensor, cast(Any, layer).parametrizations["weight"].original)


def _palettes(model: nn.Module) -> Iterator[tuple[str, nn.Module, Palette]]:
    """Layers with a palette, by name."""
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module, "weight"):
            for part in cast(Any, module).parametrizations["weight"]:
                if isinstance(part, Palette):
                    yield name, module, part


def _require_palettes(model: nn.Module) -> list[tuple[str, nn.Module, Palette]]:
    found = list(_palettes(model))
    if not found:
        raise ModelError(f"dkm: this model ({type(model).__name__}) has no palettes; prepare it by Dkm first")
    return found
