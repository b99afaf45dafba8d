"""Classifiers by name: ours, timm's, torchvision's, and custom `package.module:function`."""

import importlib
import math
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from safetensors import SafetensorError
from timm.data import resolve_data_config
from timm.models import clean_state_dict
from torch import Tensor, nn

from pit_downstream.utils.checkpoints import WRAPPERS, hash_tensors, extract_parameters
from pit_downstream.results.records import get_model_key
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.spec import Spec, Value
from pit_downstream.datasets.base import Preprocess
from pit_downstream.evaluation.class_names import class_names
from pit_downstream.evaluation.classifier import IMAGENET, ClassifierPredictor, Preparation

PREPROCESS = ('model', 'imagenet', 'none')
WEIGHTS = ('pretrained', 'random')
CUSTOM = 'custom'  # the label of the weights that a function returns
_ADDED = ('amp', 'search', 'mean', 'std')  # added to a model's name if they change results
_REMOTE = ('hf-hub:', 'hf_hub:', 'local-dir:')  # prefixes of timm model names
_NO_SOURCE = {'source': '', 'url': '', 'file': None, 'hf_hub_id': None}  # so that timm uses only the given tensors
# Errors of torch and safetensors for files with an unknown format or with code
_UNLOADABLE = (pickle.UnpicklingError, SafetensorError, RuntimeError, ValueError, LookupError, EOFError, TypeError,
               AttributeError)


@dataclass(frozen=True)
class LoadedModel:
    """A built model with its preprocessing, its architecture and arguments, and the label of its weights."""

    model: nn.Module
    preparation: Preparation
    spec: Spec
    label: str


def build_classifier(text: str, *, weights: str | Path | None = None, seed: int = 0, img_size: int | None = None,
                     **options: Any) -> ClassifierPredictor:
    """Build the classifier with the name `text`, wrapped for evaluation. Used by every tool.

    The predictor's name identifies it: the architecture with its arguments, a digest of the loaded tensors, and all
    options that change results: amp, search, and a mean and std other than ImageNet's. The label of the weights,
    'w.pth' in "pit_s(weights='w.pth@0123456789abcdef')", is not part of the identity (results.records.get_model_key).

    Args:
        text: A Spec whose arguments are passed to the model: 'pit_s', 'resnet50.a1_in1k', 'pit_ti(num_classes=10)',
            'torchvision:resnet50', 'local-dir:FOLDER', 'my.module:function'. `weights` may be among the arguments.
        weights: 'pretrained' (default: published weights, or those that a function returns), 'random' (drawn from
            `seed`, not for a function), or a checkpoint file, loaded without running code.
        img_size: Side of the network's images. The resize follows the model's crop ratio.
        options: preprocess, mean, std, device, amp, search, compiled of `as_predictor`.

    Raises:
        InputError: The model, its weights or an option is not available.
    """
    spec = Spec.parse(text)
    if spec.get('weights') is not None:
        if weights is not None:
            raise InputError(f'weights are given twice: {weights} and {spec}. Leave one of them out.')
        weights, spec = str(spec.get('weights')), spec.without('weights')
    taken = [key for key, _ in spec.kwargs if key in _ADDED]
    if taken:
        raise InputError(f'the argument {taken[0]!r} of {spec} is reserved for names in records. Rename it, or use '
                         'the flag of that name.')
    if img_size is not None and img_size < 1:
        raise InputError(f'img_size must be positive, got {img_size}. Pass the side of the images in pixels.')
    with torch.random.fork_rng(devices=[]):  # random weights are drawn only here
        named = _build(spec, None if weights is None else str(weights), img_size, seed)
    return as_predictor(named, img_size=img_size, class_names=class_names(named.model, weights), **options)


