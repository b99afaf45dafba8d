"""Classifiers and their images, from names, folders, modules and dataset objects."""

import inspect
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pit_downstream.datasets.base import ImageFolderSamples, LabeledSamples, Preprocess
from pit_downstream.datasets.cache import CachedSamples
from pit_downstream.datasets.imagenet import (
    is_imagenet,
    load_class_folders,
    load_corruption_folders,
    load_flat_folder,
    load_unlabeled_folder,
)
from pit_downstream.datasets.labelsets import Classes, read_classes
from pit_downstream.datasets.objects import ObjectSamples
from pit_downstream.datasets.shifts import drop_resize, require_imagenet
from pit_downstream.evaluation.classifier import ClassifierPredictor, Preparation
from pit_downstream.evaluation.distributed import broadcast, init_distributed, rank
from pit_downstream.evaluation.models import CUSTOM, LoadedModel, as_predictor, build_classifier, config_preparation
from pit_downstream.utils.checkpoints import hash_tensors
from pit_downstream.utils.digests import hash_text
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.spec import Spec

IMAGENET_VAL = 'data/imagenet/val'  # path of ImageNet's images in data/README.md
BUNDLED = 'data/shapes'


def load_classifier(name: str, *, weights: str | None = None, classes: str | None = None, precision: str = 'float32',
                    compile: bool = False, device: str = 'auto', seed: int = 0, is_attacked: bool = False,
                    build: Any = build_classifier, **preprocessing: Any) -> ClassifierPredictor:
    """Build a classifier by name, on this rank's device. Joins the process group of torchrun or Slurm.

    Args:
        name, weights: See models.build_classifier.
        classes: File with one class name per line, in the order of the outputs.
        precision: 'float32', 'bf16' or 'fp16'.
        is_attacked: The precision is that of the search of attacks. Results are in float32.
        build: Function that builds the classifier.
        preprocessing: preprocess, img_size, mean and std of models.as_predictor.
    """
    names = read_classes(classes) if classes else None
    if is_attacked and precision == 'fp16':
        raise InputError('--precision fp16 loses small gradients of attacks. Pass bf16; success is decided in float32 '
                         'anyway.')
    reduced = {} if precision == 'float32' else {'search' if is_attacked else 'amp': precision}
    predictor = build(name, weights=weights, seed=seed, device=init_distributed(device), compiled=compile, **reduced,
                      **preprocessing)
    if names and len(names) != predictor.classes():
        raise InputError(f'{classes} has {len(names)} class names, the model has {predictor.classes()} outputs: '
                         f'{predictor.name}. List every class once.')
    predictor.class_names = names or predictor.class_names
    return predictor


def wrap_module(module: nn.Module, *, mean: Sequence[float] | float | None = None,
                std: Sequence[float] | float | None = None, img_size: int | None = None,
                class_names: Sequence[str] | None = None, name: str | None = None, precision: str = 'float32',
                compile: bool = False) -> ClassifierPredictor:
    """Wrap a module that maps normalized images (B, 3, H, W) to logits (B, K). The device is the module's.

    A module with `pretrained_cfg`, as of timm, needs no further arguments.

    Args:
        mean, std: For images in [0, 1]. Use 0 and 1 for a module that normalizes its inputs itself.
        img_size: Side to which images are resized and cropped. None leaves images as they are.
        class_names: Class names in the order of the outputs, to which class folders are matched.
        name: Name in records. Required to store results.

    Raises:
        InputError: The normalization is not known.
    """
    config = getattr(module, 'pretrained_cfg', None)
    if config:
        preparation = config_preparation(dict(config), Spec(type(module).__name__), img_size)
    elif mean is None or std is None:
        raise InputError(f'the normalization of {type(module).__name__} is not known. Wrap it: '
                         'pit.classifier(module, mean=(.5, .5, .5), std=(.5, .5, .5), img_size=224), or mean=0, std=1 '
                         'for a module that normalizes its inputs.')
    else:
        preparation = Preparation(Preprocess(img_size, img_size, 'bilinear'))
    spec = Spec(name or type(module).__name__)
    given: dict[str, Any] = {key: (values,) if isinstance(values, (int, float)) else tuple(values)
                             for key, values in (('mean', mean), ('std', std)) if values is not None}
    reduced: dict[str, Any] = {} if precision == 'float32' else {'amp': precision}
    device = next((tensor.device for tensor in module.parameters()), torch.device('cpu'))
    loaded = LoadedModel(module, preparation, spec, CUSTOM)
    predictor = as_predictor(loaded, device=device, compiled=compile, **given, **reduced)
    if class_names is not None:
        set_class_names(predictor, class_names)
    predictor.has_given_name, predictor.is_module = name is not None or bool(config), True
    identify_module(predictor)
    return predictor


