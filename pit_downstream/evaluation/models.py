"""Classifiers by name: timm's and ours, torchvision's, and anyone's own `package.module:function`."""

import hashlib
import importlib
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from timm.data import resolve_data_config
from timm.models import load_state_dict
from torch import Tensor, nn

from ..core.spec import Spec
from ..datasets.base import View
from .class_names import class_names
from .classifier import HENDRYCKS, ClassifierPredictor, Preparation

PROTOCOLS = ('model', 'hendrycks', 'native')
WEIGHTS = ('pretrained', 'random', 'own')
# What torch and safetensors raise for files that they do not understand, or that ask for code
_UNLOADABLE = (pickle.UnpicklingError, SafetensorError, RuntimeError, ValueError, LookupError, EOFError, TypeError,
               AttributeError)


@dataclass(frozen=True)
class Named:
    """A built model, how it wants its images, and what its weights are called in records."""

    model: nn.Module
    preparation: Preparation
    weights: str


def build_classifier(text: str, *, weights: str | None = None, protocol: str = 'model',
                     device: str | torch.device = 'cpu', amp: str | None = None, search: str | None = None,
                     compiled: bool = False, seed: int = 0) -> ClassifierPredictor:
    """The classifier that `text` names, ready to be measured.

    text: a Spec, its arguments go to the model: 'pit_s', 'resnet50.a1_in1k', 'pit_ti(num_classes=10)',
    'torchvision:resnet50', 'my.module:function'.
    weights: a checkpoint file, loaded without running code; 'pretrained' (the default of timm and torchvision);
    'random', drawn from `seed`; 'own', whatever a function returns (its default).
    protocol: 'model' prepares images as the model's own configuration says, 'hendrycks' as ImageNet-C's authors did,
    'native' takes pictures as they are.
    amp, search: as of ClassifierPredictor.
    The name of the predictor says the weights, and whatever else changes numbers: amp, search, foreign normalisation.
    """
    spec = Spec.parse(text)
    if protocol not in PROTOCOLS:
        raise ValueError(f'protocol is one of {", ".join(PROTOCOLS)}, got {protocol!r}')
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the one place where a model draws its random weights; the caller's state returns
        named = _build(spec, weights)
    preparation = _prepare(named.preparation, protocol)
    words = {'weights': named.weights}
    if amp:
        words['amp'] = amp
    if search:
        words['search'] = search
    if (preparation.mean, preparation.std) != (named.preparation.mean, named.preparation.std):
        words['normalisation'] = protocol
    name = str(Spec.of(spec.name, **{**dict(spec.kwargs), **words}))
    return ClassifierPredictor(named.model.to(device), preparation, name=name, amp=amp, search=search,
                               compiled=compiled, class_names=class_names(named.model, weights))


def classifiers(**options: Any) -> Callable[[str], ClassifierPredictor]:
    """What builds the classifier that a text names, each once; its weights stand in the text: "pit_s(weights='x.pth')".

    The name of one that was built, which says of a file of weights what is in it, serves as well.
    options: of build_classifier.
    """
    built: dict[str, ClassifierPredictor] = {}

    def build(text: str) -> ClassifierPredictor:
        if text not in built:
            spec = Spec.parse(text)
            found = build_classifier(str(spec.without('weights')), weights=spec.get('weights'), **options)
            built[text] = built.setdefault(found.name, found)
        return built[text]
    return build


def _build(spec: Spec, weights: str | None) -> Named:
    maker, colon, function = spec.name.partition(':')
    if maker == 'torchvision':
        return _torchvision(function, spec, weights or 'pretrained')
    if colon and maker not in ('hf-hub', 'hf_hub', 'local-dir'):  # these are timm's
        return _function(maker, function, spec, weights or 'own')
    return _timm(spec, weights or 'pretrained')


def _timm(spec: Spec, weights: str) -> Named:
    from .. import backbones  # noqa: F401  registers our models with timm
    known = timm.list_models() + timm.list_pretrained()
    if ':' not in spec.name and spec.name.split('.')[0] not in known:
        near = get_close_matches(spec.name, known, n=3) or ['pit_s', 'resnet50', 'torchvision:resnet50']
        raise LookupError(f'no model named {spec.name!r}; did you mean {", ".join(near)}?')
    kwargs, label = dict(spec.kwargs), weights
    if weights == 'pretrained':
        model = made(spec, lambda: download(spec.name, lambda: timm.create_model(
            spec.name, pretrained=True, **kwargs)))
        _require_published_head(spec, model.num_classes, model.pretrained_cfg.get('num_classes', model.num_classes))
        label = model.pretrained_cfg.get('hf_hub_id') or weights
    elif weights == 'random':
        model = made(spec, lambda: timm.create_model(spec.name, **kwargs))
    else:
        state, label = read_weights(weights)
        model = made(spec, lambda: timm.create_model(spec.name, **kwargs))
        overlay = {'state_dict': state, 'num_classes': model.num_classes, 'label_offset': 0}
        model = _loaded(spec, weights, lambda: timm.create_model(
            spec.name, pretrained=True, pretrained_cfg_overlay=overlay, **kwargs))
    return Named(model, _of_config(model.pretrained_cfg, spec), label)