def as_predictor(named: LoadedModel, *, preprocess: str = 'model', img_size: int | None = None,
                 mean: Sequence[float] | None = None, std: Sequence[float] | None = None,
                 device: str | torch.device = 'cpu', amp: str | None = None, search: str | None = None,
                 compiled: bool = False, class_names: tuple[str, ...] | None = None) -> ClassifierPredictor:
    """Wrap a built model for evaluation, under the name that identifies it.

    Args:
        preprocess: 'model' (from the model's configuration), 'imagenet' (resize 256, crop 224, ImageNet's mean and
            std), or 'none' (neither resize nor crop, the model's mean and std).
        mean, std: One or three numbers, for images in [0, 1]. They replace those of `preprocess`. Use 0 and 1 for a
            model that normalizes its inputs itself.
        amp, search, compiled, class_names: See ClassifierPredictor.
    """
    if preprocess not in PREPROCESS:
        raise InputError(f'preprocess must be one of {", ".join(PREPROCESS)}, got {preprocess!r}. Choose one of them.')
    if preprocess == 'none' and img_size is not None:
        raise InputError(f'img_size {img_size} contradicts preprocess none, which keeps the size of images. Leave one '
                         'of them out.')
    preparation = named.preparation
    if preprocess == 'none':
        preparation = replace(preparation, view=Preprocess(None, None))
    elif preprocess == 'imagenet':
        side = img_size or 224
        preparation = replace(IMAGENET, view=Preprocess(side, math.floor(side * 256 / 224), 'bilinear'))
    given: dict[str, Any] = {key: _channels(values) for key, values in (('mean', mean), ('std', std))
                             if values is not None}
    preparation = replace(preparation, **given)
    words = {key: value for key, value in (('amp', amp), ('search', search)) if value}
    name = Spec.of(named.spec.name, **{**dict(named.spec.kwargs), **words, **preparation.words,
                                       'weights': _weights_name(named)})
    return ClassifierPredictor(named.model.to(device), preparation, name=str(name), amp=amp, search=search,
                               compiled=compiled, class_names=class_names)


def classifiers(**options: Any) -> Callable[[str], ClassifierPredictor]:
    """Return a function that builds a classifier by name, such as "pit_s(weights='x.pth')", and caches it.

    The function also accepts the `name` of a classifier that it built. `options` are those of build_classifier.
    """
    built: dict[str, ClassifierPredictor] = {}

    def build(text: str) -> ClassifierPredictor:
        key = get_model_key(text)
        if key not in built:
            predictor = build_classifier(text, **options)
            built[key] = built.setdefault(get_model_key(predictor.name), predictor)
        return built[key]
    return build


def is_function(text: str) -> bool:
    """Return whether a model's name is a custom `module:function`."""
    maker, colon, _ = Spec.parse(text).name.partition(':')
    return bool(colon) and maker != 'torchvision' and not text.startswith(_REMOTE)


def _build(spec: Spec, weights: str | None, img_size: int | None, seed: int) -> LoadedModel:
    maker, _, function = spec.name.partition(':')
    if is_function(spec.name):
        torch.manual_seed(seed)
        return _function(maker, function, spec, weights, img_size)
    if maker == 'torchvision':
        torch.manual_seed(seed)
        return _torchvision(function, spec, weights or 'pretrained', img_size)
    spec = _timm_spec(spec, img_size)
    torch.manual_seed(seed)
    return _timm(spec, weights or 'pretrained', img_size)


def _timm_spec(spec: Spec, img_size: int | None) -> Spec:
    """Add `img_size` to the arguments of a fixed-size model. Raises InputError for an unknown name."""
    from pit_downstream import backbones  # noqa: F401  registers our models with timm
    if not spec.name.startswith(_REMOTE) and not timm.is_model(spec.name):
        known = timm.list_models() + timm.list_pretrained()
        near = get_close_matches(spec.name, known, n=3) or ['pit_s', 'resnet50', 'torchvision:resnet50']
        raise InputError(f'no model named {spec.name!r}; did you mean {", ".join(near)}?')
    if img_size is None:
        return spec
    sized = Spec.of(spec.name, **{**dict(spec.kwargs), 'img_size': img_size})
    kwargs: dict[str, Any] = dict(sized.kwargs)
    try:
        timm.create_model(sized.name, **kwargs)
    except TypeError as error:
        if 'img_size' in str(error):  # any size, as for convolutional networks
            return spec
        raise
    except (ValueError, RuntimeError, AssertionError):  # `_timm` raises it again, with the name
        return sized
    return sized


