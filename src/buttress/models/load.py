"""Model URIs of timm -> module, preprocessing and classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from buttress.errors import ModelError
from buttress.files import parse_json
from buttress.models.imagenet import imagenet_classes
from buttress.models.preprocessing import Preprocessing
from buttress.models.uri import parse_model_uri
from buttress.models.weights_file import WeightsFile, read_weights
from buttress.nearest import did_you_mean
from buttress.terminal import note

if TYPE_CHECKING:
    from torch import Tensor, nn

_KWARGS = ("num_classes", "img_size")


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model in hand.

    module: the network on the CPU in float32, in training mode as timm makes it; BCHW float -> logits BC.
    preprocessing: the input it wants.
    classes: its class names in the order of its outputs, or None where they are not known.
    uri: how it was asked for. weights_sha256: digest of its weights file, None for a random init.
    licence: of the weights, where known. pretrained: whether weights were loaded.
    name, kwargs: `timm.create_model(name, **kwargs)` builds the same architecture again (of a compressed run: the one
        that it was made of).
    stored_bytes: of a compressed run, what its weights take in a packed file at this level; else None.
    """

    module: nn.Module
    preprocessing: Preprocessing
    classes: tuple[str, ...] | None
    uri: str
    weights_sha256: str | None
    licence: str | None
    pretrained: bool
    name: str
    kwargs: dict[str, Any]
    stored_bytes: int | None = None

    @property
    def num_classes(self) -> int:
        """The number of outputs."""
        return int(self.kwargs["num_classes"])


def load_model(
    uri: str, *, num_classes: int | None = None, pretrained: bool | None = None, seed: int | None = None
) -> LoadedModel:
    """Load a `timm:` model.

    `timm:NAME@FILE.safetensors` loads that file, with its preprocessing from the file's metadata where present;
    `timm:NAME.TAG` downloads the weights of that tag; `timm:NAME` is a random init.

    num_classes: outputs wanted; weights with another number keep all but their head, which is made new.
    pretrained: True downloads `timm:NAME`'s default weights, False takes no weights of a tag.
    seed: of the random init; None draws from torch's global generator.

    Raises: ModelError, for an unknown name, weights that do not fit, or a hub that cannot be reached.
    """
    parsed = parse_model_uri(uri)
    if parsed.scheme != "timm":
        raise ModelError(f"{uri}: a timm: model is needed here")
    check_name(parsed.name)
    with _seeded(seed):
        if parsed.path is not None:
            if pretrained is False:
                raise ModelError(f"{uri}: names a weights file but pretrained=False; drop @FILE for a random init")
            return with_head(_from_file(uri, parsed.name, parsed.path), num_classes)
        if pretrained or (pretrained is None and "." in parsed.name):
            return with_head(_from_hub(uri, parsed.name), num_classes)
        return _random(uri, parsed.name.split(".")[0], num_classes)


def with_head(loaded: LoadedModel, num_classes: int | None) -> LoadedModel:
    """The same model with a new head where `num_classes` is given and differs (its classes are then unknown)."""
    if num_classes is None or num_classes == loaded.num_classes:
        return loaded
    note(f"{loaded.uri}: a new head of {num_classes} classes (its weights have {loaded.num_classes})")
    cast(Any, loaded.module).reset_classifier(num_classes)
    return replace(loaded, classes=None, kwargs={**loaded.kwargs, "num_classes": num_classes})


def at_size(loaded: LoadedModel, size: int) -> LoadedModel:
    """The same model for square inputs of `size` pixels: position embeddings are resampled where the size is fixed.

    Raises: ModelError, where the architecture cannot run at that size: one image of zeros is tried.
    """
    if size == loaded.preprocessing.size:
        return loaded
    if size < 1:
        raise ModelError(f"{loaded.uri}: cannot run at {size} pixels; the least is 1")
    kwargs, module = loaded.kwargs, cast(Any, loaded.module)
    if module.pretrained_cfg.get("fixed_input_size"):
        if not hasattr(module, "set_input_size"):
            raise ModelError(f"{loaded.uri}: runs at {loaded.preprocessing.size} pixels only, not at {size}")
        try:
            module.set_input_size(img_size=size)
        except (AssertionError, ValueError, RuntimeError) as failure:
            raise ModelError(f"{loaded.uri}: cannot run at {size} pixels ({_one_line(failure)})") from failure
        kwargs = {**kwargs, "img_size": size}
    _try_size(loaded, size)
    return replace(loaded, kwargs=kwargs, preprocessing=replace(loaded.preprocessing, size=size))


