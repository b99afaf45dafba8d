"""Draw every corruption at every severity on a sheet: python tools/show_corruptions.py photo.jpg"""

import argparse
from pathlib import Path

from pit_downstream import cli

MARGIN = 16  # pixels for a row's name


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('image', type=Path)
    parser.add_argument('--out', type=Path, help='PNG to write (default: <image>_corrupted.png in this folder)')
    parser.add_argument('--size', type=cli.int_in_range(32), default=224,
                        help='the image is cut to a square of this side')
    parser.add_argument('--corruptions', nargs='+', metavar='NAME', help='(default: all)')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from pit_downstream.utils.path_checks import atomic_path, require_file_to_write
    require_file_to_write(out := args.out or Path(f'{args.image.stem}_corrupted.png'), '--out')
    paper = sheet(args)
    with atomic_path(out) as new:
        paper.save(new, 'PNG')


def sheet(args: argparse.Namespace):
    """Draw a row per corruption: the image itself, then severities 1 to 5."""
    import torch
    from PIL import Image, ImageDraw, ImageOps
    from pit_downstream.utils.registry import CORRUPTIONS
    from pit_downstream.corruptions import BatchRng, corrupt_severities
    from pit_downstream.datasets.base import load_image
    from torchvision.transforms.functional import pil_to_tensor, to_pil_image
    names = args.corruptions or list(CORRUPTIONS)
    batch = pil_to_tensor(ImageOps.fit(load_image(args.image), (args.size, args.size)))[None]  # bicubic
    paper = Image.new('RGB', (6 * args.size, len(names) * (args.size + MARGIN)), 'white')
    for top, name in zip(range(0, paper.height, args.size + MARGIN), names, strict=True):
        severities = corrupt_severities(batch, name, range(1, 6), BatchRng(0, [args.image.name]))
        strip = torch.cat((batch, severities[:, 0])).permute(1, 2, 0, 3).flatten(2)  # (3, side, 6 sides)
        paper.paste(to_pil_image(strip), (0, top + MARGIN))
        ImageDraw.Draw(paper).text((2, top + 2), name, fill='black')
    return paper


if __name__ == '__main__':
    with cli.report_errors():
        main()
