"""Paint a contact sheet: every corruption at every severity.

python tools/show_corruptions.py photo.jpg --out photo_corrupted.png
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageOps

from pit_downstream.cli import one_sentence, whole
from pit_downstream.core.outputs import require_file_to_write
from pit_downstream.core.registry import CORRUPTIONS
from pit_downstream.corruptions import BatchRng, corrupt_severities
from pit_downstream.datasets.base import read_picture

MARGIN = 16  # pixels for a row's name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('image', type=Path)
    parser.add_argument('--out', type=Path, help='PNG to write (default: <image>_corrupted.png in this folder)')
    parser.add_argument('--size', type=whole(32), default=224, help='the image is cut to a square of this side')
    parser.add_argument('--corruptions', nargs='+', default=list(CORRUPTIONS), metavar='NAME')
    args = parser.parse_args()
    with one_sentence():
        out = args.out or Path(f'{args.image.stem}_corrupted.png')
        require_file_to_write(out, '--out')
        sheet(args).save(out, 'PNG')


def sheet(args: argparse.Namespace) -> Image.Image:
    """A row per corruption: the image itself, then severities 1 to 5."""
    cut = np.array(ImageOps.fit(read_picture(args.image), (args.size, args.size)))  # bicubic
    batch = torch.from_numpy(cut).permute(2, 0, 1)[None].contiguous()
    pitch = args.size + MARGIN
    paper = Image.new('RGB', (6 * args.size, len(args.corruptions) * pitch), 'white')
    for row, name in enumerate(args.corruptions):
        results = corrupt_severities(batch, name, range(1, 6), BatchRng(0, [args.image.name]))
        strip = torch.cat((batch, results[:, 0])).permute(2, 0, 3, 1).flatten(1, 2).numpy()
        paper.paste(Image.fromarray(strip), (0, row * pitch + MARGIN))
        ImageDraw.Draw(paper).text((2, row * pitch + 2), name, fill='black')
    return paper


if __name__ == '__main__':
    main()
