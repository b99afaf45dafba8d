"""Measure and draw the attention collapse of a classifier: similarity of blocks, profiles by depth, maps on images.

pit-downstream analyze-attention --model deepvit_s --weights W.pth --data DIR --output-dir DIR
pit-downstream analyze-attention --model vit_32 --compare deepvit_32 --bundled --limit 32 --output-dir DIR \\
    --weights random --compare-weights random
"""

from collections.abc import Sequence
from pathlib import Path

from pit_downstream.cli import flags, models
from pit_downstream.cli.argument_types import int_in_range
from pit_downstream.cli.errors import report_errors
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.extras import require_extra


def make_parser() -> flags.ToolParser:
    parser = flags.ToolParser(__doc__)
    flags.add_model_flags(parser, 'classifier')
    add = parser.groups['model'].add_argument
    add('--compare', metavar='NAME', help='second model in the same figures, as --model (default: none)')
    add('--compare-weights', metavar='WEIGHTS', help='weights of the second model, as --weights (default: pretrained)')
    add = parser.groups['data'].add_argument
    add('--data', type=Path, metavar='DIR', help='folder of images, at any depth (--data or --bundled is required)')
    add('--bundled', action='store_true', help='use the bundled dataset, generated in data/shapes on first use '
        '(default: off)')
    add('--limit', type=int, metavar='N', help='number of evenly spaced images to use (default: all)')
    flags.add_preprocess_flags(parser)
    parser.groups['output'].add_argument('--output-dir', type=Path, required=True, metavar='DIR', help='folder for '
                                         'results and figures')
    parser.groups['conditions'].add_argument('--threshold', type=float, default=0.9, metavar='X', help='cosine '
                                             'above which blocks are similar (default: %(default)s)')
    parser.groups['run'].add_argument('--batch-size', type=int_in_range(1), default=8, metavar='N',
                                      help='images per batch (default: %(default)s)')
    flags.add_device_flag(parser)
    flags.add_seed_flag(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    with report_errors():
        args = make_parser().parse_args(argv)
        from pit_downstream.utils.slurm import require_one_process
        flags.check_outputs(args)
        require_extra('report')
        require_one_process('analyze_attention.py')
        if bool(args.data) == args.bundled:
            raise InputError('--data DIR or --bundled selects the images. Pass one of them.')
        if args.compare_weights and not args.compare:
            raise InputError('--compare-weights is without a second model. Pass --compare MODEL.')
        chosen = [models.choose_model(args.model, args.weights, 'classifier')]
        if args.compare:
            chosen.append(models.choose_model(args.compare, args.compare_weights, 'classifier'))
        from pit_downstream.evaluation import attention_analysis as attention
        from pit_downstream.evaluation import distributed
        device = distributed.device_of(args.device)
        folder = attention.bundled_images() if args.bundled else args.data
        paths = attention.list_images(folder, limit=args.limit, apart_from=args.output_dir)
        analyses = attention.analyze_models(
            [(choice.name, choice.weights) for choice in chosen], paths, seed=args.seed, batch_size=args.batch_size,
            device=device, threshold=args.threshold, **models.preprocess_options(args))
        dataset = attention.dataset_text(folder, paths, limit=args.limit)
        files = attention.write_analyses(analyses, args.output_dir, dataset=dataset, seed=args.seed)
        for model, analysis in analyses.items():
            print(attention.summary(model, analysis), analysis.preparation, sep='\n')
        print(*files, sep='\n')
