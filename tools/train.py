"""Train a detector.

python tools/train.py configs/detr_pit_s.py             on COCO (data/README.md)
python tools/train.py configs/detr_pit_s.py --bundled   on the bundled dataset, which is generated first
torchrun --nproc-per-node 8 tools/train.py configs/detr_pit_s.py --launcher pytorch
"""

from pit_downstream import cli


def parse_args():
    parser = cli.detector_parser(__doc__)
    parser.add_argument('--amp', nargs='?', const='fp16', choices=['bf16', 'fp16'],
                        help='mixed precision: bf16 for training and validation, fp16 (if none is named) for training')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size')
    parser.add_argument('--resume', nargs='?', const='auto', metavar='CHECKPOINT',
                        help='go on from a checkpoint; without one, from the latest of the work dir')
    return parser.parse_args()


def main():
    args = parse_args()
    from pit_downstream.det import config_utils
    cfg = config_utils.read_config(args, loaders=('train_dataloader', 'val_dataloader'))
    config_utils.set_training(cfg, args)
    from mmengine.runner import Runner
    runner = Runner.from_cfg(cfg)
    runner.train()
    if runner.rank == 0:
        print(config_utils.training_summary(runner))


if __name__ == '__main__':
    with cli.report_errors():
        main()
