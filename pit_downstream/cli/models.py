"""Models and samples that the flags select."""

import argparse
import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pit_downstream.cli.flags import IMAGENET_VAL, check_outputs
from pit_downstream.cli.plugins import add_cwd_to_path
from pit_downstream.utils.config_paths import bundled_configs, is_config
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.extras import require_extra
from pit_downstream.utils.imports import pause_garbage_collection
from pit_downstream.utils.spec import Spec, quote

BUNDLED = 'data/shapes'


@dataclass(frozen=True)
class ModelChoice:
    """Model that --model and --weights select.

    Attributes:
        task: 'classifier' or 'detector'.
        name: Name of a classifier with its arguments, or the config file of a detector.
        weights: Value of --weights. None is pretrained.
    """

    task: str
    name: str
    weights: str | None


def choose_model(model: str, weights: str | None, *tasks: str) -> ModelChoice:
    """Return the classifier or detector that --model names. A config is read to know which of them it is.

    Args:
        model, weights: Values of --model and --weights.
        tasks: Tasks that the tool accepts: 'classifier', 'detector' or both.

    Raises:
        InputError: There is no such config, its model is for another task, or a config is without --weights.
    """
    if not is_config(model):
        if 'classifier' in tasks:
            return ModelChoice('classifier', model, weights)
        near = difflib.get_close_matches(model, [path.stem for path in bundled_configs()], n=3)
        raise InputError(f'--model must be the config of a detector, got {quote(model)}. '
                         f'{"Did you mean " + ", ".join(near) + "?" if near else "Pass a path or a name in configs/."}')
    require_extra('train' if 'classifier' in tasks else 'det')
    from pit_downstream.training.launch import load_config
    config = load_config(model).get('model') or {}
    task = 'classifier' if config.get('type') == 'ImageClassifier' else 'detector'
    if task not in tasks:
        raise InputError(f'--model must be a {tasks[0]}, got the config of a {task}: {model}. Pass the config of a '
                         f'{tasks[0]}, or use the tool for a {task}.')
    if weights is None:
        raise InputError(f'--weights is missing for the config {model}. Pass a checkpoint file or random.')
    if task == 'detector':
        return ModelChoice(task, model, weights)
    if Path(weights).is_dir():
        weights = str(Path(weights, 'weights.pth'))  # written by training
    kept = {key: value for key, value in config['network'].items() if not key.startswith(('pretrained', 'drop'))}
    return ModelChoice(task, str(Spec.of(kept.pop('name'), **kept)), weights)


def preprocess_options(args: argparse.Namespace) -> dict:
    """Return the arguments of build_classifier from `add_preprocess_flags`."""
    return {'preprocess': args.preprocess, 'img_size': args.img_size, 'mean': args.mean, 'std': args.std}


def load_classifier(args: argparse.Namespace, choice: ModelChoice | None = None, *, is_attacked: bool = False):
    """Build the classifier that the flags select, on this rank's device. Joins torchrun's process group.

    is_attacked: whether --precision is that of the search of attacks; results are in float32.
    """
    check_outputs(args)
    choice = choice or choose_model(args.model, args.weights, 'classifier')
    with pause_garbage_collection():
        from pit_downstream.datasets.labelsets import read_classes
        from pit_downstream.evaluation.distributed import init_distributed
        from pit_downstream.evaluation.models import build_classifier
    add_cwd_to_path()
    names = read_classes(args.classes) if args.classes else None
    precision = {} if args.precision == 'float32' else {'search' if is_attacked else 'amp': args.precision}
    predictor = build_classifier(choice.name, weights=choice.weights, **preprocess_options(args), seed=args.seed,
                                 device=init_distributed(args.device), compiled=args.compile, **precision)
    if names and len(names) != predictor.classes():
        raise InputError(f'{args.classes} has {len(names)} class names, the model has {predictor.classes()} outputs: '
                         f'{predictor.name}. List every class once.')
    predictor.class_names = names or predictor.class_names
    return predictor


def model_classes(predictor):
    """Return the classes of a model, to which folders are matched."""
    from pit_downstream.datasets.labelsets import Classes
    count, names = predictor.classes(), predictor.class_names
    return Classes(count, names if names and len(names) == count else None)


def describe_preprocessing(predictor, *, published: bool = False) -> str:
    """Return one line on how images are prepared for `predictor`. published: images of --corrupted-data."""
    from dataclasses import replace

    from pit_downstream.datasets.shifts import drop_resize
    view = drop_resize(predictor.view) if published else predictor.view
    return str(replace(predictor.preparation, view=view))


def image_folder(args: argparse.Namespace) -> str:
    """Return the folder of --data, by default that of ImageNet. With --bundled, rank 0 draws the dataset first."""
    if not args.bundled:
        return args.data or IMAGENET_VAL
    if not args.data:
        from pit_downstream.datasets.shapes import write_shapes
        from pit_downstream.evaluation.distributed import broadcast, rank
        if rank() == 0:
            write_shapes(BUNDLED)
        broadcast(None)  # the other ranks wait
    return str(Path(args.data or BUNDLED, 'classification', 'val'))


