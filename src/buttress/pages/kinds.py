"""What the figures of an evaluation are called on a page, how they are written, and which way is better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from buttress.pages.text import decimals, points

NO_BREAK = "\N{NO-BREAK SPACE}"
Better = Literal["higher", "lower"]
Of = Literal["images", "part", "machine", "model"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """One kind of figure.

    Args:
        key: its name in the document.
        title: its name on the page, with the unit.
        better: which way is better, none where neither is.
        of: what two of them must share to be compared: all images, the part that was corrupted, or the machine.
        text: how a value is written.
        factor: a difference is told as a factor, as of sizes and times.
    """

    key: str
    title: str
    better: Better | None = "lower"
    of: Of = "images"
    text: Callable[[float], str] = points
    factor: bool = False


def fixed(value: float) -> str:
    """Three decimals."""
    return decimals(value, 3)


def fine(value: float) -> str:
    """Four decimals."""
    return decimals(value, 4)


def short(value: float) -> str:
    """Three figures and a thousand's unit: 912, 1.24 k, 3.5 M."""
    size, units = float(value), ["", *(f"{NO_BREAK}{letter}" for letter in "kMGTP")]
    while abs(size) >= 999.5 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.3g}{units[0]}"


def short_bytes(value: float) -> str:
    """Bytes with a thousand's unit."""
    text = short(value)
    return f"{text}B" if text[-1].isalpha() else f"{text}{NO_BREAK}B"


def short_seconds(value: float) -> str:
    """Seconds in the unit that suits them."""
    if value <= 0 or value >= 0.9995:
        return f"{value:.3g}{NO_BREAK}s"
    milli, micro = f"{1e3 * value:.3g}{NO_BREAK}ms", f"{1e6 * value:.3g}{NO_BREAK}\N{MICRO SIGN}s"
    return milli if value >= 0.9995e-3 else micro


GROUPS: tuple[tuple[str, tuple[Kind, ...]], ...] = (
    (
        "Right answers",
        (
            Kind(key="top1", title="top-1, %", better="higher"),
            Kind(key="top5", title="top-5, %", better="higher"),
            Kind(key="balanced_accuracy", title="balanced accuracy, %", better="higher"),
            Kind(key="real_top1", title="top-1, ReaL labels, %", better="higher"),
            Kind(key="multilabel_top1", title="top-1, any right label, %", better="higher"),
        ),
    ),
    (
        "Probabilities",
        (
            Kind(key="nll", title="NLL, nat", text=fixed),
            Kind(key="nll_scaled", title="NLL after temperature, nat", text=fixed),
            Kind(key="brier", title="Brier score", text=fixed),
            Kind(key="ece", title="ECE, %"),
            Kind(key="ece_scaled", title="ECE after temperature, %"),
            Kind(key="ece_adaptive", title="ECE, bins of equal counts, %"),
            Kind(key="ece_classwise", title="ECE, class-wise, %"),
            Kind(key="temperature", title="best temperature", better=None, text=fixed),
            Kind(key="aurc", title="area under risk-coverage", text=fine),
        ),
    ),
    (
        "Robustness",
        (
            Kind(key="corruption_error", title="error when corrupted, %", of="part"),
            Kind(key="mce", title="mCE, its baseline = 1", of="part", text=fixed),
            Kind(key="relative_mce", title="relative mCE, its baseline = 1", of="part", text=fixed),
            Kind(key="shift_camera", title="changed by a camera\N{RIGHT SINGLE QUOTATION MARK}s pixel, %", of="part"),
            Kind(key="shift_cyclic", title="changed by a cyclic pixel, %", of="part"),
        ),
    ),
    (
        "Cost",
        (
            Kind(key="parameters", title="parameters", of="model", text=short, factor=True),
            Kind(key="bytes", title="weights on disk", of="model", text=short_bytes, factor=True),
            Kind(key="macs", title="MACs of an image", of="model", text=short, factor=True),
            Kind(key="peak_memory", title="activations, batch 1", of="model", text=short_bytes, factor=True),
            Kind(key="latency", title="latency, batch 1", of="machine", text=short_seconds, factor=True),
            Kind(key="throughput", title="images a second", better="higher", of="machine", text=short, factor=True),
        ),
    ),
)
KINDS = {kind.key: kind for _, kinds in GROUPS for kind in kinds}
