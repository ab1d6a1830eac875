"""Pixels of a view: one renderer for the teacher and for the student, at any size.

Version 1 in short (docs/views.md in full): crop, then flip and all geometric ops of RandAugment as one warp, then its
colour ops, then erasing, then mixing with the same view of another image. Every choice is a function of sizes and
parameters alone, so the same sample, view and size give the same bytes in any process of one kind of machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from buttress.sources.decode import UndecodableImage, decode, image_size
from buttress.sources.tiles import Tiles
from buttress.views.colour import apply_colour
from buttress.views.draw import Box, Drawer, Mix, ViewParameters
from buttress.views.geometry import is_warped, pixel_matrix, view_to_crop
from buttress.views.mix import mix_into
from buttress.views.policy import Policy
from buttress.views.resample import cut, resize_antialiased, resize_into, size_of

RENDERER = "opencv-linear"
RENDERER_VERSION = 1
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)

Pixels = NDArray[np.uint8]  # [H, W, 3], RGB
Picture = tuple[bytes | Pixels, int]  # an image, encoded or not, and its id hash
Pictures = Callable[[int], Picture]  # row -> picture

# Images are spread over processes; OpenCV's own threads would only compete with them.
cv2.setNumThreads(0)


class UndecodablePartner(UndecodableImage):
    """The image that a view is mixed with cannot be read or decoded.

    Args:
        row: of that image.
        reason: why.
    """

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(row, reason)
        self.row = row

    def __str__(self) -> str:
        return f"the image of row {self.row}, which the view is mixed with: {self.args[1]}"


def render(
    image_HWC: Pixels,
    parameters: ViewParameters,
    size: int | tuple[int, int],
    out: Pixels | None = None,
    partner_HWC: Pixels | None = None,
) -> Pixels:
    """Draw one view.

    Args:
        image_HWC: uint8 RGB [H, W, 3], left untouched.
        parameters: what `Drawer.parameters` drew for this image.
        size: side of a square view, or (height, width); at least 1.
        out: uint8 [height, width, 3], C-contiguous, to draw into (a row of a batch); a new array when None.
        partner_HWC: uint8 [height, width, 3], the finished view that a mixed one is mixed with; else None.

    Returns: the view, uint8 [height, width, 3]; `out` where given.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if out is None:
        out = np.empty((height, width, 3), dtype=np.uint8)
    assert image_HWC.dtype == out.dtype == np.uint8, (image_HWC.dtype, out.dtype)
    assert image_HWC.shape[2:] == (3,), image_HWC.shape
    assert out.shape == (height, width, 3), out.shape
    assert out.flags.c_contiguous
    assert (partner_HWC is None) == (parameters.mix is None), parameters.mix
    if is_warped(parameters):
        _warp_into(image_HWC, parameters, out)
    else:
        _crop_into(image_HWC, parameters, out)
        if parameters.flip:
            cv2.flip(out, 1, dst=out)
    coloured = apply_colour(out, parameters.augment)
    if coloured is not out:
        np.copyto(out, coloured)
    for box in parameters.erase:
        _erase(out, box)
    if parameters.mix is not None and partner_HWC is not None:
        mix_into(out, partner_HWC, parameters.mix)
    return out


def _needed(data: bytes | Pixels, drawer: Drawer, id_hash: int, view: int) -> tuple[Pixels, ViewParameters]:
    """The pixels that a view shows, decoded, and what happens to them: of a tiled JPEG the crop alone."""
    tiles = Tiles.of(data) if isinstance(data, bytes) else None
    if tiles is not None:
        parameters = drawer.parameters(id_hash, view, tiles.size)
        if parameters.antialias is None:  # those filters reach beyond the box
            return cut(tiles, parameters.box), parameters._replace(box=WHOLE)
    image_HWC = decode(data)
    return image_HWC, drawer.parameters(id_hash, view, size_of(image_HWC))


def _crop_into(image_HWC: Pixels, parameters: ViewParameters, out_HWC: Pixels) -> None:
    if parameters.antialias is None:
        resize_into(cut(image_HWC, parameters.box), out_HWC)
    else:
        resize_antialiased(image_HWC, parameters.box, out_HWC, parameters.antialias)


