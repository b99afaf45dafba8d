"""Measure attention collapse in a classifier and draw it: similarity of its blocks, profiles by depth, maps on images.

python tools/analyze_attention.py --model deepvit_s --weights W.pth --images DIR --out DIR
python tools/analyze_attention.py --model vit_32 --compare deepvit_32 --bundled --limit 32 --out DIR \\
    --weights random --compare-weights random
"""

import argparse
from pathlib import Path

from pit_downstream import cli


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', required=True, help='a PiT, DeepViT or ViT, as --model of the other tools: '
                        "pit_s, 'pit_ti(img_size=64)'")
    parser.add_argument('--weights', help='a checkpoint file, of a detector too; pretrained (the default); or random, '
                        'drawn from --seed')
    parser.add_argument('--compare', metavar='MODEL', help='a second model for the same figures')
    parser.add_argument('--compare-weights', metavar='WEIGHTS', help='its weights, as --weights')
    cli.add_preprocess_flags(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--images', type=Path, metavar='DIR', help='images, in folders or not')
    source.add_argument('--bundled', action='store_true', help='use the dataset that comes with the project')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='where results and figures go')
    parser.add_argument('--limit', type=int, help='take so many images, spread over all of them')
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--device', default='auto', help='cpu, cuda, cuda:1 ... (default: a GPU where there is one)')
    parser.add_argument('--threshold', type=float, default=0.9, help='cosine above which a block is similar')
    parser.add_argument('--seed', type=cli.int_in_range(0), default=0, help='of random weights')
    return parser.parse_args()


def main():
    args = parse_args()
    from pit_downstream.utils.extras import require_extra
    from pit_downstream.utils.path_checks import require_folder_to_write
    require_folder_to_write(args.out, '--out')
    cli.require_one_process('analyze_attention.py')
    from pit_downstream.evaluation import attention_analysis as attention
    from pit_downstream.evaluation import distributed
    require_extra('report')  # fail before the work
    device = distributed.device_of(args.device)
    images = attention.bundled_images() if args.bundled else args.images
    paths = attention.list_images(images, limit=args.limit, apart_from=args.out)
    analyses = attention.analyze_models(
        attention.chosen_models(args.model, args.weights, args.compare, args.compare_weights), paths,
        seed=args.seed, batch_size=args.batch_size, device=device, threshold=args.threshold,
        **cli.preprocess_options(args))
    dataset = attention.dataset_text(images, paths, limit=args.limit)
    files = attention.write_analyses(analyses, args.out, dataset=dataset, seed=args.seed)
    for model, analysis in analyses.items():
        print(attention.summary(model, analysis), analysis.preparation, sep='\n')
    print(*files, sep='\n')


if __name__ == '__main__':
    with cli.report_errors():
        main()
