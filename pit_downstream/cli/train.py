"""Train a detector.

pit-downstream train detr_pit_s             on COCO (data/README.md)
pit-downstream train detr_pit_s --bundled   on the bundled dataset, which is generated first
torchrun --nproc-per-node 8 --no-python pit-downstream train detr_pit_s --launcher pytorch
"""

from collections.abc import Sequence

from pit_downstream.cli import flags
from pit_downstream.cli.errors import report_errors


def make_parser() -> flags.ToolParser:
    parser = flags.make_training_parser(__doc__)
    parser.groups['run'].add_argument(
        '--amp', nargs='?', const='fp16', choices=['bf16', 'fp16'], help='mixed precision: bf16 for training and '
        'validation, fp16 (without a value) for training (default: float32)')
    flags.add_training_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    with report_errors():
        args = make_parser().parse_args(argv)
        from pit_downstream.det import config_utils
        cfg = config_utils.read_config(args, loaders=('train_dataloader', 'val_dataloader'))
        config_utils.set_training(cfg, args)
        from mmengine.runner import Runner
        runner = Runner.from_cfg(cfg)
        runner.train()
        if runner.rank == 0:
            print(config_utils.format_summary(runner))
