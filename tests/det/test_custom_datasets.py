"""Custom datasets as in docs/custom.md: its configs train on tiny datasets."""

import json

import pytest
from PIL import Image

from tests.det import scenes
from tests.readme import ROOT, steps

BLOCKS = [step.text for step in steps((ROOT / 'docs/custom.md').read_text()) if step.language == 'python']
COCO, = [text for text in BLOCKS if "classes=('cat', 'dog')" in text]
MASK, = [text for text in BLOCKS if 'mask_head=dict' in text]
VOC, = [text for text in BLOCKS if 'VOCDataset' in text]
ONE_STEP = (  # on two images, without validation: VOCMetric forks processes
    '--cfg-options', 'train_cfg.max_epochs=1', 'train_cfg.val_begin=2', 'model.backbone.init_cfg=None',
    'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False', 'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False', 'train_dataloader.dataset.pipeline.2.scale=(64,64)',
    'train_dataloader.dataset.filter_cfg.min_size=1', 'train_dataloader.dataset.indices=2')


@pytest.fixture
def place(tmp_path):
    """A folder with copies of our configs, data/mine of cats and dogs, and VOC's 2007 with all images in each split."""
    (tmp_path / 'configs').mkdir()
    for path in (ROOT / 'configs').iterdir():
        (tmp_path / 'configs' / path.name).symlink_to(path)
    mine = scenes.coco_folder(tmp_path / 'data/mine')
    content = json.loads((mine / 'annotations.json').read_text())
    for category, name in zip(content['categories'], ('dog', 'cat')):  # not in the order of the config
        category['name'] = name
    for split in ('train', 'val'):
        (mine / f'{split}.json').write_text(json.dumps(content))
        (mine / split).symlink_to(mine / 'images')
    lists = scenes.voc_folder(tmp_path / 'data/VOCdevkit') / 'VOC2007/ImageSets/Main'
    (lists / 'trainval.txt').write_text((lists / 'test.txt').read_text())
    for path in (tmp_path / 'data/VOCdevkit/VOC2007/Annotations').iterdir():
        path.write_text(path.read_text().replace('>cup<', '>cat<').replace('>bowl<', '>dog<'))
    assert Image.open(mine / 'train/a.png').size == scenes.SIZES[0]
    return tmp_path


def write(place, text):
    (place / 'configs/mine.py').write_text(text)
    return 'configs/mine.py'


@pytest.mark.parametrize('text, options', [
    (VOC, ()),
    (COCO.replace('retinanet_pit_ti', 'mask_rcnn_pit_s').replace('model = dict(bbox_head=dict(num_classes=2))', MASK),
     ('model.backbone.arch=ti', 'model.neck.in_channels=64,128,256'))], ids=['VOC', 'masks'])
def test_configs_of_docs_train(run_tool, place, text, options):
    done = run_tool('train.py', write(place, text), *ONE_STEP, *options, cwd=place)
    assert done.code == 0, done.err[-2000:]
    assert done.out.splitlines()[-1].startswith('1 iterations, loss ')


def test_other_classes_with_a_config_of_coco_are_refused_with_what_to_pass(run_tool, place):
    folder = place / 'data/mine'
    for split in ('train', 'val'):
        (folder / 'annotations').mkdir(exist_ok=True)
        (folder / f'annotations/instances_{split}2017.json').symlink_to(folder / f'{split}.json')
        (folder / f'{split}2017').symlink_to(folder / 'images')
    done = run_tool('train.py', 'configs/retinanet_pit_ti.py', '--data', 'data/mine', cwd=place)
    assert done.code == 2 and not done.out and 'person' in done.err and 'dog, cat' in done.err
    assert 'train_dataloader.dataset.metainfo.classes="(\'dog\',\'cat\')"' in done.err
    assert done.err.strip().endswith('model.bbox_head.num_classes=2')


def test_yaml_configs_execute_code_as_docs_state(run_tool, tmp_path):
    """mmengine's design; without it docs/detection.md would be wrong."""
    (tmp_path / 'a.yaml').write_text(f"model: !!python/object/apply:os.system ['touch {tmp_path}/executed']\n")
    assert run_tool('train.py', tmp_path / 'a.yaml').code == 2
    assert (tmp_path / 'executed').exists()
