"""Flags that select corruptions."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from pit_downstream.cli.plugins import import_plugin
from pit_downstream.cli.argument_types import Once
from pit_downstream.utils.errors import InputError

CHOOSING = ('--corruptions', '--severities')


def add_corruption_flags(parser: argparse.ArgumentParser) -> None:
    add_corruption_names(parser)
    add = parser.add_argument
    add('--as-published', action='store_true', help='save every corrupted image as JPEG of quality 85 and read it '
        'back, as the published files were; recorded with the results')
    add('--variant', choices=['hendrycks'], help="take ImageNet-C's own elastic_transform, pixelate and frost where "
        'imagecorruptions differs; recorded with the results')
    add('--published', metavar='DIR', help='measure on corrupted images from here, DIR/[GROUP/]CORRUPTION/SEVERITY/'
        'CLASS (ImageNet-C, -C-bar, 3DCC); --data has the clean ones')
    add('--set', metavar='NAME', help='what the published set is called in records (default: imagenet_c '
        'for all 1000 classes, else the folder)')


def add_corruption_names(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add('--corruptions', nargs='+', default=['benchmark'], metavar='NAME', help='names; or benchmark (the 15, the '
        'default), extra (the 4 hold-outs), all')
    add('--severities', nargs='+', type=int, action=Once, default=[1, 2, 3, 4, 5], metavar='1..5')
    add('--import', dest='imports', nargs='+', default=[], metavar='MODULE', help='modules that register '
        'custom corruptions')


def chosen_corruptions(args: argparse.Namespace) -> list[str]:
    """Return the names that --corruptions selects. Raises InputError for one that does not exist."""
    other = {'--as-published': args.as_published, '--variant': args.variant, '--cache': args.cache}
    unfit = [flag for flag, given in other.items() if given]
    if args.published and unfit:
        raise InputError(f'expected --published without {unfit[0]}, got both; published files are taken as they are, '
                         'each read once')
    if args.set and not args.published:
        raise InputError(f'expected --published DIR with --set {args.set}, got none; name the folder of the set')
    return corruption_names(args, registered=not args.published)


def corruption_names(args: argparse.Namespace, *, registered: bool = True) -> list[str]:
    """Return the names that --corruptions selects. Raises InputError for an unknown one if `registered`."""
    from pit_downstream.benchmarks import imagenet_c
    from pit_downstream.utils.registry import CORRUPTIONS
    for module in args.imports:
        import_plugin(module)
    wrong = [severity for severity in args.severities if severity not in imagenet_c.SEVERITIES]
    if wrong:
        raise InputError(f'severity must be in 1..5, got {wrong[0]}. Clean images are always measured.')
    groups = {'benchmark': imagenet_c.CORRUPTIONS, 'extra': imagenet_c.HOLD_OUT,
              'all': imagenet_c.CORRUPTIONS + imagenet_c.HOLD_OUT}
    names = dict.fromkeys(name for given in args.corruptions for name in groups.get(given, (given,)))
    for name in names if registered else ():
        from pit_downstream import corruptions  # noqa: F401  registers them
        CORRUPTIONS.entry(name)
    return list(names)


def corruption_conditions(args: argparse.Namespace, corruptions: Sequence[str]) -> tuple:
    """Return the clean condition, if there are clean images, and every corruption at every severity."""
    from pit_downstream.benchmarks import imagenet_c
    every = imagenet_c.list_conditions(corruptions, args.severities, **corruption_variant(args))
    return every if Path(args.data).is_dir() else every[1:]


def command_without_corruptions() -> str:
    """Return the command of this run without the flags that select corruptions, so that others can be added."""
    kept, dropping = ['python'], False
    for word in sys.argv:
        dropping = word.split('=')[0] in CHOOSING if word.startswith('--') else dropping
        if not dropping:
            kept.append(word)
    return shlex.join(kept)


def corruption_variant(args: argparse.Namespace) -> dict:
    """Return the arguments of this run's conditions besides name and severity."""
    jpeg = {'jpeg': 85} if args.as_published else {}  # hendrycks/robustness saved the published files at quality 85
    return jpeg | ({'variant': args.variant} if args.variant else {})
