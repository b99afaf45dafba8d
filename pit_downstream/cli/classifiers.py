"""Flags of the tools that measure classifiers, and the objects built from them."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from pit_downstream.cli.plugins import add_cwd_to_path
from pit_downstream.cli.errors import require_folder, require_places
from pit_downstream.cli.argument_types import batch_size, decimal, int_in_range
from pit_downstream.utils.errors import InputError

VALIDATION = 'data/imagenet/val'  # path of ImageNet's images in data/README.md


def classifier_parser(description: str) -> argparse.ArgumentParser:
    """Build the parser with the flags of all tools that measure a classifier."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('--model', required=True, help="a name of timm's or ours, torchvision:NAME or package.module:function; "
        "arguments in brackets: 'pit_s(num_classes=10)', which needs --weights FILE")
    add('--weights', help='a checkpoint file; pretrained (the default: published weights; of a function those that it '
        'returns); or random, drawn from --seed')
    add_preprocess_flags(parser)
    add('--data', default=VALIDATION, help='folder of class folders, or of images with --labels (default: '
        '%(default)s)')
    add('--labels', metavar='FILE', help="lines 'picture class' for a flat folder")
    add('--classes', metavar='FILE', help="class names, one a line in the order of the model's outputs, to which class "
        'folders are matched (default: the names in the checkpoint; of a model with 1000 outputs the WordNet ids of '
        "ImageNet-1k; else as many folders as outputs in sorted order, as torchvision's ImageFolder)")
    add('--limit', type=int, help='use this many of the images, evenly spread; recorded with the results')
    add('--store', default='work_dirs/records', metavar='DIR', help='where records are kept (default: %(default)s)')
    add('--cache', metavar='DIR', help='keep decoded images in a memory map here, for this and later runs')
    add('--allow-missing', type=int_in_range(0), default=0, metavar='N', help='go on with up to N unreadable images')
    add('--batch-size', type=batch_size, default='auto', help='a number; or auto, which begins large and halves when '
        'memory runs out')
    add('--workers', type=int_in_range(0), help='processes that decode (default: 1 on a CPU, up to 16 for a GPU)')
    add('--device', default='auto', help='cpu, cuda, cuda:1 ... (default: a GPU where there is one)')
    add('--amp', choices=['bf16', 'fp16'], help='run the model in half precision; recorded with the results')
    add('--compile', action='store_true', help='run the model through torch.compile')
    add('--seed', type=int_in_range(0), default=0)
    return parser


def add_preprocess_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose how images are prepared for a classifier."""
    add = parser.add_argument
    add('--preprocess', choices=['model', 'imagenet', 'none'], default='model', help="model (its configuration: a "
        "model's pretrained_cfg), imagenet (resize 256, crop 224, ImageNet's mean and std), none (neither resize nor "
        "crop; the model's mean and std) (default: %(default)s)")
    add('--img-size', type=int_in_range(1), metavar='N', help="side of the network's images (default: the model's own)")
    for flag, neutral in (('--mean', 0), ('--std', 1)):
        add(flag, nargs='+', type=decimal, metavar='X', help="for images in [0, 1], three numbers or one (default: the "
            f"model's own); {neutral} for a model that normalizes them itself")


def preprocess_options(args: argparse.Namespace) -> dict:
    """Return the arguments of build_classifier from `add_preprocess_flags`."""
    return {'preprocess': args.preprocess, 'img_size': args.img_size, 'mean': args.mean, 'std': args.std}


def classifier(args: argparse.Namespace):
    """Build the predictor that the flags select, on this rank's device. Joins torchrun's process group."""
    return predictor_of(args, amp=args.amp)


def predictor_of(args: argparse.Namespace, **precision: str | None):
    require_places(args)
    from pit_downstream.datasets.labelsets import read_classes
    from pit_downstream.evaluation.models import build_classifier
    from pit_downstream.evaluation.distributed import init_distributed
    add_cwd_to_path()
    names = read_classes(args.classes) if args.classes else None
    predictor = build_classifier(args.model, weights=args.weights, **preprocess_options(args), seed=args.seed,
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


def preprocessing(predictor, *, published: bool = False) -> str:
    """Return one line on how images are prepared for `predictor`, and how to change it. published: of --published."""
    from dataclasses import replace

    from pit_downstream.datasets.shifts import drop_resize
    view = drop_resize(predictor.view) if published else predictor.view
    return str(replace(predictor.preparation, view=view))


def pictures(args: argparse.Namespace, predictor):
    """Return the samples of --data as `predictor` views them. Raises InputError for classes missing from the model."""
    from pit_downstream.datasets.cache import CachedSamples
    from pit_downstream.datasets.imagenet import class_folders, flat_folder
    options = {'view': predictor.view, 'classes': model_classes(predictor)}
    samples = flat_folder(args.data, args.labels, **options) if args.labels else class_folders(args.data, **options)
    require_classes(samples, predictor)
    if args.limit is not None:
        samples = samples.limited(args.limit)
    return CachedSamples(samples, args.cache) if args.cache else samples


def require_classes(samples, predictor) -> None:
    """Raise InputError unless `predictor` has every class, with the same index."""
    from pit_downstream.datasets.imagenet import of_imagenet
    classes = predictor.classes()
    if classes > 1000 and model_classes(predictor).names is None and of_imagenet(samples):
        raise InputError(f"{samples.root} has ImageNet's classes, numbered in 0..999, got a model of {classes} "
                         f'outputs: {predictor.name}. Use a model with a head of 1000 classes.')
    if (largest := max(samples.targets)) >= classes:
        raise InputError(f'expected data of the {classes} classes that {predictor.name} knows, got class '
                         f'{largest}; give another model or other --data')


def published_images(args: argparse.Namespace, predictor, corruptions: Sequence[str]):
    """Return the samples of --published, with the clean ones of --data if that folder exists."""
    from pit_downstream.datasets.imagenet import published_corruptions
    from pit_downstream.datasets.shifts import drop_resize
    _require_named(args)
    clean = pictures(args, predictor) if Path(args.data).is_dir() else None
    samples = published_corruptions(args.published, corruptions, args.severities, view=drop_resize(predictor.view),
                                    name=args.set, clean=clean, limit=args.limit,
                                    classes=model_classes(predictor))
    for condition in samples.conditions:
        require_classes(samples.at(condition)[0], predictor)
    return samples


def clean_images(args: argparse.Namespace, predictor, *, of_imagenet: bool):
    """Return the clean images in --data, or None if the default folder is missing.

    of_imagenet: reject images other than ImageNet's validation images.
    """
    _require_named(args)
    from pit_downstream.datasets.shifts import require_imagenet
    if not Path(args.data).is_dir():
        return None
    if of_imagenet and not args.labels:
        require_imagenet(Path(args.data))
    return pictures(args, predictor)


def _require_named(args: argparse.Namespace) -> None:
    """Raise InputError if a folder named with --data is missing."""
    if args.data != VALIDATION:
        require_folder(args.data, '--data')


def measure_options(args: argparse.Namespace, device) -> dict:
    """Return the options of `measure` from the flags."""
    workers = args.workers
    if workers is None:
        workers = 1 if device.type == 'cpu' else min(16, os.cpu_count() or 1)
    return {'seed': args.seed, 'batch_size': args.batch_size, 'workers': workers, 'allow_missing': args.allow_missing,
            'show': True}