def _timm(spec: Spec, weights: str, img_size: int | None) -> LoadedModel:
    kwargs: dict[str, Any] = dict(spec.kwargs)
    label = weights
    model: Any  # nn.Module does not declare num_classes and pretrained_cfg of timm's models
    remote = spec.name.startswith(_REMOTE)
    if weights == 'pretrained':
        model = build_module(spec, lambda: download(spec.name, lambda: timm.create_model(
            spec.name, pretrained=True, **kwargs)))
        _require_published_head(spec, model.num_classes, model.pretrained_cfg.get('num_classes', model.num_classes))
        label = spec.name if remote else model.pretrained_cfg.get('hf_hub_id') or weights
    elif weights == 'random':
        model = build_module(spec, lambda: timm.create_model(spec.name, **kwargs))
    else:
        state, label = read_weights(weights), Path(weights).name
        model = build_module(spec, lambda: timm.create_model(spec.name, **kwargs))
        overlay = {**_NO_SOURCE, 'state_dict': state, 'num_classes': model.num_classes, 'label_offset': 0}
        model = _loaded(spec, weights, lambda: timm.create_model(
            spec.name, pretrained=True, pretrained_cfg_overlay=overlay, **kwargs))
    named = Spec.of(spec.name, **kwargs)
    if remote:  # identified by its config.json, independent of the folder
        arguments = getattr(model, '_model_args', kwargs).items()
        named = Spec.of(model.pretrained_cfg['architecture'], **{key: _spec_value(value) for key, value in arguments})
    return LoadedModel(model, config_preparation(model.pretrained_cfg, spec, img_size), named, label)


def _torchvision(name: str, spec: Spec, weights: str, img_size: int | None) -> LoadedModel:
    from torchvision.models import get_model, get_model_weights, list_models
    if name not in list_models():
        near = get_close_matches(name, list_models(), n=3) or ['resnet50']
        raise InputError(f'no model named {name!r} in torchvision; did you mean {", ".join(near)}?')
    published = get_model_weights(name).DEFAULT
    preset = published.transforms()
    if not hasattr(preset, 'crop_size'):
        raise InputError(f'expected a classifier of images, got torchvision:{name}, which is none')
    kwargs: dict[str, Any] = dict(spec.kwargs)
    label = weights
    if weights == 'pretrained':
        label, classes = str(published), len(published.meta['categories'])
        _require_published_head(spec, kwargs.get('num_classes', classes), classes)
        model = download(spec.name, lambda: get_model(name, weights=published, **kwargs))
    else:
        model = build_module(spec, lambda: get_model(name, weights=None, **kwargs))
        if weights != 'random':
            state, label = read_weights(weights), Path(weights).name
            _loaded(spec, weights, lambda: model.load_state_dict(state))
    crop, shorter = preset.crop_size[0], preset.resize_size[0]
    view = Preprocess(img_size or crop, shorter * (img_size or crop) // crop, preset.interpolation.value)
    return LoadedModel(model, Preparation(view, tuple(preset.mean), tuple(preset.std)), spec, label)


def _function(module: str, function: str, spec: Spec, weights: str | None, img_size: int | None) -> LoadedModel:
    """Build a model by a custom function, with preprocessing from its `pretrained_cfg` or ImageNet's by default."""
    if weights == 'random':
        raise InputError(f'weights of {spec.name} cannot be drawn: the function returns them. Leave --weights out, or '
                         'pass a checkpoint file.')
    try:
        make = getattr(importlib.import_module(module), function)
    except (ModuleNotFoundError, AttributeError) as error:
        if isinstance(error, ModuleNotFoundError) and not (error.name and module.startswith(error.name)):
            raise  # the module exists, an import inside it failed
        raise InputError(f'no function {function!r} in the module {module!r}: {error}; run where Python finds it, or '
                         'set PYTHONPATH') from error
    model, label = make(**dict(spec.kwargs)), CUSTOM
    if not isinstance(model, nn.Module):
        raise InputError(f'expected {spec.name} to return a torch module, got {type(model).__name__}')
    if weights not in (None, 'pretrained'):
        state, label = read_weights(weights), Path(weights).name
        _loaded(spec, weights, lambda: model.load_state_dict(state))
    config = getattr(model, 'pretrained_cfg', None)
    if config:
        return LoadedModel(model, config_preparation(config, spec, img_size), spec, label)
    # without a known crop ratio, images are resized to the input size without a further crop
    preparation = IMAGENET if img_size is None else replace(IMAGENET, view=Preprocess(img_size, img_size, 'bilinear'))
    return LoadedModel(model, preparation, spec, label)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Return the state dict of a .pth or .safetensors checkpoint: EMA weights first, without DDP's prefix.

    Entries without tensors are skipped. Nothing in the file is executed. Raises InputError for a file without tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f'expected weights in {path}, found no such file; give a file, or one of '
                         f'{", ".join(WEIGHTS)}')
    try:
        checkpoint = safetensors.torch.load_file(path) if path.suffix == '.safetensors' else torch.load(
            path, map_location='cpu', weights_only=True)
        state = clean_state_dict(extract_parameters(checkpoint))
    except _UNLOADABLE as error:
        raise InputError(f'expected a checkpoint that loads without running code, got {path}: '
                         f'{_first_line(error)}; save a plain state dict') from error
    if not state:
        entries = ', '.join(map(str, checkpoint))[:200]
        raise InputError(f'the checkpoint has no tensors: {path} (entries: {entries or "none"}). Pass a file with a '
                         f'state dict, alone or under one of {", ".join(WRAPPERS)}.')
    return state


