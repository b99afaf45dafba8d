"""Evaluate a classifier on ImageNet-C: print its errors, CE and mCE. Corruptions are computed on the fly.

pit-downstream eval-imagenet-c --model pit_s --data data/imagenet/val --output-dir work_dirs/imagenet_c
torchrun --nproc-per-node 8 --no-python pit-downstream eval-imagenet-c --model pit_s --precision bf16
An interrupted run resumes from its outcomes. A complete run prints its table at once.
"""

from collections.abc import Sequence
from pathlib import Path

from pit_downstream.benchmarks.imagenet_c import ImageNetC
from pit_downstream.cli import benchmark_tools as tools
from pit_downstream.cli import flags
from pit_downstream.cli.errors import report_errors
from pit_downstream.utils.errors import InputError


def make_parser() -> flags.ToolParser:
    parser = tools.make_parser(__doc__, ImageNetC, 'classifier')
    flags.add_corrupted_data_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    with report_errors():
        parser = make_parser()
        args = parser.parse_args(argv)
        if args.corrupted_data:
            flags.reject_flags(parser, args, ('--jpeg-quality', '--variant', '--cache'), 'does not apply to the files '
                               'of --corrupted-data, which are read as they are')
            if not Path(args.corrupted_data).is_dir():
                raise InputError(f'no folder of corrupted images: {args.corrupted_data}. Pass another '
                                 '--corrupted-data DIR.')
        elif args.corrupted_name:
            raise InputError(f'--corrupted-name {args.corrupted_name} needs the folder that it names. Pass '
                             '--corrupted-data DIR.')
        tools.select_corruptions(args, is_registered=not args.corrupted_data)
        tools.run(parser, args, tools.make_benchmark(args, ImageNetC))
