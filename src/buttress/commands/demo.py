"""`buttress demo`: does a small model gain from what a teacher said? On embedded digits, or on a folder of images."""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from buttress.sources import Source
    from buttress.store.reader import Reinforcement
    from buttress.training.comparison import Outcome
    from buttress.training.comparison_sets import ComparisonSets
    from buttress.training.settings import TrainingSettings
    from buttress.views.policy import Policy

FORMAT, VERSION = "buttress-demo", 1
MARK = ".buttress-demo"  # says that the folder is a demo's, whose results may be replaced
TEACHER_EPOCHS = 40
TEACHER_MODEL = "timm:test_resnet"  # twice the student's parameters, three times its images
FEW_VIEWS = 10_000  # up to here, starting a labelling process per core takes longer than they save
SHOWN = 12


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """What the comparison runs with, all resolved.

    Args:
        model: the student.
        size: side of its views, pixels.
        epochs: passes over the images.
        batch: images per update.
        lr: peak learning rate.
        views: stored views per image.
        policy: name or JSON file of the augmentation; empty for the one made for digits.
        seeds: trainings per row.
    """

    model: str
    size: int
    epochs: int
    batch: int
    lr: float
    views: int
    policy: str
    seeds: int


DIGITS = DemoSettings(model="timm:test_mambaout", size=32, epochs=60, batch=50, lr=2e-3, views=20, policy="", seeds=3)
FOLDER = DemoSettings(
    model="timm:mobilenetv3_small_050", size=96, epochs=60, batch=64, lr=1e-3, views=20, policy="randaug", seeds=3
)


def demo(
    *,
    data: str | None = None,
    teacher: str | None = None,
    val: str | None = None,
    out: Path = Path("demo"),
    model: str | None = None,
    size: int | None = None,
    epochs: int | None = None,
    batch: int | None = None,
    lr: float | None = None,
    views: int | None = None,
    policy: str | None = None,
    seeds: int | None = None,
) -> int:
    """Show the gain: the same small model, trained on the same images raw and reinforced.

    Without --data it takes handwritten digits, a fifth of them wrongly labelled, and trains a teacher on others.
    It writes report.html, results.json and predictions.safetensors, and exits 1 where there is no gain.

    Args:
        data: your own images in class sub-folders; the default is embedded digits.
        teacher: who labels them, e.g. timm:NAME.TAG or run:DIR; needed with --data.
        val: labelled images to score on; the default holds back a fifth of --data.
        out: folder of the results, replaced when it is a demo's.
        model: the student (default: timm:test_mambaout for digits, else timm:mobilenetv3_small_050).
        size: side of the student's views in pixels (default: 32 for digits, else 96).
        epochs: passes over the images (default: 60).
        batch: images per update (default: 50 for digits, else 64).
        lr: peak learning rate (default: 2e-3 for digits, else 1e-3).
        views: stored views per image (default: 20).
        policy: augmentation: crop, randaug, mix, mix+randaug, small, small-crop, small-mix, small-mix+randaug,
            or a JSON file (default: a mild crop for digits, else randaug).
        seeds: trainings per row of the table (default: 3).
    """
    given = {"model": model, "size": size, "epochs": epochs, "batch": batch, "lr": lr, "views": views, "policy": policy}
    settings = _settings(DIGITS if data is None else FOLDER, {**given, "seeds": seeds})
    asked = {"data": data, "teacher": teacher, "val": val, "out": out, **given, "seeds": seeds}
    words = [word for name, value in asked.items() if value is not None for word in (f"--{name}", str(value))]
    _check_ready(out, [teacher, data, val])
    sets = _sets(data, teacher, val)
    _make_room(out)
    results = _run(sets, teacher, settings, out, shlex.join(["buttress", "demo", *words]))
    _print_table(results, out)
    return 0 if results["gain"]["holds"] else 1


def _settings(defaults: DemoSettings, given: dict[str, Any]) -> DemoSettings:
    from dataclasses import replace

    from buttress.errors import SettingsError

    settings = replace(defaults, **{name: value for name, value in given.items() if value is not None})
    if settings.seeds < 1:
        raise SettingsError(f"--seeds {settings.seeds}: at least 1 training per row")
    if settings.size < 1:
        raise SettingsError(f"--size {settings.size}: at least 1 pixel")
    return settings


