"""Flags with one meaning in every tool, in the groups of `--help`."""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pit_downstream.cli.argument_types import (
    StoreConfigOptions,
    StoreUnique,
    int_in_range,
    parse_batch_size,
    parse_decimal,
)
from pit_downstream.cli.errors import add_debug_flag
from pit_downstream.utils.errors import InputError

if TYPE_CHECKING:
    from pit_downstream.benchmarks.base import Benchmark

GROUPS = ('model', 'data', 'preprocessing', 'conditions', 'output', 'run')
IMAGENET_VAL = 'data/imagenet/val'  # path of ImageNet's images in data/README.md
RECORDS = 'work_dirs/records'

CLASSIFIER = ("a classifier of this project or of timm, torchvision:NAME, hf-hub:NAME, local-dir:FOLDER or "
              "module:function, with optional arguments, such as 'pit_s(num_classes=10)'")
CLASSIFIER_CONFIG = '; or the config of a classifier: a path that ends in .py, or the name of a bundled config'
DETECTOR = ('the config of a detector: a path that ends in .py, the name of a bundled config such as retinanet_pit_ti, '
            'or mmdet::FOLDER/FILE.py')
CLASSIFIER_WEIGHTS = ('pretrained (published weights, or those that a function returns), random (drawn from --seed), '
                      'or a checkpoint file (default: pretrained; required for a config)')
DETECTOR_WEIGHTS = 'a checkpoint file, a work dir for its latest checkpoint, or random (drawn from --seed)'


class ToolParser(argparse.ArgumentParser):
    """Parser with the flags of a tool in GROUPS. Flags cannot be abbreviated."""

    def __init__(self, description: str):
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter,
                         allow_abbrev=False)
        self.groups = {title: self.add_argument_group(title) for title in GROUPS}
        add_debug_flag(self.groups['run'])


def add_model_flags(parser: ToolParser, *tasks: str) -> None:
    """Add --model and --weights. tasks: 'classifier', 'detector' or both."""
    add = parser.groups['model'].add_argument
    if 'classifier' not in tasks:
        add('--model', required=True, metavar='CONFIG', help=DETECTOR)
        add('--weights', required=True, help=DETECTOR_WEIGHTS)
    elif 'detector' not in tasks:
        add('--model', required=True, metavar='NAME', help=CLASSIFIER + CLASSIFIER_CONFIG)
        add('--weights', help=CLASSIFIER_WEIGHTS)
    else:
        add('--model', required=True, metavar='NAME', help=f'{CLASSIFIER}{CLASSIFIER_CONFIG}; or {DETECTOR}')
        add('--weights', help=f'of a classifier: {CLASSIFIER_WEIGHTS}; of a detector: {DETECTOR_WEIGHTS}')
    if 'detector' in tasks:
        add_config_options(parser)


def add_config_options(parser: ToolParser) -> None:
    parser.groups['model'].add_argument(
        '--cfg-options', nargs='+', action=StoreConfigOptions, default={}, metavar='KEY=VALUE',
        help='override settings of the config, such as train_dataloader.batch_size=4 (default: none)')


def add_data_flags(parser: ToolParser, *tasks: str) -> None:
    """Add the flags that select the images to measure. tasks: as in add_model_flags."""
    add = parser.groups['data'].add_argument
    texts = {'classifier': f'a folder of class folders, or of images with --labels (default: {IMAGENET_VAL})',
             'detector': "the folder of the dataset, or a COCO annotation file with --images (default: the config's "
             'dataset)'}
    add('--data', metavar='PATH', help='; of a detector: '.join(texts[task] for task in tasks))
    if 'detector' in tasks:
        add('--images', metavar='DIR', help='folder of the images in the annotation file --data (default: none)')
    add('--bundled', action='store_true', help='use the bundled dataset, generated in data/shapes on first use; with '
        '--data in that folder (default: off)')
    if 'classifier' in tasks:
        add('--labels', metavar='FILE', help="file with lines 'IMAGE CLASS', for a folder without class folders "
            '(default: none)')
        add('--classes', metavar='FILE', help="file with one class name per line in the order of the model's outputs, "
            'to which class folders are matched (default: the names in the checkpoint; for a model with 1000 outputs '
            'the WordNet ids of ImageNet-1k; else the sorted folders, as in torchvision ImageFolder)')
        add('--cache', metavar='DIR', help='folder for a memory map of decoded images, which later runs reuse '
            '(default: none)')
    add('--limit', type=int, metavar='N', help='number of evenly spaced images to use; recorded with the results '
        '(default: all)')