def _torchvision(name: str, spec: Spec, weights: str) -> Named:
    from torchvision.models import get_model, get_model_weights, list_models
    if name not in list_models():
        near = get_close_matches(name, list_models(), n=3) or ['resnet50']
        raise LookupError(f'no model named {name!r} in torchvision; did you mean {", ".join(near)}?')
    published = get_model_weights(name).DEFAULT
    preset = published.transforms()
    if not hasattr(preset, 'crop_size'):
        raise ValueError(f'expected a classifier of images, got torchvision:{name}, which is none')
    kwargs, label = dict(spec.kwargs), weights
    if weights == 'pretrained':
        label, classes = str(published), len(published.meta['categories'])
        _require_published_head(spec, kwargs.get('num_classes', classes), classes)
        model = download(spec.name, lambda: get_model(name, weights=published, **kwargs))
    else:
        model = made(spec, lambda: get_model(name, weights=None, **kwargs))
        if weights != 'random':
            state, label = read_weights(weights)
            _loaded(spec, weights, lambda: model.load_state_dict(state))
    view = View(preset.crop_size[0], preset.resize_size[0], preset.interpolation.value)
    return Named(model, Preparation(view, tuple(preset.mean), tuple(preset.std)), label)


def _function(module: str, function: str, spec: Spec, weights: str) -> Named:
    """The module's own preparation is its `pretrained_cfg` in timm's words, or Hendrycks' where it has none."""
    try:
        make = getattr(importlib.import_module(module), function)
    except (ModuleNotFoundError, AttributeError) as error:
        if isinstance(error, ModuleNotFoundError) and not module.startswith(error.name):
            raise  # an import inside their module failed: that is not about the name
        raise LookupError(f'no function {function!r} in the module {module!r}: {error}; run where Python finds it, or '
                          'set PYTHONPATH') from error
    model = make(**dict(spec.kwargs))
    if not isinstance(model, nn.Module):
        raise ValueError(f'expected {spec.name} to return a torch module, got {type(model).__name__}')
    label = weights
    if weights not in WEIGHTS:
        state, label = read_weights(weights)
        _loaded(spec, weights, lambda: model.load_state_dict(state))
    config = getattr(model, 'pretrained_cfg', None)
    return Named(model, _of_config(config, spec) if config else HENDRYCKS, label)


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], str]:
    """The state dict of a checkpoint file (.pth or .safetensors, EMA first, DDP's prefix dropped), and its name.

    The name in records holds the first 8 digits of the file's SHA-256. Nothing in the file is executed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'expected weights in {path}, found no such file; give a file, or one of '
                                f'{", ".join(WEIGHTS)}')
    try:
        state = load_state_dict(str(path), weights_only=True)
    except _UNLOADABLE as error:
        raise ValueError(f'expected a checkpoint that loads without running code, got {path}: '
                         f'{_first_line(error)}; save a plain state dict') from error
    return state, f'{path.name}@{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}'


def _of_config(config: dict, spec: Spec) -> Preparation:
    """timm's data configuration: crop size, share of the resized image, interpolation, mean and std."""
    data = resolve_data_config(pretrained_cfg=dict(config), args={'img_size': spec.get('img_size')})
    _, height, width = data['input_size']
    if height != width:
        raise ValueError(f'expected a model of square images, got {spec.name} with {height} x {width}')
    view = View(width, math.floor(width / data['crop_pct']), data['interpolation'], data['crop_mode'])
    return Preparation(view, tuple(data['mean']), tuple(data['std']))


def _prepare(own: Preparation, protocol: str) -> Preparation:
    if protocol == 'native':
        return replace(own, view=View(None, None))
    return own if protocol == 'model' else HENDRYCKS


def made(spec: Spec, make: Callable[[], nn.Module]) -> nn.Module:
    """What `make` returns, a model with the arguments of `spec`. Raises ValueError where it refuses them."""
    try:
        return make()
    except (TypeError, ValueError, RuntimeError, AssertionError, ZeroDivisionError) as error:
        raise ValueError(f'expected a name and arguments that can be built, got {spec}: {_first_line(error)}; check '
                         '--model') from error


def _require_published_head(spec: Spec, classes: int, published: int) -> None:
    """timm leaves out a head that does not fit, and says nothing: a random one would be measured under their name."""
    if classes != published:
        raise ValueError(f'expected {published} classes, as the published weights of {spec.name} have, got {classes} '
                         f'in {spec}; give your own weights with --weights FILE')


def _loaded(spec: Spec, path: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except (RuntimeError, KeyError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ValueError(f'expected weights of {spec} in {path}, got other ones: {" ".join(lines[:2])[:300]}; check '
                         '--model and its arguments') from error


def download(name: str, make: Callable[[], nn.Module]) -> nn.Module:
    try:
        return make()
    except (OSError, RuntimeError) as error:
        raise LookupError(f'no published weights to be had for {name} ({_first_line(error)}); give a file with '
                          '--weights FILE, or --weights random') from error


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
