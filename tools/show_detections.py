"""Draw the detections in one image, clean, corrupted and attacked, side by side.

python tools/show_detections.py configs/retinanet_pit_ti_bccd.py work_dirs/retinanet_pit_ti_bccd --data data/bccd
python tools/show_detections.py configs/detr_pit_s.py work_dirs/detr_pit_s --bundled --image 3 --out detr.png \\
    --conditions clean 'frost(severity=5)' "tog(epsilon=8/255, mode='vanishing')"
"""

from pit_downstream import cli

SHOWN = ['clean', 'fog(severity=3)', 'pgd(epsilon=8/255, steps=10)']


def parse_args():
    parser = cli.measured_detector_parser(__doc__)
    add = parser.add_argument
    add('--conditions', nargs='+', default=SHOWN, metavar='CONDITION', help='clean, corruptions and attacks with their '
        'arguments (default: %(default)s)')
    add('--image', type=int, default=0, metavar='N', help='which image of the dataset (default: the first)')
    add('--score-thr', type=float, default=0.5, help='least score of a box that is shown (default: %(default)s)')
    add('--out', default='detections.png', metavar='FILE', help='the image (default: %(default)s)')
    return parser.parse_args()


def main():
    args = parse_args()
    cli.require_image_to_write(args.out, '--out')
    cli.require_one_process('show_detections.py')
    from pit_downstream.utils.path_checks import atomic_path
    from pit_downstream.det.visualization import panels
    conditions = cli.shown_conditions(args.conditions)
    predictor, samples, _ = cli.detector(args)
    sample = cli.chosen_image(samples, args.image)
    paper = panels(predictor, sample, conditions, samples.classes, score_thr=args.score_thr, seed=args.seed)
    with atomic_path(args.out) as new:
        paper.save(new)
    print(f'{args.out}: image {sample.id} of {samples.name}')


if __name__ == '__main__':
    with cli.report_errors():
        main()