def add_allow_missing_flag(parser: ToolParser) -> None:
    parser.groups['data'].add_argument('--allow-missing', type=int_in_range(0), default=0, metavar='N', help='maximum '
                                       'number of unreadable images (default: %(default)s)')


def add_preprocess_flags(parser: ToolParser) -> None:
    """Add the flags that choose how images are prepared for a classifier."""
    add = parser.groups['preprocessing'].add_argument
    add('--preprocess', choices=['model', 'imagenet', 'none'], default='model', help="model (the model's "
        "pretrained_cfg), imagenet (resize 256, crop 224, ImageNet's mean and std), none (no resize and no crop; the "
        "model's mean and std) (default: %(default)s)")
    add('--img-size', type=int_in_range(1), metavar='N', help="input size of the network (default: the model's)")
    for flag, neutral in (('--mean', 0), ('--std', 1)):
        add(flag, nargs='+', type=parse_decimal, metavar='X', help=f'{flag[2:]} for images in [0, 1], one number or '
            f"three; {neutral} for a model that normalizes its input (default: the model's)")


def add_corrupted_data_flags(parser: ToolParser) -> None:
    """Add the flags of a folder of corrupted images."""
    add = parser.groups['data'].add_argument
    add('--corrupted-data', metavar='DIR', help='folder of corrupted images, DIR/[GROUP/]CORRUPTION/SEVERITY/CLASS '
        '(ImageNet-C, -C-bar, 3DCC); --data has the clean images (default: none)')
    add('--corrupted-name', metavar='NAME', help='name of --corrupted-data in records (default: imagenet_c for all '
        '1000 classes, else the folder)')


def add_benchmark_flags(parser: ToolParser, benchmark: 'type[Benchmark]', *others: 'type[Benchmark]') -> None:
    """Add a flag for every field of a benchmark, with the type of its default. others: benchmarks of other tasks."""
    add = parser.groups['conditions'].add_argument
    for field in fields(benchmark):  # type: ignore[arg-type]
        default = field.default
        flag, text = f'--{field.name.replace("_", "-")}', field.metadata.get('help', field.name.replace('_', ' '))
        options: dict[str, Any] = {'default': None, 'metavar': field.metadata.get('metavar')}
        if isinstance(default, bool):
            add(flag, action=argparse.BooleanOptionalAction if default else 'store_true', default=default,
                help=f'{text} (default: {"on" if default else "off"})')
            continue
        if isinstance(default, tuple):
            kinds = {type(value) for value in default}
            kind = int if kinds == {int} else parse_decimal if kinds and kinds <= {int, float} else str
            options |= {'nargs': field.metadata.get('nargs', '+'), 'type': kind}
            options |= {'action': StoreUnique} if kind is int else {}
            shown = field.metadata.get('default', ' '.join(map(str, default)) or 'none')
        else:
            parsers = {'int': int, 'float': parse_decimal}
            options['type'] = next((parse for name, parse in parsers.items() if name in str(field.type)), str)
            shown = field.metadata.get('default', 'none' if default is None else default)
        if 'choices' in field.metadata:
            options['choices'] = field.metadata['choices']
        add(flag, **options, help=f'{text} (default: {shown})')


def add_import_flag(parser: ToolParser, what: str) -> None:
    parser.groups['run'].add_argument('--import', dest='imports', nargs='+', default=[], metavar='MODULE',
                                      help=f'modules that register {what} (default: none)')


def add_result_flags(parser: ToolParser) -> None:
    """Add --output-dir and the files of the results: --csv, --json, --latex and --markdown."""
    add = parser.groups['output'].add_argument
    add('--output-dir', default=RECORDS, metavar='DIR', help='folder of the results; an interrupted run resumes from '
        'it (default: %(default)s)')
    add('--csv', metavar='FILE', help='file for every number with its interval and count (default: none)')
    add('--json', metavar='FILE', help='file for the summary and every number (default: none)')
    add('--latex', metavar='FILE', help='file for the tables in LaTeX (default: none)')
    add('--markdown', metavar='FILE', help='file for the tables in Markdown (default: none)')


