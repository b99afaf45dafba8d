"""Train a classifier with the recipe of its paper. The weights fit detector backbones and --weights of the other tools.

python tools/train_classifier.py configs/imagenet_pit_s.py             on ImageNet (data/README.md)
python tools/train_classifier.py configs/cifar10_pit_ti.py --data DIR  on DIR/train and DIR/val (or test): class folders
python tools/train_classifier.py configs/imagenet_pit_s.py --bundled   on the bundled images, which are generated first
torchrun --nproc-per-node 8 tools/train_classifier.py configs/imagenet_pit_s.py --launcher pytorch
"""

from pit_downstream import cli


def parse_args():
    parser = cli.detector_parser(__doc__, config='config file of a classifier; configs/ holds ours')
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size')
    parser.add_argument('--resume', nargs='?', const='auto', metavar='CHECKPOINT',
                        help='go on from a checkpoint; without one, from the latest of the work dir')
    return parser.parse_args()


def main():
    args = parse_args()
    from pit_downstream.training import runs
    cfg = runs.read_config(args)
    from mmengine.runner import Runner
    runner = Runner.from_cfg(cfg)
    runs.require_batches(runner)
    runner.train()
    if runner.rank == 0:
        print(runs.training_summary(runner))


if __name__ == '__main__':
    with cli.report_errors():
        main()
