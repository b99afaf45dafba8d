"""Small folders in the published layout of every shifted dataset."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from pit_downstream.datasets.backgrounds import IN9
from pit_downstream.datasets.labelsets import get_subset_indices, get_wnid_indices

WNIDS = tuple(get_wnid_indices())
ONLY_A, ONLY_R, BOTH = WNIDS[15], WNIDS[1], WNIDS[6]  # by the index lists of timm's imagenet_{a,r}_indices.txt
# name of an object's folder, its label, ImageNet's words for it, their class indices
OBJECTS = (('banana', 'Banana', 'banana', (954,)), ('pen', 'Pen', 'ballpoint, Biro; quill, quill pen', (418, 749)),
           ('coaster', 'Coaster', None, ()))


def write_image(path: Path, *, seed: int = 0, size: tuple[int, int] = (50, 40), frame: int = 0) -> None:
    """Random pixels, with a black frame around them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*reversed(size), 3), dtype=np.uint8)
    if frame:
        pixels = np.pad(pixels, ((frame, frame), (frame, frame), (0, 0)))
    Image.fromarray(pixels).save(path, quality=95)


def class_folders(root: Path, names, count: int = 2, **options) -> Path:
    for place, name in enumerate(names):
        for number in range(count):
            write_image(root / name / f'{number}.jpg', seed=100 * place + number, **options)
    return root


def validation(root: Path, indices=(1, 6, 15, 418, 749, 954), count: int = 2) -> Path:
    """ImageNet's, with the numbers 1, 2, 3 ... in their names."""
    for number, index in enumerate([index for index in indices for _ in range(count)], 1):
        write_image(root / WNIDS[index] / f'ILSVRC2012_val_{number:08d}.JPEG', seed=number)
    return root


def objectnet(root: Path) -> Path:
    (root / 'mappings').mkdir(parents=True)
    words = {index: text for *_, known, indices in OBJECTS if known
             for index, text in zip(indices, known.split('; '), strict=True)}
    order = sorted(range(1000), key=lambda index: index % 7)  # any other than that of the indices
    contents = {
        'folder_to_objectnet_label.json': json.dumps({name: label for name, label, *_ in OBJECTS}),
        'objectnet_to_imagenet_1k.json': json.dumps({label: known for _, label, known, _ in OBJECTS if known}),
        'pytorch_to_imagenet_2012_id.json': json.dumps({str(index): line for line, index in enumerate(order)}),
        'imagenet_to_label_2012_v2': '\n'.join(words.get(index, f'class {index}') for index in order) + '\n'}
    for name, text in contents.items():
        (root / 'mappings' / name).write_text(text)
    for place, (name, *_) in enumerate(OBJECTS):
        for number in range(2):
            write_image(root / 'images' / name / f'{number}.png', seed=10 * place + number, size=(66, 50), frame=2)
    return root


def in9(root: Path, variation: str, count: int = 2) -> Path:
    class_folders(root / variation / 'val', [f'{place:02d}_{name}' for place, name in enumerate(IN9)], count,
                  size=(224, 224))
    return root


def challenge(root: Path, *, side: int = 224) -> Path:
    """Two foregrounds and two backgrounds a class, with masks of random rectangles."""
    random = np.random.default_rng(0)
    for variation in ('original', 'only_bg_t'):
        for place, name in enumerate(IN9):
            for number in range(2):
                write_image(root / variation / 'val' / f'{place:02d}_{name}' / f'{number}.JPEG', size=(side, side),
                        seed=1000 * (variation == 'original') + 10 * place + number)
    for path in sorted((root / 'original' / 'val').rglob('*.JPEG')):
        mask = np.zeros((side, side), dtype=bool)
        top, left = random.integers(0, side // 2, 2)
        mask[top:top + side // 2, left:left + side // 2] = True
        saved = root / 'fg_mask' / 'val' / path.parent.name / f'{path.stem}.npy'
        saved.parent.mkdir(parents=True, exist_ok=True)
        np.save(saved, mask)
    return root


def make(name: str, root: Path) -> Path:
    """The folder that the dataset `name` opens; nine images or more."""
    if name == 'in9_challenge':
        return challenge(root)
    if name.startswith('in9_'):
        return in9(root, name.removeprefix('in9_'))
    if name.startswith('imagenet_v2'):
        return class_folders(root, ['0', '2', '10', '100', '999'])
    if name == 'imagenet_stylized':
        return class_folders(root, WNIDS[:5], size=(224, 224))
    makers = {'imagenet_a': lambda: class_folders(root, [BOTH, ONLY_A, *list(get_subset_indices('imagenet_a'))[4:7]]),
              'imagenet_r': lambda: class_folders(root, [ONLY_R, BOTH, *list(get_subset_indices('imagenet_r'))[4:7]]),
              'imagenet_sketch': lambda: class_folders(root, WNIDS[:5]), 'objectnet': lambda: objectnet(root)}
    return makers[name]()
