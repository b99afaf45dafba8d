"""Every corruption at every severity against imagecorruptions 1.1.2 on photographs, with replayed random draws.

python -m speed.corruption_parity --images DIR [--count 4] [--sizes 224x224 480x640]

`count` images of DIR, evenly spaced in the order of their names, are resampled to each size. For each corruption,
severity and size it reports the fraction of values within one gray level, the number beyond, and the largest
difference. Writes docs/results/corruption_parity.csv.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pit_downstream.utils.registry import CORRUPTIONS
from pit_downstream.corruptions import corrupt
from pit_downstream.corruptions.base import REFERENCE
from speed.table import HERE
from tests.reference.imagecorruptions_patched import Replay, reference

REFERENCED = [name for name in CORRUPTIONS if CORRUPTIONS.get_entry(name).metadata['source'] == REFERENCE]
OUT = HERE.parent / 'docs' / 'results' / 'corruption_parity.csv'
SUFFIXES = {'.jpeg', '.jpg', '.png'}


def image_files(folder: Path, count: int) -> list[Path]:
    """Return `count` images, evenly spaced in the order of their names."""
    found = sorted(path for path in folder.rglob('*') if path.suffix.lower() in SUFFIXES)
    if len(found) < count:
        raise SystemExit(f'--images needs {count} images or more, found {len(found)} in {folder}. Lower --count.')
    return found[::len(found) // count][:count]


def differences(image: np.ndarray, name: str, severity: int, seed: int) -> np.ndarray:
    batch = torch.from_numpy(image).permute(2, 0, 1)[None]
    ours = corrupt(batch, name, severity, Replay(name, seed))[0].permute(1, 2, 0).numpy()
    return np.abs(reference(image, name, severity, seed).astype(int) - ours)


def compare(name: str, severity: int, images: list[np.ndarray]) -> dict:
    found = np.stack([differences(image, name, severity, seed) for seed, image in enumerate(images)])
    return {'within_one': round(float((found <= 1).mean()), 7), 'beyond': int((found > 1).sum()),
            'max': int(found.max()), 'equal': round(float((found == 0).mean()), 5)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=Path, required=True, metavar='DIR')
    parser.add_argument('--count', type=int, default=4)
    parser.add_argument('--sizes', nargs='+', default=['224x224', '480x640'])
    args = parser.parse_args()
    torch.set_num_threads(1)
    paths = image_files(args.images, args.count)
    rows = []
    for size in args.sizes:
        height, width = map(int, size.split('x'))
        images = [np.array(Image.open(path).convert('RGB').resize((width, height), Image.BICUBIC)) for path in paths]
        for name in REFERENCED:
            found = [compare(name, severity, images) for severity in range(1, 6)]
            rows += [{'corruption': name, 'size': size, 'severity': severity, **row}
                     for severity, row in enumerate(found, 1)]
            print(f'{size} {name:18}', *(f'{row["within_one"]:.6f} (max {row["max"]})' for row in found), flush=True)
    with OUT.open('w', newline='') as file:
        writer = csv.DictWriter(file, rows[0], lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)
    print(OUT)


if __name__ == '__main__':
    main()
