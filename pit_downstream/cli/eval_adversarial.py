"""Evaluate a classifier or a detector under adversarial attacks: print its accuracy or AP by attack and epsilon.

pit-downstream eval-adversarial --model pit_s --limit 1000 --attacks fgsm 'pgd(steps=20)' autoattack
pit-downstream eval-adversarial --model pit_s --attacks 'pgd(steps=20)' --norm L2 --epsilons 0.5 1 2 --save-images DIR
pit-downstream eval-adversarial --model pit_s --attacks mim --source resnet50 --epsilons 16/255
torchrun --nproc-per-node 8 --no-python pit-downstream eval-adversarial --model pit_s --epsilons 4/255 --precision bf16
pit-downstream eval-adversarial --model retinanet_pit_ti --weights work_dirs/retinanet_pit_ti --bundled \\
    --attacks noise "pgd(steps=10, loss='cls')" "tog(mode='vanishing')" dag
An interrupted run resumes from its outcomes. --precision applies to the search. Results are computed in float32.
"""

from collections.abc import Sequence

from pit_downstream.benchmarks.adversarial import Adversarial
from pit_downstream.benchmarks.detection_attacks import DetectionAttacks
from pit_downstream.cli import benchmark_tools as tools
from pit_downstream.cli import flags
from pit_downstream.cli.argument_types import parse_epsilon
from pit_downstream.cli.errors import report_errors
from pit_downstream.cli.plugins import import_plugins
from pit_downstream.utils.errors import InputError


def make_parser() -> flags.ToolParser:
    parser = tools.make_parser(__doc__, Adversarial, 'classifier', 'detector')
    parser.groups['preprocessing'].add_argument(
        '--resolution', choices=['network', 'original'], default='network', help='attack the input of a detector '
        '(network) or the image before its resize (original) (default: %(default)s)')
    parser.groups['output'].add_argument(
        '--save-images', metavar='DIR', help='folder for every attacked and clean image, '
        'DIR/CONDITION/ID.npy (the input of the model, float32, 3 x H x W in [0, 1]), and a sheet DIR/CONDITION.png '
        '(default: none)')
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    with report_errors():
        parser = make_parser()
        args = parser.parse_args(argv)
        import_plugins(args.imports)
        task = tools.choose_task(parser, args)
        norm = args.norm or 'Linf'
        if args.epsilons is None and norm != 'Linf':
            raise InputError(f'--norm {norm} has no default sizes. Pass --epsilons, such as --epsilons 0.5.')
        for text in args.epsilons or ():
            parse_epsilon(text)
        tools.run(parser, args, tools.make_benchmark(args, Adversarial if task == 'classifier' else DetectionAttacks))
