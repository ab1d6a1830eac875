"""Soft k-means of the rows of a weight, with its gradient (DKM, arXiv 2108.12659): memory of a chunk of rows at a time.

Shapes: G groups, each with a palette of its own; N rows of a group; K entries; D numbers in a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

FLOOR = 1e-7  # of an attention: no entry of a palette is ever without weight
LEAST = -40.0  # of a logit beside the largest: far below the floor, and exp is many times slower where it underflows
CHUNK_ELEMENTS = 2**16  # of the attention of a chunk of rows, which so stays in the cache


def soft_kmeans(rows_GND: Tensor, centroids_GKD: Tensor, temperature: Tensor, iterations: int) -> Tensor:
    """Each row as the mixture of the palette, after some iterations of soft k-means.

    The attention is that of the last iteration, the palette the one that it led to. Attentions are computed anew in the
    backward pass, in chunks of rows that fit the cache, and never kept.

    Args:
        rows_GND: differentiable, once.
        centroids_GKD: where the iterations start.
        temperature: 0-d, of squared distances.
        iterations: at least 1.
    """
    mixed: Tensor = _SoftKmeans.apply(rows_GND, centroids_GKD, temperature, iterations)
    return mixed


class _SoftKmeans(torch.autograd.Function):
    """The gradient is written out: kept by autograd, the attentions of all iterations would be many times the weights,
    and most of a step's time.

    With A the attention, S its sums over rows and T = A rows, an iteration is C' = T / S. Of a gradient c' in C' that
    in A is rows (c' / S) - c'.C' / S. Through the softmax of -|row - C|^2 / temperature that becomes l, and l becomes
    2 / temperature times l C in the rows and l (rows - C) in C.
    """

    @staticmethod
    def forward(ctx: Any, rows_GND: Tensor, centroids_GKD: Tensor, temperature: Tensor, iterations: int) -> Tensor:
        palettes, masses = [centroids_GKD], []
        for _ in range(iterations):
            sums_GKD, masses_GK1 = gathered(rows_GND, palettes[-1], temperature)
            palettes.append(sums_GKD / masses_GK1)
            masses.append(masses_GK1)
        ctx.save_for_backward(rows_GND, temperature, torch.stack(palettes), torch.stack(masses))
        chunks = _chunks(rows_GND, centroids_GKD)
        return torch.cat([_attention(each, palettes[-2], temperature)[0].mT @ palettes[-1] for each in chunks], 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_GND: Tensor) -> tuple[Tensor | None, ...]:
        rows_GND, temperature, palettes, masses = ctx.saved_tensors
        found_GND = torch.zeros_like(rows_GND)
        rows, given, found = (_chunks(each, palettes[0]) for each in (rows_GND, gradient_GND, found_GND))
        to_palette_GKD = torch.zeros_like(palettes[0])
        for chunk_GND, given_GND in zip(rows, given, strict=True):
            to_palette_GKD += _attention(chunk_GND, palettes[-2], temperature)[0] @ given_GND
        for step in reversed(range(len(masses))):
            palette_GKD, after_GKD = palettes[step], palettes[step + 1]
            to_sums_GKD = to_palette_GKD / masses[step]
            to_masses_GK1 = -(to_sums_GKD * after_GKD).sum(2, keepdim=True)
            to_palette_GKD = torch.zeros_like(palette_GKD)
            for chunk_GND, given_GND, found_chunk_GND in zip(rows, given, found, strict=True):
                attention_GKN, raw_GKN = _attention(chunk_GND, palette_GKD, temperature)
                found_chunk_GND += attention_GKN.mT @ to_sums_GKD
                to_raw_GKN = torch.baddbmm(to_masses_GK1, to_sums_GKD, chunk_GND.mT)
                if step == len(masses) - 1:
                    to_raw_GKN.baddbmm_(after_GKD, given_GND.mT)
                weighted_GKN = to_raw_GKN.mul_(raw_GKN).mul_(raw_GKN >= FLOOR)  # no gradient below the floor
                to_distance_GKN = weighted_GKN.addcmul_(raw_GKN, weighted_GKN.sum(1, keepdim=True), value=-1)
                to_distance_GKN *= 2 / temperature
                found_chunk_GND += to_distance_GKN.mT @ palette_GKD
                to_palette_GKD += to_distance_GKN @ chunk_GND - to_distance_GKN.sum(2, keepdim=True) * palette_GKD
        return found_GND, None, None, None


def gathered(rows_GND: Tensor, centroids_GKD: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
    """What each entry attends to: the sum of rows [G, K, D] and how many they are [G, K, 1]."""
    sums_GKD, masses_GK1 = torch.zeros_like(centroids_GKD), torch.zeros_like(centroids_GKD[..., :1])
    for chunk_GND in _chunks(rows_GND, centroids_GKD):
        attention_GKN, _ = _attention(chunk_GND, centroids_GKD, temperature)
        sums_GKD += attention_GKN @ chunk_GND
        masses_GK1 += attention_GKN.sum(2, keepdim=True)
    return sums_GKD, masses_GK1


def _chunks(rows_GND: Tensor, centroids_GKD: Tensor) -> Sequence[Tensor]:
    return torch.split(rows_GND, max(1, CHUNK_ELEMENTS // centroids_GKD[..., 0].numel()), 1)


def _attention(rows_GND: Tensor, centroids_GKD: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
    """[G, K, N]: how much of each row each entry has, over the entries a little more than 1; and before the floor."""
    rows_GDN = rows_GND.mT.contiguous()  # long runs of memory: many times as fast for small palettes
    distances = (rows_GDN[:, None, 0] - centroids_GKD[..., 0, None]).square_()
    for axis in range(1, rows_GDN.shape[1]):
        distances += (rows_GDN[:, None, axis] - centroids_GKD[..., axis, None]).square_()
    logits_GKN = distances.div_(-temperature)
    logits_GKN -= logits_GKN.amax(1, keepdim=True)
    raw_GKN = logits_GKN.clamp_(min=LEAST).exp_()
    raw_GKN /= raw_GKN.sum(1, keepdim=True)
    return raw_GKN.clamp(min=FLOOR), raw_GKN
