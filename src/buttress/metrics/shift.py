"""Whether a prediction stays when its image moves by one pixel. Shapes: N images, D directions, S side, M margin."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from buttress.errors import SourceError
from buttress.loading.targets import Batch
from buttress.metrics.crops import Canvas, Look, chosen_crop, chosen_turn, middle_crop
from buttress.metrics.evaluate import batch_logits, evaluating
from buttress.metrics.intervals import Figure, bootstrap, mean_of
from buttress.metrics.score import AS_IT_IS, Scoring, evaluation_device, scored_classes
from buttress.models.load import LoadedModel
from buttress.sources import Source
from buttress.terminal import progress

DIRECTIONS = ((-1, 0), (1, 0), (0, -1), (0, 1))


@dataclass(frozen=True, slots=True)
class Shifts:
    """Which predictions changed, for each of the four directions.

    Args:
        camera_DN: bool [D, N], when the crop moves by one pixel over the photograph, as a camera would.
        cyclic_DN: bool [D, N], when the crop's pixels move by one, and those that fall out come in on the other side.
    """

    camera_DN: NDArray[np.bool_]
    cyclic_DN: NDArray[np.bool_]

    def figures(self) -> dict[str, Figure]:
        """`shift_camera` and `shift_cyclic`: the share of predictions that change, the mean of the directions.

        Their intervals are over images.
        """
        camera_N, cyclic_N = self.camera_DN.mean(axis=0), self.cyclic_DN.mean(axis=0)
        return bootstrap({"shift_camera": mean_of(camera_N), "shift_cyclic": mean_of(cyclic_N)}, len(camera_N))


def score_shifted(loaded: LoadedModel, source: Source, how: Scoring = AS_IT_IS) -> Shifts:
    """Compare predictions of images and of the same moved by one pixel up, down, left and right.

    Args:
        loaded: the model.
        source: images of known classes; those that cannot be decoded are left out.
        how: as for `score`.

    Raises: SourceError, ModelError: no image can be decoded, or as `score`.
    """
    chosen = scored_classes(loaded, source, how.class_map)
    assert chosen.classes is not None
    classes, groups = len(chosen.classes), chosen.groups
    side = loaded.preprocessing.size
    canvas = Canvas.of(loaded.preprocessing)
    look: Look = chosen_crop(side) if how.consistent else middle_crop(side)
    turned: Look = chosen_turn if how.consistent else _as_it_is
    loader = canvas.loader(source, batch=how.batch, workers=how.workers, max_bad=how.max_bad)
    camera: list[NDArray[np.bool_]] = []
    cyclic: list[NDArray[np.bool_]] = []

    def told(images: list[NDArray[np.uint8]], like: Batch) -> NDArray[np.int64]:
        views = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        said: NDArray[np.int64] = (
            batch_logits(loaded.module, replace(like, images=views), loaded.preprocessing, classes, groups)
            .argmax(dim=1)
            .numpy()
        )
        return said

    with evaluating(loaded.module, evaluation_device()), progress("shifted", len(source), "images") as bar:
        for found in loader:
            photos = list(found.images.permute(0, 2, 3, 1).contiguous().numpy())
            still = [canvas.at(photo, 0, 0) for photo in photos]
            plain = told([look(photo) for photo in still], found)
            moved = [
                told([look(canvas.at(photo, down, right)) for photo in photos], found) for down, right in DIRECTIONS
            ]
            camera.append(np.stack([each != plain for each in moved]))
            middles = [middle_crop(side)(photo) for photo in still]
            plain = told([turned(photo) for photo in middles], found) if how.consistent else plain
            rolled = [
                told([turned(np.roll(photo, step, axis=(0, 1))) for photo in middles], found) for step in DIRECTIONS
            ]
            cyclic.append(np.stack([each != plain for each in rolled]))
            bar.advance(len(photos))
    if not camera:
        raise SourceError(f"{source.uri}: no image to shift")
    return Shifts(np.concatenate(camera, axis=1), np.concatenate(cyclic, axis=1))


def _as_it_is(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return image
