"""Train a universal adversarial patch against a detector (DPatch); tools/eval_adversarial.py evaluates it.

python tools/train_patch.py configs/retinanet_pit_ti.py work_dirs/retinanet_pit_ti --data data/coco \\
    --ann data/coco/annotations/instances_train2017.json --images data/coco/train2017
python tools/eval_adversarial.py --config configs/retinanet_pit_ti.py work_dirs/retinanet_pit_ti --data data/coco \\
    --epsilons 1 --attacks "dpatch(file='patches/dpatch_0123abcd.npy')" dpatch
Train on images other than those of the evaluation: set --ann and --images. The baseline is a patch of noise.
"""

from collections import deque

from pit_downstream import cli


def parse_args():
    parser = cli.measured_detector_parser(__doc__)
    add = parser.add_argument
    add('--steps', type=int, default=500, help='batches, drawn at random (default: %(default)s)')
    add('--step', type=float, default=5., help='length of a step in levels of 255 (default: %(default)s)')
    add('--share', type=float, default=120 / 416, help='its side, of the shorter side of an image (default: 120/416)')
    add('--place', choices=['corner', 'center'], default='corner', help='where it is pasted (default: %(default)s)')
    add('--loss', choices=['all', 'cls', 'box', 'rpn', 'roi'], default='all', help='it climbs this (default: '
        '%(default)s)')
    add('--out', default='patches', metavar='DIR', help='where the patch is written (default: %(default)s)')
    parser.set_defaults(batch_size=16)
    return parser.parse_args()


def main():
    args = parse_args()
    from pit_downstream.utils.path_checks import require_folder_to_write
    require_folder_to_write(args.out, '--out')
    cli.require_one_process('train_patch.py')
    predictor, samples, _ = cli.detector(args)
    from pit_downstream.attacks import dpatch
    from pit_downstream.evaluation.data_loading import draw_batches
    from tqdm import tqdm
    batches = draw_batches(predictor, samples, count=args.steps, size=args.batch_size, seed=args.seed,
                           allow_missing=args.allow_missing)
    steps = dpatch.train_patch(predictor, tqdm(batches, total=args.steps, disable=None), share=args.share,
                               place=args.place, step=args.step / 255, loss_type=args.loss, seed=args.seed)
    print(dpatch.save_patch(deque(steps, maxlen=1).pop(), args.out))


if __name__ == '__main__':
    with cli.report_errors():
        main()
