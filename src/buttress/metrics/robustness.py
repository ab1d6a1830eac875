"""How a model holds when its images are corrupted. Shapes: N images, S severities."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray

from buttress.loading.targets import Batch
from buttress.metrics.corruptions import COMMON, CORRUPTIONS, SEVERITIES, corrupt
from buttress.metrics.evaluate import batch_logits, evaluating
from buttress.metrics.intervals import Figure, bootstrap, figure, fraction, mean_of
from buttress.metrics.score import AS_IT_IS, Scoring, evaluation_device, scored_batches
from buttress.models.load import LoadedModel
from buttress.sources import Source, Subset
from buttress.sources.identity import id_hashes
from buttress.terminal import progress

CLEAN = "clean"
HELD = 512  # images in memory at once, three times over


@dataclass(frozen=True, slots=True)
class Robustness:
    """Which images were told right, clean and corrupted.

    Args:
        clean_N: bool, on the images as they are.
        corrupted_SN: corruption -> bool [S, N], severity 1 first.
    """

    clean_N: NDArray[np.bool_]
    corrupted_SN: Mapping[str, NDArray[np.bool_]]

    def figures(self) -> dict[str, Figure]:
        """`corruption_error`: the mean error, 0..1, over the 15 common corruptions and 5 severities, equally weighted.

        Its interval is over images. The mean corruption error (`mean_corruption_error`) weighs them by a baseline's.
        """
        wrong_N = 1 - np.mean([self.corrupted_SN[name].mean(axis=0) for name in COMMON], axis=0)
        return bootstrap({"corruption_error": mean_of(wrong_N)}, len(wrong_N))

    def details(self) -> dict[str, Any]:
        """Top-1 of the same images clean, and of each corruption by severity, ready for JSON."""
        count = len(self.clean_N)
        told = {
            name: [fraction(int(hits_N.sum()), count) for hits_N in hits_SN]
            for name, hits_SN in self.corrupted_SN.items()
        }
        return {CLEAN: fraction(int(self.clean_N.sum()), count), **told}


def corrupted_scores(
    loaded: LoadedModel,
    images: Batch,
    *,
    classes: int,
    groups: Sequence[Sequence[int]] | None,
    device: str,
    seed: int = 0,
    batch: int = 64,
    workers: int = 2,
) -> Robustness:
    """Run a model over every corruption and severity of the images.

    Args:
        loaded: the model.
        images: all of them as one batch, as the model sees them, with hard labels; corrupted at that size.
        classes, groups: as for `batch_logits`.
        device: where to run.
        seed: of the corruptions; each image's depends on it and on the sample's id.
        batch: images per forward pass.
        workers: threads that corrupt images while the model looks at those before.
    """
    assert isinstance(images.targets, torch.Tensor)
    labels_N = images.targets
    hits: dict[str, list[NDArray[np.bool_]]] = {name: [] for name in (CLEAN, *CORRUPTIONS)}
    conditions = [(CLEAN, 0), *((name, severity) for name in CORRUPTIONS for severity in SEVERITIES)]
    total = len(conditions) * len(labels_N)
    with evaluating(loaded.module, device), progress("corrupted", total, "images") as bar:
        for (name, _), part in zip(conditions, _corrupted(images, conditions, seed, workers), strict=True):
            said = []
            for few in part.parts(batch):
                said.append(batch_logits(loaded.module, few, loaded.preprocessing, classes, groups).argmax(dim=1))
                bar.advance(len(few.ids))
            hits[name].append((torch.cat(said) == labels_N).numpy())
    (clean_N,) = hits.pop(CLEAN)
    return Robustness(clean_N, {name: np.stack(rows) for name, rows in hits.items()})


def _corrupted(images: Batch, conditions: Sequence[tuple[str, int]], seed: int, workers: int) -> Iterator[Batch]:
    """The images under each condition; the next is made while one is looked at."""
    clean_NHW3 = images.images.permute(0, 2, 3, 1).contiguous().numpy()
    hashes = [int(value) for value in id_hashes(images.ids)]

    def one(name: str, severity: int, place: int, out_NHW3: NDArray[np.uint8]) -> None:
        out_NHW3[place] = corrupt(clean_NHW3[place], name, severity, seed=seed, id_hash=hashes[place])

    with ThreadPoolExecutor(max(workers, 1)) as pool:

        def begin(name: str, severity: int) -> tuple[NDArray[np.uint8], list[Any]]:
            out_NHW3 = np.empty_like(clean_NHW3)
            if name == CLEAN:
                out_NHW3[:] = clean_NHW3
                return out_NHW3, []
            return out_NHW3, [pool.submit(one, name, severity, place, out_NHW3) for place in range(len(hashes))]

        following = begin(*conditions[0])
        for number in range(len(conditions)):
            (out_NHW3, jobs), rest = following, conditions[number + 1 : number + 2]
            for job in jobs:
                job.result()
            following = begin(*rest[0]) if rest else (out_NHW3, [])
            yield Batch(torch.from_numpy(out_NHW3).permute(0, 3, 1, 2), images.targets, images.ids)


def score_corrupted(loaded: LoadedModel, source: Source, how: Scoring = AS_IT_IS, *, seed: int = 0) -> Robustness:
    """`corrupted_scores` of the labelled images of a source; corruptions are of the middle crop.

    Args:
        loaded, source, how: as for `score`.
        seed: of the corruptions.

    Raises: SourceError, ModelError: as `score`.
    """
    batches, chosen = scored_batches(loaded, source, replace(how, consistent=False))
    assert chosen.classes is not None
    parts = [
        corrupted_scores(
            loaded,
            images,
            classes=len(chosen.classes),
            groups=chosen.groups,
            device=evaluation_device(),
            seed=seed,
            batch=how.batch,
            workers=how.workers,
        )
        for images in _gathered(batches)
    ]
    return Robustness(
        np.concatenate([part.clean_N for part in parts]),
        {name: np.concatenate([part.corrupted_SN[name] for part in parts], axis=1) for name in CORRUPTIONS},
    )


def _gathered(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Batches of `HELD` images, so that a large sample does not fill the memory."""
    found: list[Batch] = []
    for batch in batches:
        found.append(batch)
        if sum(len(each.ids) for each in found) >= HELD:
            yield _together(found)
            found = []
    if found:
        yield _together(found)


