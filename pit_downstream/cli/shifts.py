"""Flags that choose shifted data sets."""

import argparse


def add_shift_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--shifts', nargs='+', default=[], metavar='NAME[=DIR]', help='which data sets, and where they '
                        'lie; in9 stands for every variation of the Backgrounds Challenge, shift_ANYTHING=DIR is '
                        'one of your own with the class folders of --data (default: all that lie where '
                        'data/README.md says)')


def shifts(args: argparse.Namespace, predictor) -> dict:
    """The data sets that --shifts names, opened, by name."""
    from dataclasses import replace

    from ..datasets.cache import CachedSamples
    from ..datasets.shifts import chosen_places, open_shifts
    places = chosen_places(args.shifts, args.data)
    if not places:
        raise FileNotFoundError('expected a shifted data set in data/, found none; put one where data/README.md says, '
                                'or name it: --shifts imagenet_a=DIR')
    opened = open_shifts(places, view=predictor.view, clean=args.data, limit=args.limit)
    if not args.cache:
        return opened
    return {name: replace(shift, samples=shift.samples and CachedSamples(shift.samples, args.cache))
            for name, shift in opened.items()}