def _try_size(loaded: LoadedModel, size: int) -> None:
    """Raises: ModelError, where the model cannot run at `size`: of many, timm says so only when they are asked."""
    import torch

    was_training = loaded.module.training
    try:
        with torch.no_grad():  # in evaluation mode: statistics and random generators stay as they are
            loaded.module.eval()(torch.zeros(1, 3, size, size))
    except (AssertionError, ValueError, RuntimeError, IndexError, ZeroDivisionError) as failure:
        raise ModelError(
            f"{loaded.uri}: cannot run at {size} pixels ({_one_line(failure)}); choose another size (its own is "
            f"{loaded.preprocessing.size})"
        ) from failure
    finally:
        loaded.module.train(was_training)


def build(name: str, kwargs: Mapping[str, Any]) -> nn.Module:
    """`timm.create_model` with a random init; kwargs: `num_classes` and `img_size`, ints above 0.

    Raises: ModelError, for an unknown name or arguments.
    """
    import timm

    check_name(name)
    # kwargs come from files of strangers, and timm takes some that load further files: so a list of what is let in.
    if not all(key in _KWARGS and type(value) is int and value > 0 for key, value in kwargs.items()):
        raise ModelError(f"timm:{name}: of {dict(kwargs)} only {' and '.join(_KWARGS)}, ints above 0, are taken")
    try:
        module: nn.Module = timm.create_model(name, pretrained=False, **kwargs)
    except (TypeError, ValueError, RuntimeError) as failure:
        raise ModelError(f"timm:{name}: cannot be built with {dict(kwargs)} ({_one_line(failure)})") from failure
    return module


def load_weights(module: nn.Module, weights: WeightsFile) -> None:
    """Load a weights file into a module of the very same architecture (half precision becomes the module's own).

    Raises: ModelError, naming the first tensors that are missing, unexpected or of another shape.
    """
    own: dict[str, Tensor] = module.state_dict()
    missing = [name for name in own if name not in weights.tensors]
    unexpected = [name for name in weights.tensors if name not in own]
    shapes = [
        f"{name} {tuple(weights.tensors[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in weights.tensors and weights.tensors[name].shape != tensor.shape
    ]
    wrong = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if names
    ]
    if wrong:
        raise ModelError(f"{weights.path}: not the weights of this architecture: tensors {'; '.join(wrong)}")
    module.load_state_dict(weights.tensors, strict=True)


def preprocessing_of(module: nn.Module) -> Preprocessing:
    """What timm says of a model it built."""
    from timm.data.config import resolve_model_data_config

    return Preprocessing.from_timm(resolve_model_data_config(module))  # type: ignore[no-untyped-call]


def check_name(name: str) -> None:
    """Raises: ModelError, for a timm name or tag that does not exist or is a deprecated alias, with the nearest."""
    import timm
    from timm.models import get_deprecated_models

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise ModelError(f"timm:{name}: no such timm model{did_you_mean(architecture, timm.list_models(), count=3)}")
    # Several old names lead to one model (all four ig_resnext101 sizes to the smallest), so aliases are not followed.
    if alias := get_deprecated_models().get(architecture):
        raise ModelError(f"timm:{name}: an old name that timm maps to {alias}; write the full name of the one you mean")
    if tag and not timm.models.is_model_pretrained(name):
        tags = list(timm.list_pretrained(f"{architecture}.*"))
        raise ModelError(f"timm:{name}: no such pretrained tag; {architecture} has {', '.join(tags) or 'none'}")


def _random(uri: str, architecture: str, num_classes: int | None) -> LoadedModel:
    kwargs = {} if num_classes is None else {"num_classes": num_classes}
    module = build(architecture, kwargs)
    return LoadedModel(
        module=module,
        preprocessing=preprocessing_of(module),
        classes=None,
        uri=uri,
        weights_sha256=None,
        licence=None,
        pretrained=False,
        name=architecture,
        kwargs={"num_classes": int(cast(Any, module).num_classes)},
    )


