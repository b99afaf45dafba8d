"""Evaluate a classifier on shifted datasets (ImageNet-A, -R, -Sketch, -V2, ReaL, ObjectNet, IN-9): errors and gaps.

pit-downstream eval-shifts --model pit_s --shifts imagenet_a=DIR imagenet_r=DIR in9=DIR imagenet_real
pit-downstream eval-shifts --model pit_s              # every dataset in data/ (data/README.md)
pit-downstream eval-shifts --model MODEL --weights FILE --data DIR --shifts shift_fog=DIR     # a custom dataset
--data has ImageNet's validation images, for ReaL and for the clean error of the same classes. An interrupted run
resumes from its records. A complete run prints its table at once.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pit_downstream.cli import flags, models
from pit_downstream.cli.errors import report_errors
from pit_downstream.utils.errors import InputError


def make_parser() -> flags.ToolParser:
    parser = flags.ToolParser(__doc__)
    flags.add_model_flags(parser, 'classifier')
    flags.add_data_flags(parser, 'classifier')
    parser.groups['data'].add_argument(
        '--shifts', nargs='+', default=[], metavar='NAME[=DIR]', help='datasets and their folders; in9 selects every '
        'variation of the Backgrounds Challenge, shift_ANYTHING=DIR a custom dataset with the class folders of --data '
        '(default: all datasets in the folders that data/README.md describes)')
    flags.add_preprocess_flags(parser)
    flags.add_result_flags(parser)
    flags.add_run_flags(parser, 'classifier')
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    with report_errors():
        args = make_parser().parse_args(argv)
        folders = _choose_folders(args)
        from pit_downstream.benchmarks import shifts
        from pit_downstream.evaluation import distributed
        from pit_downstream.evaluation.shifts import measure_shifts
        from pit_downstream.results.records import ResultStore
        from pit_downstream.utils.path_checks import write_atomic
        predictor = models.load_classifier(args)
        datasets, clean = _open_shifts(args, folders, predictor)
        tables = measure_shifts(ResultStore(Path(args.output_dir) / 'results.jsonl'), predictor, datasets, clean,
                                **models.measure_options(args, predictor.device))
        if distributed.rank() == 0:
            names = list(datasets)
            print(f'{predictor.name}\n{models.describe_preprocessing(predictor)}\n')
            print(shifts.format_table(tables, names))
            if summary := shifts.format_summary(tables, names):
                print(f'\n{summary}')
            for path, text in ((args.csv, shifts.format_csv(tables)),
                               (args.json, shifts.format_json(tables, names))):
                if path:
                    write_atomic(path, text)
        distributed.destroy_distributed()


def _choose_folders(args: argparse.Namespace) -> dict:
    """Return the folders of the datasets in --shifts, by name. Missing ones raise before a model is built."""
    from pit_downstream.datasets.shifts import check_folders, is_custom, select_shifts
    folders = select_shifts(args.shifts, args.data or flags.IMAGENET_VAL)
    if not folders:
        raise InputError('no shifted dataset in data/. Put one where data/README.md describes, or pass its folder: '
                         '--shifts imagenet_a=DIR.')
    check_folders(folders)
    custom = [name for name in folders if is_custom(name)]
    if custom and args.labels:
        raise InputError(f'--labels does not apply to {custom[0]}, whose clean images are in class folders. Leave it '
                         'out, and pass their folder with --data DIR.')
    return folders


def _open_shifts(args: argparse.Namespace, folders: dict, predictor) -> tuple:
    """Open the datasets in `folders`, by name, and the clean images of --data, None if there are none."""
    from dataclasses import replace

    from pit_downstream.datasets.cache import CachedSamples
    from pit_downstream.datasets.shifts import CleanReference, is_custom, load_shifts
    clean = models.open_clean_images(args, predictor, of_imagenet=not all(map(is_custom, folders)))
    reference = clean and CleanReference(Path(models.image_folder(args)), clean.name, models.model_classes(predictor))
    shifts = load_shifts(folders, view=predictor.view, limit=args.limit, clean=reference)
    for name, shift in shifts.items() if args.cache else ():
        if shift.samples is not None:  # the cache has the methods of the samples
            shifts[name] = replace(shift, samples=CachedSamples(shift.samples, args.cache))  # type: ignore[arg-type]
    return shifts, clean