def add_run_flags(parser: ToolParser, *tasks: str) -> None:
    """Add the flags that choose how a model is run. tasks: as in add_model_flags."""
    add_allow_missing_flag(parser)
    add = parser.groups['run'].add_argument
    defaults = {'classifier': 'auto', 'detector': "the config's"}
    add('--batch-size', type=parse_batch_size, metavar='N', help='images per batch; auto starts large and halves '
        f'when memory runs out (default: {", of a detector ".join(defaults[task] for task in tasks)})')
    add('--workers', type=int_in_range(0), metavar='N', help='data-loading processes (default: 1 on a CPU, up to 16 '
        'for a GPU)')
    add_device_flag(parser)
    if 'classifier' in tasks:
        add('--precision', choices=['float32', 'bf16', 'fp16'], default='float32', help='precision of the model; '
            'recorded with the results (default: %(default)s)')
        add('--compile', action='store_true', help='run the model through torch.compile (default: off)')
    add_seed_flag(parser)


def add_dry_run_flag(parser: ToolParser) -> None:
    parser.groups['run'].add_argument('--dry-run', action='store_true', help='print conditions, images, and estimated '
                                      'time and disk space, and stop (default: off)')


def add_device_flag(parser: ToolParser) -> None:
    parser.groups['run'].add_argument('--device', default='auto', help='cpu, cuda, cuda:1 ... (default: auto, a GPU if '
                                      'available)')


def add_seed_flag(parser: ToolParser) -> None:
    parser.groups['run'].add_argument('--seed', type=int_in_range(0), default=0, metavar='N', help='seed of random '
                                      'weights, corruptions and attacks (default: %(default)s)')


def make_training_parser(description: str, *, config: str = DETECTOR) -> ToolParser:
    """Build the parser of training and testing, with mmdet's flags. config: help for the config file."""
    parser = ToolParser(description)
    parser.groups['model'].add_argument('config', metavar='CONFIG', help=config)
    add_config_options(parser)
    parser.groups['data'].add_argument('--data', metavar='DIR', help='folder of the dataset (default: that of the '
                                       'config)')
    parser.groups['data'].add_argument('--bundled', action='store_true', help='use the bundled dataset, generated '
                                       'in data/shapes on first use (default: off)')
    parser.groups['output'].add_argument('--work-dir', metavar='DIR', help='folder for logs and checkpoints (default: '
                                         'work_dirs/CONFIG)')
    parser.groups['run'].add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none',
                                      help='launcher of the processes (default: %(default)s)')
    parser.groups['run'].add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser


def add_training_flags(parser: ToolParser) -> None:
    add = parser.groups['run'].add_argument
    add('--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size (default: off)')
    add('--resume', nargs='?', const='auto', metavar='CHECKPOINT', help='continue from a checkpoint; without a value, '
        'from the latest in the work dir (default: start from scratch)')


def reject_flags(parser: argparse.ArgumentParser, args: argparse.Namespace, flags: Sequence[str], reason: str) -> None:
    """Raise InputError if one of `flags` is given. reason: why it does not apply, as in 'applies to a detector'."""
    for flag in flags:
        name = flag.removeprefix('--').replace('-', '_')
        if getattr(args, name) != parser.get_default(name):
            raise InputError(f'{flag} {reason}. Leave it out.')


def check_outputs(args: argparse.Namespace) -> None:
    """Raise InputError, before any work, if results, images or records cannot be written."""
    from pit_downstream.utils.path_checks import require_writable_file, require_writable_folder
    for names, require in ((('output_dir', 'cache', 'save_images'), require_writable_folder),
                           (('csv', 'json', 'latex', 'markdown'), require_writable_file)):
        for name in names:
            if path := getattr(args, name, None):
                require(path, f'--{name.replace("_", "-")}')
    results = Path(getattr(args, 'output_dir', '.'), 'results.jsonl')
    if results.exists() and not results.is_file():
        raise InputError(f'not a file of records: {results}. Pass another --output-dir.')