def _from_hub(uri: str, name: str) -> LoadedModel:
    import timm

    try:
        _require_hub(name)
        module = cast(Any, timm.create_model(name, pretrained=True))
    except (OSError, RuntimeError) as failure:
        raise ModelError(
            f"{uri}: its weights cannot be downloaded ({_one_line(failure)[:120]}); "
            f"with a local file use timm:{name}@FILE.safetensors"
        ) from failure
    config = module.pretrained_cfg
    return LoadedModel(
        module=module,
        preprocessing=preprocessing_of(module),
        classes=imagenet_classes() if module.num_classes == 1000 else None,
        uri=uri,
        weights_sha256=_state_digest(module),
        licence=config.get("license"),
        pretrained=True,
        name=name.split(".")[0],
        kwargs={"num_classes": int(module.num_classes)},
    )


def _require_hub(name: str) -> None:
    """Ask the hub once whether it is there: its own library tries a download for most of a minute, and tells each try.

    Raises: OSError, where weights that are not in the cache lie on a hub that gives no answer.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id or constants.HF_HUB_OFFLINE:
        return  # from elsewhere, or from the cache alone
    repository, _, revision = config.hf_hub_id.partition("@")
    names = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    if any(isinstance(try_to_load_from_cache(repository, each, revision=revision or None), str) for each in names):
        return
    # The errors of the HTTP client, which is another one in other versions of the library.
    failures = cast("tuple[type[Exception], ...]", HfHubHTTPError.__bases__)
    try:
        get_hf_file_metadata(hf_hub_url(repository, names[0], revision=revision or None))
    except HfHubHTTPError:
        return  # it is there; what it says of the weights comes again with the download
    except failures as failure:
        raise OSError(f"{constants.ENDPOINT} does not answer: {_one_line(failure)}") from failure


def _from_file(uri: str, name: str, path: Path) -> LoadedModel:
    weights = read_weights(path)
    said = weights.metadata.get("timm_model", name)
    if said.split(".")[0] != name.split(".")[0]:
        raise ModelError(f"{path}: holds the weights of {said}, not of {name}; use timm:{said}@{path.name}")
    kwargs = parse_json(weights.metadata.get("kwargs", "{}").encode(), f"{path}: metadata kwargs", ModelError)
    if not isinstance(kwargs, dict):
        raise ModelError(f"{path}: metadata kwargs is not a JSON object")
    kwargs.setdefault("num_classes", _head_size(name, weights))
    module = build(name, kwargs)
    load_weights(module, weights)
    if not {"mean", "std"} <= weights.metadata.keys():
        note(f"{path.name}: no mean/std in its metadata; taking timm's for {name}")
    return LoadedModel(
        module=module,
        preprocessing=Preprocessing.from_metadata(weights.metadata, preprocessing_of(module), str(path)),
        classes=_classes_of(weights, kwargs["num_classes"]),
        uri=uri,
        weights_sha256=weights.sha256,
        licence=weights.metadata.get("license", weights.metadata.get("licence")),
        pretrained=True,
        name=name.split(".")[0],
        kwargs=kwargs,
    )


def _head_size(name: str, weights: WeightsFile) -> int:
    """How many classes the file's own head has, by the name timm gives the classifier."""
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name)
    if config is None:
        return 1000
    classifier = config.classifier
    first = classifier[0] if isinstance(classifier, (tuple, list)) else classifier
    tensor = weights.tensors.get(f"{first}.weight")
    return int(config.num_classes if tensor is None else tensor.shape[0])


def _classes_of(weights: WeightsFile, num_classes: int) -> tuple[str, ...] | None:
    """Class names: the file's own where it says them, else ImageNet-1k's for the usual 1,000 outputs."""
    if "classes" not in weights.metadata:
        return imagenet_classes() if num_classes == 1000 else None
    names = parse_json(weights.metadata["classes"].encode(), f"{weights.path}: metadata classes", ModelError)
    if not isinstance(names, list) or len(names) != num_classes:
        raise ModelError(f"{weights.path}: its metadata does not name the {num_classes} classes of its head")
    return tuple(map(str, names))


def _state_digest(module: nn.Module) -> str:
    """Digest of names, dtypes, shapes and bytes: the identity of weights that came without a file of ours."""
    import hashlib

    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    import torch

    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _one_line(failure: BaseException) -> str:
    return " ".join(str(failure).split())