def _sets(data: str | None, teacher: str | None, val: str | None) -> ComparisonSets:
    from buttress.errors import SettingsError
    from buttress.training.comparison_sets import digit_sets, own_sets

    if data is None:
        if val is not None:
            raise SettingsError("--val belongs to --data; the digits bring their own test set")
        return digit_sets()
    if teacher is None:
        raise SettingsError("--data needs --teacher; tune one by `buttress train`, or name timm:NAME.TAG")
    return own_sets(_as_uri(data), None if val is None else _as_uri(val))


def _as_uri(text: str) -> str:
    return f"folder:{text}" if Path(text).is_dir() else text


def _check_ready(out: Path, inputs: Sequence[str | None]) -> None:
    """Fail before the work, not after it."""
    from buttress.errors import SettingsError
    from buttress.files import require_own_folder
    from buttress.pages.templates import require_libraries

    require_libraries()
    if not out.is_file():
        require_own_folder(out, lambda _: True, "a demo's")
    if out.exists() and not (out / MARK).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise SettingsError(f"{out}: holds something that is not a demo's; name another --out")
    for text in filter(None, inputs):
        if Path(text.split(":", 1)[-1].split("@", 1)[-1]).resolve().is_relative_to(out.resolve()):
            raise SettingsError(f"{text}: lies in {out}, which is replaced; name another --out")


def _make_room(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).touch()
    for name in ("teacher", "reinforcement", "runs"):
        if (out / name).exists():
            shutil.rmtree(out / name)
    for name in ("results.json", "predictions.safetensors", "report.html"):
        (out / name).unlink(missing_ok=True)


def _run(sets: ComparisonSets, teacher: str | None, settings: DemoSettings, out: Path, command: str) -> dict[str, Any]:

    from buttress.errors import SettingsError
    from buttress.files import read_json, write_json
    from buttress.pages.demo import write_demo_report
    from buttress.pages.gallery import gallery
    from buttress.training.comparison import compare

    clock = _Clock()
    _limit_threads(settings.size)
    policy, training = _policy(settings), _training(settings)
    uri, top1 = teacher, None
    if uri is None:
        with clock.part("teacher trained"):
            uri, top1 = _train_teacher(sets, settings, policy, out / "teacher")
    with clock.part("images labelled"):
        store = _reinforce(sets.train, uri, settings, policy, out / "reinforcement")
    arms = _arms(sets, policy, store)
    with clock.part(f"{len(arms) * settings.seeds} students trained and scored"):
        outcomes = compare(
            arms,
            model=settings.model,
            size=settings.size,
            settings=training,
            seeds=range(settings.seeds),
            test=sets.test,
            out=out / "runs",
        )
    images, shown = gallery(sets.train, sets.truths, store, size=settings.size, count=SHOWN)
    found = _results(sets, settings, policy, store, outcomes)
    found |= {"command": command, "teacher": {"name": uri, "top1": top1}, "views": shown, "seconds": clock.seconds()}
    _save_predictions(outcomes, out / "predictions.safetensors")
    write_json(out / "results.json", found)
    results: dict[str, Any] = read_json(out / "results.json", SettingsError)
    write_demo_report(results, images, out / "report.html")
    return results


def _limit_threads(size: int) -> None:
    """One thread where views are so small that more of them only wait for one another."""
    import torch

    if size <= 32:
        torch.set_num_threads(1)


def _policy(settings: DemoSettings) -> Policy:
    from buttress.views.policy import Policy, RandomResizedCrop
    from buttress.views.presets import read_policy

    if settings.policy:
        return read_policy(settings.policy)
    return Policy((RandomResizedCrop(scale=(0.6, 1.0)),))  # a digit has a left and a right, so it is never flipped


def _training(settings: DemoSettings) -> TrainingSettings:
    from buttress.training.settings import EngineSettings, TrainingSettings

    return TrainingSettings(
        epochs=settings.epochs,
        batch=settings.batch,
        lr=settings.lr,
        workers=0,
        engine=EngineSettings(checkpoint_every=settings.epochs),
    )


def _train_teacher(sets: ComparisonSets, settings: DemoSettings, policy: Policy, out: Path) -> tuple[str, float]:
    """The run's URI and its top-1 on the test images."""
    from dataclasses import replace

    from buttress.metrics.score import score
    from buttress.training.data import TrainingData
    from buttress.training.settings import EngineSettings
    from buttress.training.train import train_on_source

    assert sets.teacher is not None
    engine = EngineSettings(checkpoint_every=TEACHER_EPOCHS)
    training = replace(_training(settings), epochs=TEACHER_EPOCHS, engine=engine)
    data = TrainingData(source=sets.teacher, policy=policy)
    run = train_on_source(data, model=TEACHER_MODEL, out=out, settings=training, size=settings.size)
    top1 = score(run.load_model(), sets.test).figures["top1"]["value"]
    assert top1 is not None
    return f"run:{out}", float(top1)


