"""Test a detector: print its AP. With --show-dir, draw ground truth and predictions side by side.

pit-downstream test detr_pit_s work_dirs/detr_pit_s/epoch_150.pth
pit-downstream test retinanet_pit_ti work_dirs/demo --bundled --show-dir work_dirs/demo/images
A work dir selects its latest checkpoint.
"""

from collections.abc import Sequence

from pit_downstream.cli import flags
from pit_downstream.cli.errors import report_errors


def make_parser() -> flags.ToolParser:
    parser = flags.make_training_parser(__doc__)
    parser.groups['model'].add_argument('checkpoint', metavar='CHECKPOINT', help='checkpoint file, or a work dir for '
                                        'its latest checkpoint')
    add = parser.groups['output'].add_argument
    add('--show-dir', metavar='DIR', help='folder for each image with its ground truth (left) and predictions (right) '
        '(default: none)')
    add('--score-thr', type=float, default=0.5, metavar='SCORE', help='minimum score of a prediction in the images of '
        '--show-dir (default: %(default)s)')
    add('--out', metavar='FILE.pkl', help='save the predictions, as mmdet does (default: none)')
    parser.groups['run'].add_argument('--amp', choices=['bf16'], help='test in bfloat16 (default: float32)')
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    with report_errors():
        args = make_parser().parse_args(argv)
        from pit_downstream.det import config_utils
        cfg = config_utils.read_config(args, loaders=('test_dataloader',))
        config_utils.set_testing(cfg, args)
        from mmengine.runner import Runner
        runner = Runner.from_cfg(cfg)
        metrics = runner.test()
        if runner.rank == 0:
            print(', '.join(f'{name} {value:.3f}' for name, value in metrics.items()))
