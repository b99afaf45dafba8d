"""Run every speed benchmark against its peer, one script after the other, and write the page of all results.

python -m speed.run [--quick] [--only pit_speed reattention ...] [--threads 2]
    [--imagenet DIR] [--coco-c CONFIG CHECKPOINT DIR] [--classifier MODEL WEIGHTS DIR]

--quick: a short run that checks that all scripts work; its rows are added to work_dirs/bench/results.csv. --imagenet: a
folder of class folders for ImageNet-C. --coco-c: a detector, its weights and its data for COCO-C. Without them these
two use bundled images and random weights, and add their rows there as in a quick run. --classifier: a trained
classifier and its images for the attacks. If a script fails, the others continue, and the failure is listed at the end.
The machine should be idle; every row records its load. Takes half an hour on two cores without data, and about twenty
minutes each for --imagenet and --coco-c.
"""

import subprocess
import sys
import time

from speed import summary
from speed.runner import bench_parser
from speed.table import HERE, QUICK, read_table

SCRIPTS = ('pit_speed', 'attention_memory', 'reattention', 'training_step', 'padding', 'corruption_speed',
           'imagenet_c_overhead', 'coco_c_speed', 'attack_speed')


def parse_args():
    parser = bench_parser(__doc__)
    parser.add_argument('--only', nargs='+', choices=SCRIPTS, default=SCRIPTS, metavar='NAME')
    parser.add_argument('--imagenet', metavar='DIR')
    parser.add_argument('--coco-c', nargs=3, metavar=('CONFIG', 'CHECKPOINT', 'DIR'))
    parser.add_argument('--classifier', nargs=3, metavar=('MODEL', 'WEIGHTS', 'DIR'))
    return parser.parse_args()


def command(name: str, args) -> list[str]:
    """Return the command of one script, without the interpreter."""
    flags = ['--threads', str(args.threads), *(['--quick'] if args.quick else [])]
    if name == 'padding':
        flags += ['--shape', '400', '666', '--smaller', '400', '533', '--repeat', '3']  # half of COCO's, for CPUs
    if name == 'imagenet_c_overhead' and args.imagenet:
        flags += ['--data', args.imagenet]
    if name == 'attack_speed' and args.classifier:
        model, weights, data = args.classifier
        flags += ['--model', model, '--weights', weights, '--data', data]
    if name == 'coco_c_speed':
        if args.quick or not args.coco_c:
            return ['-m', 'speed.coco_c_bundled', *flags]
        config, checkpoint, data = args.coco_c
        flags = [config, checkpoint, '--data', data, *flags]
    return ['-m', f'speed.{name}', *flags]


def main() -> None:
    args = parse_args()
    failed = []
    for name in args.only:
        words, start = command(name, args), time.perf_counter()
        print(f'\n== python {" ".join(words)}', flush=True)
        if subprocess.run([sys.executable, *words], cwd=HERE.parent, check=False).returncode:
            failed.append(name)
        print(f'== {name}: {time.perf_counter() - start:.0f} s', flush=True)
    print(f'\n{summary.tables(read_table(QUICK))}' if args.quick else f'\n{summary.write()}')
    if failed:
        raise SystemExit(f'Scripts failed: {", ".join(failed)}. Run each by itself to see its error.')


if __name__ == '__main__':
    main()
