"""Test a detector: print its AP, and draw ground truth and predictions side by side.

python tools/test.py configs/detr_pit_s.py work_dirs/detr_pit_s/epoch_150.pth
python tools/test.py configs/retinanet_pit_ti.py work_dirs/demo --bundled --show-dir work_dirs/demo/images
A work dir selects its latest checkpoint.
"""

from pit_downstream import cli


def parse_args():
    parser = cli.detector_parser(__doc__)
    parser.add_argument('checkpoint', help='checkpoint file, or a work dir for its latest')
    parser.add_argument('--show-dir', metavar='DIR', help='write each image with ground truth (left) and predictions '
                        '(right) here')
    parser.add_argument('--score-thr', type=float, default=0.5, metavar='SCORE', help='least score of a prediction in '
                        'the images of --show-dir (default: %(default)s)')
    parser.add_argument('--amp', choices=['bf16'], help='test in bfloat16')
    parser.add_argument('--out', metavar='FILE.pkl', help='keep the predictions, as mmdet does')
    return parser.parse_args()


def main():
    args = parse_args()
    from pit_downstream.det import config_utils
    cfg = config_utils.read_config(args, loaders=('test_dataloader',))
    config_utils.set_testing(cfg, args)
    from mmengine.runner import Runner
    runner = Runner.from_cfg(cfg)
    metrics = runner.test()
    if runner.rank == 0:
        print(', '.join(f'{name} {value:.3f}' for name, value in metrics.items()))


if __name__ == '__main__':
    with cli.report_errors():
        main()