def _together(found: Sequence[Batch]) -> Batch:
    targets = [each.targets for each in found if isinstance(each.targets, torch.Tensor)]
    ids = tuple(chain.from_iterable(each.ids for each in found))
    return Batch(torch.cat([each.images for each in found]), torch.cat(targets), ids)


def decodable(source: Source, ids: Iterable[str]) -> Subset:
    """The samples of these ids, in the order of the source: of those that were scored none is broken."""
    known = set(ids)
    return Subset(source, [place for place, sample_id in enumerate(source.ids) if sample_id in known])


def sampled(source: Source, count: int, seed: int) -> Subset:
    """The `balanced_sample` of a source.

    The arguments are its own.
    """
    return Subset(source, balanced_sample(np.asarray(source.labels), source.ids, count, seed))


def balanced_sample(labels_N: NDArray[np.integer[Any]], ids: Sequence[str], count: int, seed: int) -> NDArray[np.int64]:
    """Places of at most `count` labelled samples, as many of each class as can be, in the order of the source.

    Which ones depends on the seed and on their ids, not on their order.
    """
    key_N = id_hashes(ids) ^ np.uint64(int(np.random.Philox(key=seed).random_raw()))
    order = np.lexsort((key_N, labels_N))
    order = order[labels_N[order] >= 0]
    _, first, counts = np.unique(labels_N[order], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(first, counts)
    chosen = order[np.lexsort((key_N[order], rank))][:count]
    return np.sort(chosen)


def mean_corruption_error(
    told: Mapping[str, Any], baseline: Mapping[str, Any], *, relative: bool = False
) -> float | None:
    """mCE, 1 = as the baseline; or relative mCE, of what corruption adds to the clean error.

    Hendrycks and Dietterich 2019 (arXiv 1903.12261, section 4.2): for each common corruption the errors of all
    severities over those of the baseline, then the mean. None where the baseline has no such error, or corruption
    takes some off.

    Args:
        told, baseline: as `Robustness.details` has them.
        relative: of each error the clean one is taken off.
    """

    def errors(details: Mapping[str, Any], name: str) -> float:
        clean = 1 - float(details[CLEAN]["value"]) if relative else 0.0
        return round(sum(1 - float(figure["value"]) - clean for figure in details[name]), 9)

    if min(errors(baseline, name) for name in COMMON) <= 0:
        return None
    return float(np.mean([errors(told, name) / errors(baseline, name) for name in COMMON]))


def errors_against(found: Robustness, baseline: Mapping[str, Any]) -> dict[str, Figure]:
    """`mce` and `relative_mce`, 1 = as the baseline; without interval."""
    told, count = found.details(), len(found.clean_N)
    return {
        name: figure(mean_corruption_error(told, baseline, relative=relative), count)
        for name, relative in (("mce", False), ("relative_mce", True))
    }


def are_details(value: Any) -> TypeGuard[Mapping[str, Any]]:
    """Whether that is what `Robustness.details` makes, of the common corruptions at least."""
    try:
        clean = float(value[CLEAN]["value"])
        tops = [float(each["value"]) for name in COMMON for each in value[name]]
    except (TypeError, KeyError, ValueError):
        return False
    return len(tops) == len(COMMON) * len(SEVERITIES) and all(0 <= top1 <= 1 for top1 in (clean, *tops))