def identify_module(predictor: ClassifierPredictor) -> None:
    """Set the name of a wrapped module to that of its current weights and code, as far as outputs show it."""
    module, spec = predictor.model, Spec.parse(predictor.name)
    attributes = {f'{path}.{key}': value for path, part in module.named_modules() for key, value in vars(part).items()
                  if key[0] != '_' and key != 'training' and isinstance(value, (bool, int, float, str, type(None)))}
    digest = hash_text(hash_tensors({**module.state_dict(), **dict(module.named_buffers())}),
                       type(module).__qualname__, repr(module), repr(sorted(attributes.items())), _probe(predictor))
    predictor.name = str(Spec.of(spec.name, **{**dict(spec.kwargs), 'weights': f'{CUSTOM}@{digest}'}))


def set_class_names(predictor: ClassifierPredictor, names: Sequence[str]) -> None:
    """Set the class names of a model, in the order of its outputs. Raises InputError if they do not match these."""
    if isinstance(names, str) or len(set(names)) < len(names):
        raise InputError(f'class_names must be different names in the order of the outputs, got {names!r}. Pass a list '
                         'of them.')
    if len(names) != predictor.classes():
        raise InputError(f'class_names must have one name per output of {predictor.name}, {predictor.classes()}, got '
                         f'{len(names)}. Add or remove names.')
    predictor.class_names = tuple(names)


def _probe(predictor: ClassifierPredictor) -> str:
    """Return outputs for a fixed image as text, with two digits, which do not differ between machines.

    They identify what is neither in the tensors nor in the repr, such as a temperature in an attribute.
    """
    side = predictor.view.size or 96
    image = torch.linspace(0, 1, 3 * side * side, device=predictor.device).view(1, 3, side, side)
    try:
        with torch.no_grad():
            logits = predictor.logits(image).double().flatten()
    except (RuntimeError, ValueError, TypeError, AssertionError):  # checked with a clear error before the evaluation
        return ''
    return ' '.join(f'{value:.1e}' for value in logits[:16].tolist())


def _check_class_order(predictor: ClassifierPredictor, classes: Any) -> None:
    """Raise InputError for a dataset object with the classes of the model in another order."""
    names = get_classes(predictor).names
    if names and isinstance(classes, (list, tuple)) and set(classes) == set(names) and list(classes) != list(names):
        raise InputError(f'the classes of the dataset are in another order than those of {predictor.name}: '
                         f'{classes[0]} is first, got {names[0]}. Map the labels to the order of the model.')


def get_classes(predictor: ClassifierPredictor) -> Classes:
    """Return the classes of a model, to which folders are matched."""
    count, names = predictor.classes(), predictor.class_names
    return Classes(count, names if names and len(names) == count else None)


def find_folder(data: str | Path | None, *, bundled: bool = False) -> str:
    """Return the folder of the images: `data`, ImageNet's by default, or the bundled dataset, which rank 0 draws."""
    if not bundled:
        return str(data or IMAGENET_VAL)
    if not data:
        if rank() == 0:
            from pit_downstream.datasets.shapes import write_shapes
            write_shapes(BUNDLED)
        broadcast(None)  # the other ranks wait
    return str(Path(data or BUNDLED, 'classification', 'val'))


def require_folder(data: str | Path | None, *, bundled: bool = False) -> None:
    """Raise InputError unless the folder of the images exists. The bundled dataset may be missing, it will be drawn."""
    if not bundled and not Path(folder := find_folder(data)).is_dir():
        raise InputError(f'no folder of images: {folder}. Pass another --data DIR (data/README.md describes the '
                         'layout), or --bundled.')


