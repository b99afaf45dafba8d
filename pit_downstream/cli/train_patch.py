"""Train a universal adversarial patch against a detector (DPatch). Evaluate it with eval-adversarial.

pit-downstream train-patch --model retinanet_pit_ti --weights work_dirs/retinanet_pit_ti \\
    --data data/coco/annotations/instances_train2017.json --images data/coco/train2017
pit-downstream eval-adversarial --model retinanet_pit_ti --weights work_dirs/retinanet_pit_ti --data data/coco \\
    --epsilons 1 --attacks "dpatch(file='patches/dpatch_0123abcd.npy')" dpatch
Train on images other than those of the evaluation. The baseline is a patch of noise.
"""

from collections import deque
from collections.abc import Sequence

from pit_downstream.cli import flags, models
from pit_downstream.cli.argument_types import int_in_range
from pit_downstream.cli.errors import report_errors


def make_parser() -> flags.ToolParser:
    parser = flags.ToolParser(__doc__)
    flags.add_model_flags(parser, 'detector')
    flags.add_data_flags(parser, 'detector')
    flags.add_allow_missing_flag(parser)
    add = parser.groups['conditions'].add_argument
    add('--steps', type=int, default=500, metavar='N', help='training steps, one random batch each (default: '
        '%(default)s)')
    add('--step-size', type=float, default=5., metavar='X', help='step size in gray levels of 255 (default: '
        '%(default)s)')
    add('--share', type=float, default=120 / 416, metavar='X', help='side of the patch as a fraction of the '
        'shorter side of the image (default: 120/416)')
    add('--position', choices=['corner', 'center'], default='corner', help='position of the patch (default: '
        '%(default)s)')
    add('--loss', choices=['all', 'cls', 'box', 'rpn', 'roi'], default='all', help='loss to maximize '
        '(default: %(default)s)')
    parser.groups['output'].add_argument('--output-dir', default='patches', metavar='DIR', help='folder of the patch '
                                         '(default: %(default)s)')
    parser.groups['run'].add_argument('--batch-size', type=int_in_range(1), default=16, metavar='N', help='images '
                                      'per batch (default: %(default)s)')
    flags.add_device_flag(parser)
    flags.add_seed_flag(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    with report_errors():
        args = make_parser().parse_args(argv)
        from pit_downstream.utils.slurm import require_one_process
        flags.check_outputs(args)
        require_one_process('train_patch.py')
        opened = models.load_detector(args)
        predictor, samples = opened.predictor, opened.samples
        from tqdm import tqdm

        from pit_downstream.attacks import dpatch
        from pit_downstream.evaluation.data_loading import draw_batches
        batches = draw_batches(predictor, samples, count=args.steps, size=args.batch_size, seed=args.seed,
                               allow_missing=args.allow_missing)
        steps = dpatch.train_patch(predictor, tqdm(batches, total=args.steps, disable=None), share=args.share,
                                   place=args.position, step=args.step_size / 255, loss_type=args.loss, seed=args.seed)
        print(dpatch.save_patch(deque(steps, maxlen=1).pop(), args.output_dir))
