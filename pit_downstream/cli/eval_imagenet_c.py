"""Evaluate a classifier on ImageNet-C: print its errors, CE and mCE. Corruptions are computed on the fly.

pit-downstream eval-imagenet-c --model pit_s --data data/imagenet/val --output-dir work_dirs/imagenet_c
torchrun --nproc-per-node 8 --no-python pit-downstream eval-imagenet-c --model pit_s --precision bf16
An interrupted run resumes from its records. A complete run prints its table at once.
"""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from pit_downstream.cli import conditions, flags, models
from pit_downstream.cli.argument_types import int_in_range
from pit_downstream.cli.errors import report_errors
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.imports import pause_garbage_collection


def make_parser() -> flags.ToolParser:
    parser = flags.ToolParser(__doc__)
    flags.add_model_flags(parser, 'classifier')
    flags.add_data_flags(parser, 'classifier')
    parser.groups['data'].add_argument(
        '--corrupted-data', metavar='DIR', help='folder of corrupted images, DIR/[GROUP/]CORRUPTION/SEVERITY/CLASS '
        '(ImageNet-C, -C-bar, 3DCC); --data has the clean images (default: none)')
    parser.groups['data'].add_argument(
        '--corrupted-name', metavar='NAME', help='name of --corrupted-data in records (default: imagenet_c for all '
        '1000 classes, else the folder)')
    flags.add_preprocess_flags(parser)
    flags.add_corruption_flags(parser)
    add = parser.groups['conditions'].add_argument
    add('--variant', choices=['hendrycks'], help="use ImageNet-C's elastic_transform, pixelate and frost, which differ "
        'from those of imagecorruptions; recorded with the results (default: imagecorruptions)')
    add('--jpeg-quality', type=int_in_range(1, 100), metavar='Q', help='JPEG quality at which every corrupted image is '
        'saved and read back; the published files have 85; recorded with the results (default: no JPEG)')
    flags.add_result_flags(parser)
    flags.add_run_flags(parser, 'classifier')
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    with report_errors():
        parser = make_parser()
        args = parser.parse_args(argv)
        names = _check_flags(parser, args)
        variant = {'jpeg': args.jpeg_quality} if args.jpeg_quality else {}
        variant |= {'variant': args.variant} if args.variant else {}
        with pause_garbage_collection():
            from pit_downstream.benchmarks import imagenet_c, tables
            from pit_downstream.benchmarks.base import require_counts
            from pit_downstream.evaluation import distributed, keep
            from pit_downstream.metrics.classification import make_classification_metrics
            from pit_downstream.results.records import ResultStore
            from pit_downstream.utils.path_checks import write_atomic
        predictor = models.load_classifier(args)
        samples = _open_corrupted(args, predictor, names) if args.corrupted_data else models.open_images(
            args, predictor)
        wanted = imagenet_c.list_conditions(names, args.severities, **variant)
        table = keep.keep_measuring(
            ResultStore(Path(args.output_dir) / 'results.jsonl'), predictor, samples, make_classification_metrics(),
            wanted if Path(models.image_folder(args)).is_dir() else wanted[1:],
            **models.measure_options(args, predictor.device))
        require_counts(table, len(samples), allow_missing=args.allow_missing)
        if distributed.rank() == 0:
            command = flags.make_command(parser, 'eval_imagenet_c', args, omit=('--corruptions', '--severities'))
            print(f'{table.model} on {table.dataset}, {tables.format_image_count(table)}')
            print(models.describe_preprocessing(predictor, published=bool(args.corrupted_data)), end='\n\n')
            print(imagenet_c.format_table(table, names, args.severities, **variant), end='\n\n')
            print(imagenet_c.format_summary(table, names, args.severities, run=shlex.join(command), **variant))
            for path, text in ((args.csv, tables.format_records_csv(table.records)),
                               (args.json, imagenet_c.format_json(table, names, args.severities, **variant))):
                if path:
                    write_atomic(path, text)
        distributed.destroy_distributed()


def _check_flags(parser: flags.ToolParser, args: argparse.Namespace) -> list[str]:
    """Return the names that --corruptions selects. Raises InputError for flags that contradict each other."""
    if args.corrupted_data:
        flags.reject_flags(parser, args, ('--jpeg-quality', '--variant', '--cache'), 'does not apply to the files of '
                           '--corrupted-data, which are read as they are')
    elif args.corrupted_name:
        raise InputError(f'--corrupted-name {args.corrupted_name} needs the folder that it names. Pass '
                         '--corrupted-data DIR.')
    names = conditions.choose_corruptions(args, registered=not args.corrupted_data)
    if not args.corrupted_data:
        models.require_folder(args)
    elif not Path(args.corrupted_data).is_dir():
        raise InputError(f'no folder of corrupted images: {args.corrupted_data}. Pass another --corrupted-data DIR.')
    return names


def _open_corrupted(args: argparse.Namespace, predictor, names: Sequence[str]):
    """Return the samples of --corrupted-data, with the clean ones of --data if that folder exists."""
    from pit_downstream.datasets.imagenet import load_corruption_folders
    from pit_downstream.datasets.shifts import drop_resize
    samples = load_corruption_folders(
        args.corrupted_data, names, args.severities, view=drop_resize(predictor.view), name=args.corrupted_name,
        clean=models.open_clean_images(args, predictor), limit=args.limit, classes=models.model_classes(predictor))
    for condition in samples.conditions:
        models.require_classes(samples.at(condition)[0], predictor)
    return samples