def open_images(predictor: ClassifierPredictor, data: Any = None, *, bundled: bool = False, labels: str | None = None,
                limit: int | None = None, cache: str | None = None) -> LabeledSamples:
    """Open the images to evaluate, in the preprocessing of the model.

    Args:
        data: Folder of class folders, or of images with `labels`; or a dataset object with pairs (image, label), as
            those of torchvision: PIL images or uint8 arrays.
        labels: File with lines 'IMAGE CLASS'.
        limit: Number of evenly spaced images.
        cache: Folder for a memory map of decoded images.

    Raises:
        InputError: The model lacks a class of the data, or has other ones.
    """
    samples: Any
    if data is not None and not isinstance(data, (str, Path)):
        samples = ObjectSamples(data, view=predictor.view)
        _check_class_order(predictor, getattr(data, 'classes', None))
    else:
        options: dict[str, Any] = {'view': predictor.view, 'classes': get_classes(predictor)}
        folder = find_folder(data, bundled=bundled)
        samples = load_flat_folder(folder, labels, **options) if labels else load_class_folders(folder, **options)
    require_classes(samples, predictor)
    samples = samples if limit is None else samples.take(limit)
    return CachedSamples(samples, cache) if cache else samples


def open_clean_images(predictor: ClassifierPredictor, data: Any = None, *, bundled: bool = False,
                      labels: str | None = None, of_imagenet: bool = False, **options: Any) -> LabeledSamples | None:
    """Open the clean images, or return None if the default folder does not exist.

    Args:
        of_imagenet: Reject images other than ImageNet's validation images.
    """
    if data:
        require_folder(data, bundled=bundled)
    folder = Path(find_folder(data, bundled=bundled))
    if not folder.is_dir():
        return None
    if of_imagenet and not labels:
        require_imagenet(folder)
    return open_images(predictor, data, bundled=bundled, labels=labels, **options)


def open_corrupted_images(predictor: ClassifierPredictor, folder: str, corruptions: Sequence[str],
                          severities: Sequence[int], *, name: str | None = None, limit: int | None = None,
                          **options: Any):
    """Open a folder of corrupted images, such as the published ImageNet-C, with the clean images if there are any."""
    clean = open_clean_images(predictor, limit=limit, **options)
    samples = load_corruption_folders(folder, corruptions, severities, view=drop_resize(predictor.view), name=name,
                                      clean=clean, limit=limit, classes=get_classes(predictor))  # type: ignore[arg-type]
    for condition in samples.conditions:
        require_classes(samples.at(condition)[0], predictor)
    return samples


def open_unlabeled_images(predictor: ClassifierPredictor, data: Any, *, bundled: bool = False,
                          limit: int | None = None, exclude: str | Path | None = None) -> LabeledSamples:
    """Open the images at any depth of a folder, without labels. exclude: folder to leave out."""
    if data is not None and not isinstance(data, (str, Path)):
        samples: Any = ObjectSamples(data, view=predictor.view, is_labeled=False)
    else:
        samples = load_unlabeled_folder(find_folder(data, bundled=bundled), view=predictor.view, exclude=exclude)
    return samples if limit is None else samples.take(min(limit, len(samples)))


def require_classes(samples: LabeledSamples | ImageFolderSamples, predictor: ClassifierPredictor) -> None:
    """Raise InputError unless `predictor` has every class, with the same index."""
    classes = predictor.classes()
    if isinstance(samples, ImageFolderSamples) and classes > 1000 and get_classes(predictor).names is None \
            and is_imagenet(samples):
        raise InputError(f"{samples.root} has ImageNet's classes, numbered in 0..999, got a model of {classes} "
                         f'outputs: {predictor.name}. Use a model with a head of 1000 classes.')
    if (largest := max(map(_get_largest, samples.targets))) >= classes:
        raise InputError(f'{predictor.name} has {classes} classes, got data of class {largest}. Pass another --model '
                         'or --data.')


def _get_largest(target: int | tuple[int, ...]) -> int:
    return max(target) if isinstance(target, tuple) else target


def describe_preprocessing(predictor: ClassifierPredictor, *, is_published: bool = False) -> str:
    """Return one line on how images are prepared. is_published: images of a published corrupted dataset."""
    view = drop_resize(predictor.view) if is_published else predictor.view
    return str(replace(predictor.preparation, view=view))


def choose_workers(workers: int | None, device: torch.device) -> int:
    """Return the number of data-loading processes: by default 1 on a CPU, up to 16 for a GPU."""
    if workers is not None:
        return workers
    return 1 if device.type == 'cpu' else min(16, os.cpu_count() or 1)


def get_parameters(function: Any) -> set[str]:
    """Return the names of a function's keyword arguments."""
    return {name for name, parameter in inspect.signature(function).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY}
