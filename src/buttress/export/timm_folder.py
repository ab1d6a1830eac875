"""A run as a folder of timm's hub layout: config.json, model.safetensors and a model card."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData

from buttress.errors import ModelError, SettingsError
from buttress.files import require_own_folder, write_atomic
from buttress.models.load import LoadedModel
from buttress.runs.run import RECIPE, WEIGHTS, Run

UNKNOWN = "unknown"
FILES = {".onnx": "onnx", ".pt2": "torch-export", ".safetensors": "safetensors"}


def export_to_timm(run: Run, out: Path) -> None:
    """Write what `timm.create_model("local-dir:OUT", pretrained=True)` reads, and the hub's `hf-hub:USER/NAME` alike.

    The weights are the run's own file. Folders of this machine stay out of the card.

    Args:
        run: a finished run of a plain network.
        out: the folder to make.

    Raises:
        ModelError: the run is compressed.
        SettingsError: `out` holds something already, cannot be made, or is named like a file of another format.
    """
    if run.methods:
        raise ModelError(
            f"{run.path}: is compressed, and timm has no such layers; use --format onnx, torch-export or safetensors"
        )
    if out.suffix in FILES:
        raise SettingsError(
            f"--out {out}: --format timm makes a folder; for such a file give --format {FILES[out.suffix]}"
        )
    from timm.models import save_for_hf

    require_own_folder(out, lambda _: False, "the exported model")
    loaded = run.load_model()
    said, names = loaded.preprocessing, {} if run.classes is None else {"label_names": list(run.classes)}
    config = {
        "input_size": [3, said.size, said.size],
        "mean": said.mean,
        "std": said.std,
        "interpolation": said.interpolation,
        "crop_pct": said.crop_pct,
    }
    arguments = {key: value for key, value in loaded.kwargs.items() if key != "num_classes"}
    save_for_hf(
        loaded.module,
        str(out),
        model_config={"pretrained_cfg": config, **names},
        model_args=arguments or None,
        safe_serialization=True,
    )
    shutil.copyfile(run.path / WEIGHTS, out / WEIGHTS)
    write_atomic(out / "README.md", model_card(run, loaded).encode())


def model_card(run: Run, loaded: LoadedModel) -> str:
    """The card in the hub's form: its metadata, what the model is, what it learnt from and how it was scored."""
    said, parameters = loaded.preprocessing, sum(each.numel() for each in loaded.module.parameters())
    what = [
        f"- Architecture: timm's `{run.model_name}`, {parameters / 1e6:.2f} M parameters, {loaded.num_classes} classes",
        f"- Input: {said.size} x {said.size} px, {said.interpolation}, crop {said.crop_pct:g}, "
        f"mean {_numbers(said.mean)}, std {_numbers(said.std)}",
        f"- Training images: {run.data['count']:,} of {without_folders(run.data['uri'])}, fingerprint "
        f"`{run.data['fingerprint']}`",
        f"- Weights it began with: {_beginning(run)}",
        f"- Reinforcement: {'none' if run.reinforcement is None else f'digest `{run.reinforcement}`'}",
        *(f"- Teacher: {_teacher(each)}" for each in (run.data.get("teachers") or {}).values()),
        f"- Versions: {', '.join(f'{name} {version}' for name, version in sorted(run.versions.items()))}",
    ]
    recipe = run.path / RECIPE
    how = (
        yaml.safe_dump(without_folders(yaml.safe_load(recipe.read_bytes())), sort_keys=False)
        if recipe.is_file()
        else "not known"
    )
    parts = [
        f"---\n{_metadata(run).to_yaml()}\n---",
        f"# {run.path.resolve().name}",
        "A classifier trained with Buttress. Choose a licence before you publish it: those of the images, of the "
        "weights it began with and of its teachers may bind you.",
        "## Model\n\n" + "\n".join(what),
        "## Figures\n\n" + _figures(run),
        "## Use\n\n```python\nimport timm\n\n"
        'model = timm.create_model("hf-hub:USER/NAME", pretrained=True).eval()  # a local copy: "local-dir:FOLDER"\n'
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))\n```",
        f"## Recipe\n\n```yaml\n{how.rstrip()}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def without_folders(value: Any) -> Any:
    """The same settings with absolute paths cut to their last part: others cannot use them."""
    if isinstance(value, dict):
        return {key: without_folders(each) for key, each in value.items()}
    if isinstance(value, list):
        return [without_folders(each) for each in value]
    # SCHEME:/PATH, timm:NAME@/PATH or /PATH; not s3://BUCKET
    return re.sub(r"^((?:\w+:)?(?:[^/:]*@)?)/(?!/)(?:.*/)?(?=[^/])", r"\1", value) if isinstance(value, str) else value


def _metadata(run: Run) -> ModelCardData:
    figures, results = _last_figures(run), None
    if figures is not None:
        top1 = EvalResult(
            task_type="image-classification",
            dataset_type="image-classification",
            dataset_name="held-out images",
            metric_type="accuracy",
            metric_value=round(figures["top1"]["value"], 6),
        )
        results = [top1]
    return ModelCardData(
        license=UNKNOWN,
        library_name="timm",
        pipeline_tag="image-classification",
        tags=["image-classification", "timm", "buttress"],
        model_name=run.path.resolve().name,
        eval_results=results,
    )


def _last_figures(run: Run) -> Mapping[str, Any] | None:
    scored = [line for line in run.read_metrics() if line.get("val")]
    return scored[-1]["val"] if scored else None


def _figures(run: Run) -> str:
    """Those of the last epoch that was scored while training."""
    figures = _last_figures(run)
    if figures is None:
        return "Not scored while it was trained."
    rows = [
        f"| {name} | {each['value']:.4f} | {each['count']:,} |"
        for name, each in figures.items()
        if each["value"] is not None
    ]
    return "\n".join(["| figure | value | images |", "|---|---|---|", *rows])


def _beginning(run: Run) -> str:
    return f"{without_folders(run.settings['model'])}, licence {run.licence or UNKNOWN}"


def _teacher(said: Mapping[str, Any]) -> str:
    name = said["model"]["name"] if said["model"] else without_folders(said["uri"])  # a function has no model
    return f"{name}, licence {said['licence'] or UNKNOWN}"


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
