"""Train a classifier with the recipe of its paper. Its weights load into detector backbones and into the other tools.

pit-downstream train-classifier imagenet_pit_s             on ImageNet (data/README.md)
pit-downstream train-classifier cifar10_pit_ti --data DIR  on DIR/train and DIR/val (or test): class folders
pit-downstream train-classifier imagenet_pit_s --bundled   on the bundled images, which are generated first
torchrun --nproc-per-node 8 --no-python pit-downstream train-classifier imagenet_pit_s --launcher pytorch
"""

from collections.abc import Sequence

from pit_downstream.cli import flags
from pit_downstream.cli.errors import report_errors


def make_parser() -> flags.ToolParser:
    parser = flags.make_training_parser(__doc__, config='the config of a classifier: a path that ends in .py, or a '
                                        'name in configs/ such as imagenet_pit_s')
    parser.groups['run'].add_argument('--amp', action='store_true', help='train in mixed precision (default: off)')
    flags.add_training_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    with report_errors():
        args = make_parser().parse_args(argv)
        from pit_downstream.training import runs
        cfg = runs.read_config(args)
        from mmengine.runner import Runner
        runner = Runner.from_cfg(cfg)
        runs.require_batches(runner)
        runner.train()
        if runner.rank == 0:
            print(runs.format_summary(runner))