def _warp_into(image_HWC: Pixels, parameters: ViewParameters, out_HWC: Pixels) -> None:
    """One warp of the crop alone, over black: what lies beyond the crop never shows.

    The warp samples the crop's own pixels where they are 1 to 2 times as dense as the output's. Denser ones would alias
    and sparser ones blur the crop's edge into the black, so then the crop is resized to the output first.
    """
    (width, height), crop_HWC = size_of(out_HWC), cut(image_HWC, parameters.box)
    dense = width <= crop_HWC.shape[1] < 2 * width and height <= crop_HWC.shape[0] < 2 * height
    if parameters.antialias is not None or not dense:
        crop_HWC = np.empty_like(out_HWC)
        _crop_into(image_HWC, parameters, crop_HWC)
    matrix = pixel_matrix(view_to_crop(parameters), (width, height), size_of(crop_HWC))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    cv2.warpAffine(crop_HWC, matrix, (width, height), dst=out_HWC, flags=flags, borderMode=cv2.BORDER_CONSTANT)


def _erase(out_HWC: Pixels, box: Box) -> None:
    """Black out a box, in place; `cut` of a box inside its image is a view of it."""
    cut(out_HWC, box)[:] = 0


class Renderer:
    """Views of encoded images under one policy and seed; picklable, holds no open handle.

    Args:
        policy: what may happen.
        seed: 0..2**63 - 1.
        rows: M, images that partners are drawn from: a reinforcement's `card.source.rows`. Needed where the policy
            mixes, of no effect elsewhere.

    Where the policy mixes, drawing needs `pictures`: a function that gives the image and the id hash of a row. It is
    called for mixed views only, and what it raises as `UndecodableImage` comes out as `UndecodablePartner`.
    """

    def __init__(self, policy: Policy, seed: int, rows: int | None = None) -> None:
        self.policy = policy
        self.seed = seed
        self.rows = rows
        self._drawer = Drawer(policy, seed, rows)
        self._alone = Drawer(policy.unmixed, seed)

    def mix(self, id_hash: int, view: int) -> Mix | None:
        """What a view is mixed with, and how; None = with nothing. Known without any image."""
        return self._drawer.mix(id_hash, view)

    def parameters(self, data: bytes | Pixels, id_hash: int, view: int) -> ViewParameters:
        """What happens to one view, without decoding the image.

        Raises: UndecodableImage when `data` has no image header.
        """
        return self._drawer.parameters(id_hash, view, image_size(data))

    def view_into(
        self, data: bytes | Pixels, id_hash: int, view: int, out_HWC: Pixels, pictures: Pictures | None = None
    ) -> None:
        """Draw one view into a row of a batch, at that row's size.

        Raises: UndecodableImage; `out_HWC` is then left as it was.
        """
        self.view_into_each(data, id_hash, view, [out_HWC], pictures)

    def view_into_each(
        self,
        data: bytes | Pixels,
        id_hash: int,
        view: int,
        outs: Sequence[Pixels],
        pictures: Pictures | None = None,
    ) -> None:
        """`view_into` rows of several sizes, from one decode of the image, and of the one that it is mixed with.

        Raises: UndecodableImage; `outs` are then left as they were.
        """
        image_HWC, parameters = _needed(data, self._drawer, id_hash, view)
        partner: tuple[Pixels, ViewParameters] | None = None
        if parameters.mix is not None:
            assert pictures is not None, "a policy that mixes needs the pictures of other rows"
            partner = self._partner(parameters.mix.partner, view, pictures)
        for out_HWC in outs:
            partner_HWC = None if partner is None else render(*partner, out_HWC.shape[:2])
            render(image_HWC, parameters, out_HWC.shape[:2], out_HWC, partner_HWC)

    def views(
        self,
        data: bytes | Pixels,
        id_hash: int,
        views: Sequence[int],
        size: int | tuple[int, int],
        pictures: Pictures | None = None,
    ) -> NDArray[np.uint8]:
        """Several views of one image from one decode: uint8 [len(views), height, width, 3], as `view_into` draws them.

        Raises: UndecodableImage.
        """
        image = data if len(views) == 1 else decode(data)
        height, width = (size, size) if isinstance(size, int) else size
        views_VHWC = np.empty((len(views), height, width, 3), dtype=np.uint8)
        for view, out_HWC in zip(views, views_VHWC, strict=True):
            self.view_into(image, id_hash, view, out_HWC, pictures)
        return views_VHWC

    def _partner(self, row: int, view: int, pictures: Pictures) -> tuple[Pixels, ViewParameters]:
        """The image of the partner, and what happens to its own view of the same number, not mixed."""
        try:
            data, id_hash = pictures(row)
            return _needed(data, self._alone, id_hash, view)
        except UndecodableImage as failure:
            raise UndecodablePartner(row, str(failure)) from failure

    def __reduce__(self) -> tuple[type[Renderer], tuple[Policy, int, int | None]]:
        return Renderer, (self.policy, self.seed, self.rows)