def open_images(args: argparse.Namespace, predictor):
    """Return the samples of --data as `predictor` views them. Raises InputError for classes missing from the model."""
    from pit_downstream.datasets.cache import CachedSamples
    from pit_downstream.datasets.imagenet import load_class_folders, load_flat_folder
    options = {'view': predictor.view, 'classes': model_classes(predictor)}
    folder = image_folder(args)
    samples = load_flat_folder(folder, args.labels, **options) if args.labels else load_class_folders(folder, **options)
    require_classes(samples, predictor)
    if args.limit is not None:
        samples = samples.take(args.limit)
    return CachedSamples(samples, args.cache) if args.cache else samples


def require_classes(samples, predictor) -> None:
    """Raise InputError unless `predictor` has every class, with the same index."""
    from pit_downstream.datasets.imagenet import is_imagenet
    classes = predictor.classes()
    if classes > 1000 and model_classes(predictor).names is None and is_imagenet(samples):
        raise InputError(f"{samples.root} has ImageNet's classes, numbered in 0..999, got a model of {classes} "
                         f'outputs: {predictor.name}. Use a model with a head of 1000 classes.')
    if (largest := max(samples.targets)) >= classes:
        raise InputError(f'{predictor.name} has {classes} classes, got data of class {largest}. Pass another --model '
                         'or --data.')


def require_folder(args: argparse.Namespace) -> None:
    """Raise InputError unless the folder of --data exists. The bundled dataset may be missing, it will be drawn."""
    if not args.bundled and not Path(folder := image_folder(args)).is_dir():
        raise InputError(f'no folder of images: {folder}. Pass another --data DIR (data/README.md describes the '
                         'layout), or --bundled.')


def open_clean_images(args: argparse.Namespace, predictor, *, of_imagenet: bool = False):
    """Return the clean images of --data, or None if the default folder does not exist.

    of_imagenet: reject images other than ImageNet's validation images.
    """
    from pit_downstream.datasets.shifts import require_imagenet
    if args.data:
        require_folder(args)
    folder = Path(image_folder(args))
    if not folder.is_dir():
        return None
    if of_imagenet and not args.labels:
        require_imagenet(folder)
    return open_images(args, predictor)


def load_detector(args: argparse.Namespace, choice: ModelChoice | None = None):
    """Return the predictor, samples and config of the detector that the flags select, on this rank's device.

    Joins torchrun's process group.
    """
    check_outputs(args)
    choice = choice or choose_model(args.model, args.weights, 'detector')
    from pit_downstream.evaluation.distributed import init_distributed
    device = init_distributed(args.device)
    from pit_downstream.det.predictor import build_detector
    from pit_downstream.det.samples import build_detection_samples
    cfg = read_detector_config(args, choice, loaders=('test_dataloader',))
    weights = find_weights(choice)
    samples = build_detection_samples(cfg, limit=args.limit)
    return build_detector(cfg, weights, config=Path(choice.name).stem, device=device, seed=args.seed), samples, cfg


def read_detector_config(args: argparse.Namespace, choice: ModelChoice, *, loaders: Sequence[str] = ()):
    """Return the config of a detector with the flags of a tool that measures it."""
    from pit_downstream.det import config_utils
    given = {'data': None, 'images': None, 'bundled': False, **vars(args)}
    annotations = given['data'] if (given['data'] or '').endswith('.json') else None
    if bool(annotations) != bool(given['images']):
        raise InputError('an annotation file and its images are given together: --data FILE.json --images DIR. Pass '
                         'both, or the folder of a dataset.')
    return config_utils.read_config(argparse.Namespace(
        config=choice.name, cfg_options=args.cfg_options, bundled=given['bundled'], images=given['images'],
        data=None if annotations else given['data'], annotations=annotations, launcher='none', local_rank=0,
        work_dir=None), loaders=tuple(loaders))


def find_weights(choice: ModelChoice) -> str | Path:
    """Return 'random' or the checkpoint file of a detector."""
    from pit_downstream.training.launch import find_checkpoint
    return 'random' if choice.weights == 'random' else find_checkpoint(str(choice.weights))


def measure_options(args: argparse.Namespace, device, *, batch_size: int | str = 'auto') -> dict:
    """Return the options of `measure_passes` from the flags. batch_size: default of --batch-size."""
    workers = args.workers
    if workers is None:
        workers = 1 if device.type == 'cpu' else min(16, os.cpu_count() or 1)
    return {'seed': args.seed, 'batch_size': args.batch_size or batch_size, 'workers': workers,
            'allow_missing': args.allow_missing, 'show': True}


def require_name(name: str, names: Sequence[str], noun: str) -> None:
    """Raise InputError with the nearest names unless `name` is one of `names`."""
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names
        raise InputError(f'no {noun} named {quote(name)}; did you mean {", ".join(near)}?')
