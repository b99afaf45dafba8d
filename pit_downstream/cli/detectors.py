"""Flags of the tools for detectors, and the objects built from them."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pit_downstream.cli.corruptions import add_corruption_names, corruption_names
from pit_downstream.cli.errors import require_places
from pit_downstream.cli.argument_types import batch_size, int_in_range
from pit_downstream.utils.errors import InputError


MMDET = "config file; mmdet's own are mmdet::FOLDER/FILE.py"


def detector_parser(description: str, *, config: str = MMDET) -> argparse.ArgumentParser:
    """Build the parser of training and testing, with the flags of mmdet. config: help for the config file."""
    parser = config_parser(description, config=config)
    parser.add_argument('--work-dir', help='where logs and checkpoints go (default: work_dirs/<config name>)')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser


def measured_detector_parser(description: str) -> argparse.ArgumentParser:
    """Build the parser with the flags of all tools that measure a detector."""
    parser = config_parser(description)
    parser.set_defaults(launcher='none', local_rank=0, work_dir=None)
    add = parser.add_argument
    add('checkpoint', help='checkpoint file, a work dir for its latest, or random')
    add('--ann', metavar='FILE', help='measure on the images of this annotation file in COCO format, with --images')
    add('--images', metavar='DIR', help='where the images of --ann lie')
    add('--limit', type=int, help='use this many of the images, evenly spread; recorded with the results')
    add('--store', default='work_dirs/records', metavar='DIR', help='where records are kept (default: %(default)s)')
    add('--allow-missing', type=int_in_range(0), default=0, metavar='N', help='go on with up to N unreadable images')
    add('--batch-size', type=batch_size, help="a number; or auto, which begins large and halves when memory runs out "
        "(default: the config's)")
    add('--workers', type=int_in_range(0), help='processes that decode (default: 1 on a CPU, up to 16 for a GPU)')
    add('--device', default='auto', help='cpu, cuda, cuda:1 ... (default: a GPU where there is one)')
    add('--seed', type=int_in_range(0), default=0, help='of the corruptions, and of random weights')
    return parser


def config_parser(description: str, *, config: str = MMDET) -> argparse.ArgumentParser:
    """Build the parser of tools that take a config. config: its help text."""
    from mmengine.config import DictAction
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('config', help=config)
    add('--bundled', action='store_true', help='use the dataset that comes with the project')
    add('--data', metavar='DIR', help='folder of the dataset, in place of the data_root of the config')
    add('--cfg-options', nargs='+', action=DictAction, default={}, metavar='KEY=VALUE',
        help='override settings of the config, e.g. train_dataloader.batch_size=4')
    return parser


def chosen_image(samples, index: int):
    if not 0 <= index < len(samples):
        raise InputError(f'expected an image of 0..{len(samples) - 1}, got {index}; give another --image N')
    return samples[index]


def add_detection_corruption_flags(parser: argparse.ArgumentParser) -> None:
    add_corruption_names(parser)
    add = parser.add_argument
    add('--bgr', action='store_true', help="corrupt with red and blue exchanged, as mmdet's robustness tool does; "
        'recorded with the results')
    add('--save-images', metavar='DIR', help='also write the corrupted images there, with one annotation file for all')
    add('--image-format', choices=['png', 'jpg'], default='png', help='of these (default: %(default)s)')


def detection_conditions(args: argparse.Namespace) -> tuple[list[str], dict, tuple]:
    """Return the selected corruptions (empty for 'none'), their arguments besides severity, and all conditions."""
    from pit_downstream.benchmarks import coco_c
    names = [] if args.corruptions == ['none'] else corruption_names(args)
    variant = {'order': 'bgr'} if args.bgr else {}
    return names, variant, coco_c.list_conditions(names, args.severities, **variant)


def detector(args: argparse.Namespace):
    """Build the predictor, samples and config that the flags select, on this rank's device.

    Joins torchrun's process group.
    """
    require_places(args)
    from pit_downstream.evaluation.distributed import init_distributed
    device = init_distributed(args.device)
    from pit_downstream.det import config_utils
    from pit_downstream.det.predictor import build_detector
    from pit_downstream.det.samples import detection_samples
    if bool(args.ann) != bool(args.images):
        raise InputError('expected --ann FILE and --images DIR together, got one of them')
    cfg = config_utils.read_config(args, loaders=('test_dataloader',))
    checkpoint = args.checkpoint if args.checkpoint == 'random' else config_utils.checkpoint_file(args.checkpoint)
    samples = detection_samples(cfg, limit=args.limit)
    predictor = build_detector(cfg, checkpoint, config=Path(args.config).stem, device=device, seed=args.seed)
    args.batch_size = args.batch_size or cfg.test_dataloader.get('batch_size', 1)
    return predictor, samples, cfg


def save_corrupted(args: argparse.Namespace, samples, cfg, conditions: Sequence) -> None:
    """Write the corrupted images if --save-images is set."""
    if args.save_images:
        from pit_downstream.det.metric import config_truth
        from pit_downstream.det.saving import save_images
        save_images(samples, config_truth(cfg, samples), conditions, args.save_images, format=args.image_format,
                    seed=args.seed, workers=args.workers or 0)