def _reinforce(source: Source, teacher: str, settings: DemoSettings, policy: Policy, out: Path) -> Reinforcement:
    from buttress.labelling.label import label_source
    from buttress.labelling.settings import LabelSettings
    from buttress.store.reader import open_reinforcement
    from buttress.teachers.teacher import TeacherSpec

    assert source.classes is not None
    spec = TeacherSpec(uri=teacher, source_classes=tuple(source.classes))
    workers = 0 if settings.views * len(source) <= FEW_VIEWS else None
    label_source(source, spec, policy, LabelSettings(views=settings.views, workers=workers), out)
    return open_reinforcement(out)


def _arms(sets: ComparisonSets, policy: Policy, store: Reinforcement) -> list[Any]:
    from buttress.training.comparison import Arm
    from buttress.training.data import TrainingData

    raw = f"the labels, {sets.planted} of {len(sets.train)} wrong" if sets.planted else "the labels"
    arms = [
        Arm(name="raw", title=raw, data=TrainingData(source=sets.train, policy=policy)),
        Arm(name="reinforced", title="reinforced", data=TrainingData(source=sets.train, reinforcement=store)),
    ]
    if sets.clean is not None:
        data = TrainingData(source=sets.clean, policy=policy)
        arms.append(Arm(name="clean", title="the labels, all right", data=data))
    return arms


def _results(
    sets: ComparisonSets, settings: DemoSettings, policy: Policy, store: Reinforcement, outcomes: Sequence[Outcome]
) -> dict[str, Any]:
    from dataclasses import asdict

    from buttress.training.comparison import gain_of, row_of
    from buttress.versions import library_versions

    rows = [row_of(outcome) for outcome in outcomes]
    return {
        "format": FORMAT,
        "version": VERSION,
        "rows": rows,
        "gain": gain_of(*rows),
        "data": {"uri": sets.train.uri, "train": len(sets.train), "test": len(sets.test), "planted": sets.planted},
        "student": {"model": settings.model, "seeds": list(range(settings.seeds)), "steps": outcomes[0].steps},
        "store": {
            "bytes": sum(file.stat().st_size for file in store.path.iterdir()),
            "samples": store.rows,
            "views": store.views,
            "stride": store.codec.stride,
        },
        "setup": {
            **asdict(settings),
            "policy": ", ".join(map(str, policy.ops)),
            "images": sets.train.uri,
            "test images": sets.test.uri,
        },
        "versions": library_versions(),
    }


def _save_predictions(outcomes: Sequence[Outcome], path: Path) -> None:
    import safetensors.numpy

    from buttress.files import write_atomic

    tensors = {f"{each.arm.name}/{seed}": logits for each in outcomes for seed, logits in each.logits.items()}
    write_atomic(path, safetensors.numpy.save({**tensors, "labels": outcomes[0].labels}))


class _Clock:
    """Seconds of the parts of the work."""

    def __init__(self) -> None:
        self._start, self._parts = time.perf_counter(), dict[str, float]()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a part."""
        start = time.perf_counter()
        yield
        self._parts[name] = time.perf_counter() - start

    def seconds(self) -> list[dict[str, Any]]:
        """Every part in its order, and all of it so far."""
        parts = {**self._parts, "in all": time.perf_counter() - self._start}
        return [{"part": name, "seconds": value} for name, value in parts.items()]


def _print_table(results: dict[str, Any], out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from buttress.pages.demo import headline
    from buttress.pages.text import decimals, points

    table = Table(title=headline(results["gain"]), caption=f"{out / 'report.html'}", title_justify="left")
    table.add_column(f"{results['student']['model']}, trained on")
    for name in ("top-1 %", "ECE %", "NLL"):
        table.add_column(name, justify="right")
    for row in results["rows"]:
        cells = [
            text(row[name]["mean"]) + ("" if row[name]["sd"] is None else f" ± {text(row[name]['sd'])}")
            for name, text in (("top1", points), ("ece", points), ("nll", lambda value: decimals(value, 3)))
        ]
        table.add_row(row["title"], *cells)
    Console().print(table)