def _weights_name(named: LoadedModel) -> str:
    """Return the label of the weights with a digest of the model's tensors, including buffers that are not saved."""
    tensors = {**named.model.state_dict(), **dict(named.model.named_buffers())}
    if any(tensor.is_meta for tensor in tensors.values()):  # built only for its shapes
        return named.label
    return f'{named.label}@{hash_tensors(tensors)}'


def _spec_value(value: Any) -> Value:
    """Convert an argument from a config.json to a Spec value, to text if a Spec has no such type."""
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _channels(values: Sequence[float]) -> tuple[float, ...]:
    numbers = tuple(map(float, values))
    return numbers * 3 if len(numbers) == 1 else numbers


def config_preparation(config: dict, spec: Spec, img_size: int | None) -> Preparation:
    """Return the preprocessing of timm's data configuration: size, crop ratio, interpolation, mean and std."""
    side = spec.get('img_size') if img_size is None else img_size
    data = resolve_data_config(pretrained_cfg=dict(config), args={'img_size': side})
    _, height, width = data['input_size']
    if height != width:
        raise InputError(f'expected a model of square images, got {spec.name} with {height} x {width}')
    view = Preprocess(width, math.floor(width / data['crop_pct']), data['interpolation'], data['crop_mode'])
    return Preparation(view, tuple(data['mean']), tuple(data['std']))


def build_module(spec: Spec, make: Callable[[], nn.Module]) -> nn.Module:
    """Return the model built by `make`. Raises InputError if it rejects the arguments of `spec`."""
    try:
        return make()
    except (TypeError, ValueError, RuntimeError, AssertionError, ZeroDivisionError) as error:
        raise InputError(f'expected a name and arguments that can be built, got {spec}: {_first_line(error)}; check '
                         '--model') from error


def _require_published_head(spec: Spec, classes: int, published: int) -> None:
    """Check the number of classes, since timm silently replaces a head that does not fit by a random one."""
    if classes != published:
        raise InputError(f'expected {published} classes, as the published weights of {spec.name} have, got {classes} '
                         f'in {spec}; give your own weights with --weights FILE')


def _loaded(spec: Spec, path: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except (RuntimeError, KeyError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise InputError(f'expected weights of {spec} in {path}, got other ones: {" ".join(lines[:2])[:300]}; check '
                         '--model and its arguments') from error


def download(name: str, make: Callable[[], nn.Module]) -> nn.Module:
    try:
        return make()
    except (OSError, RuntimeError) as error:
        raise InputError(f'no published weights available for {name} ({_first_line(error)}); give a file with '
                         '--weights FILE, or --weights random') from error


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
