"""Draw every corruption of an image at every severity on one sheet.

pit-downstream show-corruptions photo.jpg --corruptions fog frost
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pit_downstream.cli import flags
from pit_downstream.cli.argument_types import int_in_range
from pit_downstream.cli.errors import report_errors
from pit_downstream.utils.imports import pause_garbage_collection

MARGIN = 16  # pixels for a row's name


def make_parser() -> flags.ToolParser:
    parser = flags.ToolParser(__doc__)
    parser.groups['data'].add_argument('image', type=Path, metavar='IMAGE', help='image file')
    parser.groups['preprocessing'].add_argument('--img-size', type=int_in_range(32), default=224, metavar='N', help=
                                                'side of the square center crop (default: %(default)s)')
    parser.groups['conditions'].add_argument('--corruptions', nargs='+', metavar='NAME',
                                             help='names of corruptions (default: all)')
    parser.groups['output'].add_argument('--output', type=Path, metavar='FILE', help='PNG to write (default: '
                                         'IMAGE_corrupted.png in the current folder)')
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    with report_errors():
        args = make_parser().parse_args(argv)
        from pit_downstream.utils.path_checks import replace_atomically, require_writable_file
        require_writable_file(path := args.output or Path(f'{args.image.stem}_corrupted.png'), '--output')
        sheet = _draw_sheet(args)
        with replace_atomically(path) as new:
            sheet.save(new, 'PNG')


def _draw_sheet(args: argparse.Namespace):
    """Draw a row per corruption: the image itself, then severities 1 to 5."""
    with pause_garbage_collection():
        import torch
        from PIL import Image, ImageDraw, ImageOps
        from torchvision.transforms.functional import pil_to_tensor, to_pil_image

        from pit_downstream.corruptions import BatchRng, corrupt_severities
        from pit_downstream.datasets.base import load_image
        from pit_downstream.utils.registry import CORRUPTIONS
    side, names = args.img_size, args.corruptions or list(CORRUPTIONS)
    batch = pil_to_tensor(ImageOps.fit(load_image(args.image), (side, side)))[None]  # bicubic
    sheet = Image.new('RGB', (6 * side, len(names) * (side + MARGIN)), 'white')
    for top, name in zip(range(0, sheet.height, side + MARGIN), names, strict=True):
        severities = corrupt_severities(batch, name, range(1, 6), BatchRng(0, [args.image.name]))
        strip = torch.cat((batch, severities[:, 0])).permute(1, 2, 0, 3).flatten(2)  # (3, side, 6 sides)
        sheet.paste(to_pil_image(strip), (0, top + MARGIN))
        ImageDraw.Draw(sheet).text((2, top + 2), name, fill='black')
    return sheet
