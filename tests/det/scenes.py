"""Small datasets by hand, in COCO's and VOC's format, and configs that read them: for the tests of det/."""

import json
from pathlib import Path

import numpy as np
from mmengine.config import Config
from PIL import Image

CLASSES = ('cup', 'bowl')
SIZES = [(64, 48), (48, 64), (64, 48), (40, 40), (64, 48)]  # width, height of images 10, 11, 12, 13 and 14
# (image, class, left, top, width, height); image 13 has no object, one of 12 is a crowd
OBJECTS = [(10, 'cup', 4, 4, 40, 30), (10, 'bowl', 30, 20, 20, 20), (11, 'bowl', 5, 10, 30, 40),
           (12, 'cup', 0, 0, 32, 32), (14, 'cup', 10, 8, 50, 36)]
CROWD = (12, 'bowl', 20, 10, 40, 30)


def pixels(index: int) -> np.ndarray:
    """Smooth, colored, different for each image: uint8 (H, W, 3), RGB."""
    coarse = np.random.default_rng(index).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(SIZES[index], Image.Resampling.BICUBIC))


def coco_folder(folder: Path) -> Path:
    """images/a.png ..., annotations.json; categories 7 and 3, in this order, ids of images from 10 on."""
    (folder / 'images').mkdir(parents=True)
    categories = [{'id': 7, 'name': 'cup'}, {'id': 3, 'name': 'bowl'}]
    number = {one['name']: one['id'] for one in categories}
    images, annotations = [], []
    for index, (width, height) in enumerate(SIZES):
        Image.fromarray(pixels(index)).save(folder / 'images' / f'{chr(97 + index)}.png')
        images.append({'id': 10 + index, 'file_name': f'{chr(97 + index)}.png', 'width': width, 'height': height})
    for image, name, left, top, width, height in [*OBJECTS, CROWD]:
        annotations.append({
            'id': len(annotations) + 1, 'image_id': image, 'category_id': number[name], 'area': width * height,
            'bbox': [left, top, width, height], 'iscrowd': int((image, name, left, top, width, height) == CROWD),
            'segmentation': [[left, top, left + width, top, left + width, top + height, left, top + height]]})
    content = {'images': images, 'annotations': annotations, 'categories': categories}
    (folder / 'annotations.json').write_text(json.dumps(content))
    return folder


def voc_folder(folder: Path) -> Path:
    """The same objects as VOC2007/{JPEGImages,Annotations,ImageSets}; boxes there count from 1 and the crowd is
    'difficult'."""
    root = folder / 'VOC2007'
    for name in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
        (root / name).mkdir(parents=True)
    for index, (width, height) in enumerate(SIZES):
        Image.fromarray(pixels(index)).save(root / 'JPEGImages' / f'{10 + index}.jpg', quality=95)
        objects = ''.join(
            f'<object><name>{name}</name><difficult>{int(one == CROWD)}</difficult><bndbox><xmin>{left + 1}</xmin>'
            f'<ymin>{top + 1}</ymin><xmax>{left + wide + 1}</xmax><ymax>{top + high + 1}</ymax></bndbox></object>'
            for one in [*OBJECTS, CROWD] for image, name, left, top, wide, high in [one] if image == 10 + index)
        (root / 'Annotations' / f'{10 + index}.xml').write_text(
            f'<annotation><size><width>{width}</width><height>{height}</height></size>{objects}</annotation>')
    (root / 'ImageSets/Main/test.txt').write_text(''.join(f'{10 + index}\n' for index in range(len(SIZES))))
    return folder


PIPELINE = (dict(type='LoadImageFromFile'), dict(type='Resize', scale=(96, 80), keep_ratio=True),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')))


def coco_config(folder: Path, *, pipeline=PIPELINE, metric='bbox') -> Config:
    return Config(dict(
        test_dataloader=dict(batch_size=2, dataset=dict(
            type='CocoDataset', data_root=str(folder), ann_file='annotations.json', data_prefix=dict(img='images/'),
            metainfo=dict(classes=CLASSES), test_mode=True, pipeline=list(pipeline))),
        test_evaluator=dict(type='CocoMetric', ann_file=f'{folder}/annotations.json', metric=metric)))


def voc_config(folder: Path, **evaluator) -> Config:
    return Config(dict(
        test_dataloader=dict(batch_size=1, dataset=dict(
            type='VOCDataset', data_root=str(folder), ann_file='VOC2007/ImageSets/Main/test.txt',
            data_prefix=dict(sub_data_root='VOC2007/'), metainfo=dict(classes=CLASSES), test_mode=True,
            pipeline=list(PIPELINE))),
        test_evaluator=dict(dict(type='VOCMetric', metric='mAP', eval_mode='11points'), **evaluator)))
