"""Flags that select shifted datasets, and the datasets."""

import argparse
from pathlib import Path

from pit_downstream.cli.classifiers import clean_images, model_classes
from pit_downstream.utils.errors import InputError


def add_shift_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--shifts', nargs='+', default=[], metavar='NAME[=DIR]', help='datasets and their '
                        'folders; in9 selects every variation of the Backgrounds Challenge, shift_ANYTHING=DIR a '
                        'custom dataset with the class folders of --data (default: all datasets in the folders that '
                        'data/README.md describes)')


def shift_places(args: argparse.Namespace) -> dict:
    """Return the folders of the datasets in --shifts, by name. Missing ones raise before a model is built."""
    from pit_downstream.datasets.shifts import check_folders, is_custom, select_shifts
    places = select_shifts(args.shifts, args.data)
    if not places:
        raise InputError('expected a shifted dataset in data/, found none; put one where data/README.md '
                         'describes, or name it: --shifts imagenet_a=DIR')
    check_folders(places)
    own = [name for name in places if is_custom(name)]
    if own and args.labels:
        raise InputError(f'expected clean images in class folders beside {own[0]}, got --labels; leave it out and '
                         'give their folder with --data DIR')
    return places


def shifts(args: argparse.Namespace, places: dict, predictor) -> tuple:
    """Open the datasets of `places`, by name, and the clean images of --data, None if there are none."""
    from dataclasses import replace

    from pit_downstream.datasets.cache import CachedSamples
    from pit_downstream.datasets.shifts import CleanReference, is_custom, load_shifts
    clean = clean_images(args, predictor, of_imagenet=not all(map(is_custom, places)))
    opened = load_shifts(places, view=predictor.view, limit=args.limit,
                         clean=clean and CleanReference(Path(args.data), clean.name, model_classes(predictor)))
    if args.cache:
        opened = {name: replace(shift, samples=shift.samples and CachedSamples(shift.samples, args.cache))
                  for name, shift in opened.items()}
    return opened, clean
