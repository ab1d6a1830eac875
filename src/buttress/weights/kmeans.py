"""Hard k-means: the palettes that a clustering starts from, and that it is left with.

Shapes: G groups, each with a palette of its own; N rows; K centroids; D numbers in a row. All sums are in float64 on
the CPU, so the same rows give the same palette on any device.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

SAMPLE = 65_536  # rows of a group that k-means of more than one dimension looks at
LLOYD_NUMBERS, LLOYD_VECTORS = 300, 50  # iterations at most
_ELEMENTS = 2**21  # of the largest array that is made at a time


@torch.no_grad()
def nearest(rows_GND: Tensor, centroids_GKD: Tensor) -> Tensor:
    """The index of each row's nearest centroid, int64 [G, N] (or [N]).

    Args:
        rows_GND: or [N, D].
        centroids_GKD: or [K, D].
    """
    if rows_GND.ndim == 2:
        return nearest(rows_GND[None], centroids_GKD[None])[0]
    if rows_GND.shape[-1] == 1:
        return _nearest_number(rows_GND[..., 0], centroids_GKD[..., 0])
    step = max(1, _ELEMENTS // (centroids_GKD.shape[0] * centroids_GKD.shape[1]))
    parts = [_squared_distances(part, centroids_GKD).argmin(2) for part in torch.split(rows_GND, step, 1)]
    return torch.cat(parts, 1)


@torch.no_grad()
def inertia(rows_GND: Tensor, centroids_GKD: Tensor) -> Tensor:
    """Sum of the rows' squared distances to their nearest centroids, float64 [G]."""
    rows, centroids = _exact(rows_GND), _exact(centroids_GKD)
    return _squared_errors(rows, centroids).sum(1)


@torch.no_grad()
def kmeans(rows_GND: Tensor, clusters: int, *, seed: int = 0) -> Tensor:
    """Palettes for rows, each group alone; [G, K, D], of the rows' dtype and device.

    Numbers (D = 1) are sorted once, and Lloyd's iterations run from the quantiles and from an even grid until nothing
    moves; the better palette is kept. Vectors start from k-means++ (Arthur and Vassilvitskii, 2007) on at most 65,536
    rows, and the means of all rows are taken once at the end. A group of at most K distinct rows gets them all.

    Args:
        rows_GND: at least one row.
        clusters: K, at least 1.
        seed: of the draws of k-means++.
    """
    rows = _exact(rows_GND)
    if rows.shape[2] == 1:
        return _of_numbers(rows, clusters).to(rows_GND)
    generator = torch.Generator().manual_seed(seed)
    sample = rows
    if rows.shape[1] > SAMPLE:
        sample = rows[:, torch.randperm(rows.shape[1], generator=generator)[:SAMPLE]]
    centroids = lloyd(sample, _plus_plus(sample, clusters, generator), LLOYD_VECTORS)
    return (centroids if sample is rows else lloyd(rows, centroids, 1)).to(rows_GND)


@torch.no_grad()
def lloyd(rows_GND: Tensor, centroids_GKD: Tensor, iterations: int) -> Tensor:
    """Hard k-means from given centroids, until nothing moves; [G, K, D], of the centroids' dtype and device.

    A centroid without rows moves to the row that is farthest from its own; where every row is met exactly it stays.

    Args:
        rows_GND: at least one row.
        centroids_GKD: where to start; of numbers in any order.
        iterations: at most so many.
    """
    rows, centroids = _exact(rows_GND), _exact(centroids_GKD)
    if rows.shape[2] == 1:
        centroids = _lloyd_sorted(rows[..., 0].sort(1).values, centroids[..., 0].sort(1).values, iterations)[..., None]
    else:
        for _ in range(iterations):
            moved = _means(rows, centroids)
            if torch.equal(moved, centroids):
                break
            centroids = moved
    return centroids.to(centroids_GKD)


def reseated(rows_GND: Tensor, centroids_GKD: Tensor, idle_GK: Tensor) -> Tensor:
    """The centroids, the first idle one of each group moved to the row that is farthest from its nearest centroid.

    Args:
        rows_GND: at least one row.
        centroids_GKD: of the same dtype.
        idle_GK: bool, those that may move.
    """
    errors_GN = _squared_errors(rows_GND, centroids_GKD)
    farthest_G, groups = errors_GN.argmax(1), torch.arange(len(errors_GN), device=errors_GN.device)
    wanted_G = idle_GK.any(1) & (errors_GN[groups, farthest_G] > 0)
    if not bool(wanted_G.any()):
        return centroids_GKD
    moved, groups = centroids_GKD.clone(), groups[wanted_G]
    moved[groups, idle_GK[wanted_G].int().argmax(1)] = rows_GND[groups, farthest_G[wanted_G]]
    return moved


def _exact(values: Tensor) -> Tensor:
    return values.detach().to("cpu", torch.float64)


