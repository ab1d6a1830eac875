"""`buttress reinforce`: ask a teacher once about every view of every image, and store what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from buttress.labelling.settings import LabelSettings


def reinforce(
    *,
    source: str,
    teacher: str | list[str],
    out: Path,
    views: int = 16,
    k: int = 10,
    policy: str = "randaug",
    seed: int = 0,
    teacher_weights: list[float] | None = None,
    teacher_size: int | None = None,
    temperature: float = 1.0,
    classes: Literal["source", "teacher"] = "source",
    class_map: Path | None = None,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    forward: Literal["auto", "channels_last", "contiguous", "channels_last+compiled", "contiguous+compiled"] = "auto",
    batch: int = 32,
    workers: int | None = None,
    max_bad: float = 0.001,
    truth: bool = False,
    dry_run: bool = False,
) -> None:
    """Store what a teacher says about augmented views of a folder of images.

    Run again, it does only what is missing; with more --views or more images it adds to what is there.

    Args:
        source: the images, e.g. folder:photos/train. Labels are not needed.
        teacher: timm:NAME.TAG (hub weights), timm:NAME@FILE.safetensors, run:DIR, run:DIR@LEVEL (of an elastic
            run), or python:pkg.mod:func; given several times, the mean of their probabilities is stored.
        teacher_weights: how much each teacher counts, e.g. 2,1; the default is equally.
        out: the folder of the reinforcement.
        views: views per image; about a third of the epochs to be trained is enough.
        k: classes stored per view.
        policy: augmentation: crop, randaug (recommended), mix (MixUp and CutMix), mix+randaug; for 32-pixel sets small,
            small-crop, small-mix, small-mix+randaug; or a JSON file.
        seed: seed of the views.
        teacher_size: side of the teachers' views in pixels; the default is each teacher's own.
        temperature: divides the teachers' logits.
        classes: source cuts the teacher's answer to the images' classes; teacher keeps its own classes.
        class_map: YAML file, class of the images -> class of the teacher, where names do not say it.
        precision: auto is what is fastest on this CPU, or bf16 where the GPU has it.
        forward: the teacher's memory format, and whether torch.compile is used; auto: before a long labelling on a CPU
            all are measured.
        batch: views per forward pass.
        workers: labelling processes (with a GPU: processes that draw views for it); the default is one per core; 0 =
            this process.
        max_bad: largest share, 0..1, of images that may fail to decode; they are listed and left out.
        truth: also store the probability of each image's own class, one byte per view.
        dry_run: only say how long it would take and how much it would store.
    """
    settings = LabelSettings(views=views, k=k, seed=seed, batch=batch, workers=workers, max_bad=max_bad, truth=truth)
    from buttress.labelling.label import label_source
    from buttress.sources import open_source
    from buttress.teachers import EnsembleSpec, TeacherSpec
    from buttress.views.presets import read_policy

    images = open_source(source)
    members = [
        TeacherSpec(
            uri=uri,
            size=teacher_size,
            temperature=temperature,
            classes=classes,
            source_classes=None if images.classes is None else tuple(images.classes),
            class_map=class_map,
            precision=precision,
            forward=forward,
        )
        for uri in ([teacher] if isinstance(teacher, str) else teacher)
    ]
    spec = EnsembleSpec(members=tuple(members), weights=tuple(teacher_weights or ()))
    label_source(images, spec, read_policy(policy), settings, out, dry_run=dry_run)
