"""Paint every corruption at every severity on a sheet: python tools/show_corruptions.py photo.jpg"""

import argparse
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageOps
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from pit_downstream import cli
from pit_downstream.core.outputs import require_file_to_write
from pit_downstream.core.registry import CORRUPTIONS
from pit_downstream.corruptions import BatchRng, corrupt_severities
from pit_downstream.datasets.base import read_picture

MARGIN = 16  # pixels for a row's name


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('image', type=Path)
    parser.add_argument('--out', type=Path, help='PNG to write (default: <image>_corrupted.png in this folder)')
    parser.add_argument('--size', type=cli.whole(32), default=224, help='the image is cut to a square of this side')
    parser.add_argument('--corruptions', nargs='+', default=list(CORRUPTIONS), metavar='NAME')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    require_file_to_write(out := args.out or Path(f'{args.image.stem}_corrupted.png'), '--out')
    sheet(args).save(out, 'PNG')


def sheet(args: argparse.Namespace) -> Image.Image:
    """A row per corruption: the image itself, then severities 1 to 5."""
    batch = pil_to_tensor(ImageOps.fit(read_picture(args.image), (args.size, args.size)))[None]  # bicubic
    paper = Image.new('RGB', (6 * args.size, len(args.corruptions) * (args.size + MARGIN)), 'white')
    for top, name in zip(range(0, paper.height, args.size + MARGIN), args.corruptions, strict=True):
        severities = corrupt_severities(batch, name, range(1, 6), BatchRng(0, [args.image.name]))
        strip = torch.cat((batch, severities[:, 0])).permute(1, 2, 0, 3).flatten(2)  # (3, side, 6 sides)
        paper.paste(to_pil_image(strip), (0, top + MARGIN))
        ImageDraw.Draw(paper).text((2, top + 2), name, fill='black')
    return paper


if __name__ == '__main__':
    with cli.one_sentence():
        main()
