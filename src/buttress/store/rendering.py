"""Does this machine draw the views that the teacher saw? Decided by drawing the stored probe views again."""

from __future__ import annotations

from typing import Final

from buttress.errors import StoreError
from buttress.store.reader import Reinforcement
from buttress.versions import library_versions
from buttress.views.probes import compare_probes, probe_views
from buttress.views.render import RENDERER, RENDERER_VERSION

TOLERANCE: Final = 2.0
"""Largest mean difference of a grey level, 0..255, that is still the same look."""


def check_renderer(reinforcement: Reinforcement) -> str | None:
    """Draw the probe views again and compare.

    Returns:
        None where they are equal, else a line about the difference, which is small enough to go on.

    Raises:
        StoreError: another renderer, or views that look different.
    """
    card = reinforcement.card
    if (card.renderer.id, card.renderer.version) != (RENDERER, RENDERER_VERSION):
        raise StoreError(
            f"{reinforcement.path}: its views were drawn by the renderer {card.renderer.id} version "
            f"{card.renderer.version}, this buttress has {RENDERER} version {RENDERER_VERSION}; install the one that "
            f"made it ({card.versions.get('buttress', 'unknown')}), or run buttress reinforce anew into another folder"
        )
    difference = compare_probes(reinforcement.probes(), probe_views(card.policy, card.seed))
    if difference == 0:
        return None
    installed = library_versions()
    changed = ", ".join(
        f"{name} {was} -> {installed.get(name)}"
        for name, was in sorted(card.probes.versions.items())
        if installed.get(name) != was
    )
    line = f"{difference:.3f} grey levels on average ({changed or 'same versions, another kind of machine'})"
    if difference > TOLERANCE:
        raise StoreError(
            f"{reinforcement.path}: this machine draws its views {line} off, more than {TOLERANCE:.0f}; install the "
            "versions that made it, or run buttress reinforce anew into another folder"
        )
    return f"{reinforcement.path}: views are drawn with a difference of {line}"