def _nearest_number(numbers_GN: Tensor, centroids_GK: Tensor) -> Tensor:
    """A number half-way between two belongs to the lower."""
    ordered_GK, places_GK = centroids_GK.sort(dim=1, stable=True)
    ranks_GN = torch.searchsorted(_between(ordered_GK).contiguous(), numbers_GN.contiguous())
    return places_GK.gather(1, ranks_GN)


def _between(ordered_GK: Tensor) -> Tensor:
    return (ordered_GK[:, :-1] + ordered_GK[:, 1:]) / 2


def _squared_distances(rows_GND: Tensor, centroids_GKD: Tensor) -> Tensor:
    """[G, N, K], from differences: a product of matrices would cancel where a palette is fine."""
    total = (rows_GND[..., :1] - centroids_GKD[:, None, :, 0]).square_()
    for axis in range(1, rows_GND.shape[2]):
        total += (rows_GND[..., axis, None] - centroids_GKD[:, None, :, axis]).square_()
    return total


def _squared_errors(rows_GND: Tensor, centroids_GKD: Tensor) -> Tensor:
    places_GND = nearest(rows_GND, centroids_GKD)[..., None].expand_as(rows_GND)
    return (rows_GND - centroids_GKD.gather(1, places_GND)).square_().sum(2)


def _of_numbers(rows_GN1: Tensor, clusters: int) -> Tensor:
    sorted_GN = rows_GN1[..., 0].sort(1).values
    middles_K = (torch.arange(clusters, dtype=torch.float64) + 0.5) / clusters
    quantiles_GK = sorted_GN[:, (middles_K * sorted_GN.shape[1]).long()]
    low_G1, high_G1 = sorted_GN[:, :1], sorted_GN[:, -1:]
    grid_GK = low_G1 + middles_K * (high_G1 - low_G1)
    found = [_lloyd_sorted(sorted_GN, start, LLOYD_NUMBERS)[..., None] for start in (quantiles_GK, grid_GK)]
    left_G, right_G = (inertia(rows_GN1, centroids) for centroids in found)
    return torch.where((right_G < left_G)[:, None, None], found[1], found[0])


def _lloyd_sorted(sorted_GN: Tensor, centroids_GK: Tensor, iterations: int) -> Tensor:
    """Of sorted numbers each centroid has a stretch, whose sum is the difference of two prefix sums."""
    groups, count = sorted_GN.shape
    prefix_GN = functional.pad(sorted_GN.cumsum(1), (1, 0))
    first, last = torch.zeros(groups, 1, dtype=torch.int64), torch.full((groups, 1), count)
    for _ in range(iterations):
        cuts = torch.cat([first, torch.searchsorted(sorted_GN, _between(centroids_GK), right=True), last], 1)
        counts_GK = cuts.diff(dim=1)
        means_GK = prefix_GN.gather(1, cuts).diff(dim=1) / counts_GK.clamp(min=1)
        # a difference of large sums may fall outside its stretch in the last bits
        low = sorted_GN.gather(1, cuts[:, :-1].clamp(max=count - 1))
        high = sorted_GN.gather(1, (cuts[:, 1:] - 1).clamp(min=0))
        idle_GK = counts_GK == 0
        moved_GK = torch.where(idle_GK, centroids_GK, means_GK.clamp(low, torch.maximum(low, high)))
        if bool(idle_GK.any()):
            moved_GK = reseated(sorted_GN[..., None], moved_GK[..., None], idle_GK)[..., 0].sort(1).values
        if torch.equal(moved_GK, centroids_GK):
            break
        centroids_GK = moved_GK
    return centroids_GK


def _means(rows_GND: Tensor, centroids_GKD: Tensor) -> Tensor:
    places_GN = nearest(rows_GND, centroids_GKD)
    sums_GKD = torch.zeros_like(centroids_GKD).scatter_add_(1, places_GN[..., None].expand_as(rows_GND), rows_GND)
    ones_GN = torch.ones_like(rows_GND[..., 0])
    counts_GK = torch.zeros_like(centroids_GKD[..., 0]).scatter_add_(1, places_GN, ones_GN)
    idle_GK = counts_GK == 0
    moved = torch.where(idle_GK[..., None], centroids_GKD, sums_GKD / counts_GK.clamp(min=1)[..., None])
    return reseated(rows_GND, moved, idle_GK) if bool(idle_GK.any()) else moved


def _plus_plus(rows_GND: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """Each next centroid is a row, drawn by its squared distance to those that are there."""
    groups = torch.arange(len(rows_GND))
    errors_GN = torch.ones_like(rows_GND[..., 0])
    chosen: list[Tensor] = []
    for number in range(clusters):
        met_G1 = errors_GN.sum(1, keepdim=True) == 0
        drawn_G = torch.multinomial(torch.where(met_G1, 1.0, errors_GN), 1, generator=generator)[:, 0]
        chosen.append(rows_GND[groups, drawn_G])
        errors = (rows_GND - chosen[-1][:, None]).square().sum(2)
        errors_GN = torch.minimum(errors_GN, errors) if number else errors
    return torch.stack(chosen, 1)
