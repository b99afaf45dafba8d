"""COCO annotation files and image sizes in the tools: one check before any work, one meaning for every reader."""

import io
import json
import shutil
import socket

import numpy as np
import pytest
import torch
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS, TRANSFORMS
from mmengine.structures import InstanceData
from PIL import Image
from pit_downstream.datasets.base import Preprocess, load_image
from pit_downstream.det.annotation_files import check_annotations
from pit_downstream.det.data_checks import ImageSizeError
from pit_downstream.det.samples import build_detection_samples, label_file
from pit_downstream.det.ground_truth import GroundTruth
from tests.det import scenes


@MODELS.register_module()
class PerfectDetector(BaseDetector):
    """Finds the objects of tests/det/scenes.py, which are no crowd, with a score of 1."""

    def __init__(self, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def predict(self, batch_inputs, batch_data_samples, rescale=True):
        for sample in batch_data_samples:
            objects = [entry for entry in scenes.OBJECTS if entry[0] == int(sample.img_id)]
            boxes = torch.tensor([[left, top, left + width, top + height] for *_, left, top, width, height in objects])
            sample.pred_instances = InstanceData(
                bboxes=boxes.float().reshape(-1, 4), scores=torch.ones(len(objects)),
                labels=torch.tensor([scenes.CLASSES.index(name) for _, name, *_ in objects], dtype=torch.long))
        return batch_data_samples

    def loss(self, batch_inputs, batch_data_samples):
        return {'loss': self.weight.sum()}

    extract_feat = _forward = loss


@pytest.fixture
def place(tmp_path, monkeypatch):
    """place(change): a copy of the scenes whose annotations `change` edits, and a config file with PerfectDetector."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    torch.save({'state_dict': {'weight': torch.zeros(1)}}, tmp_path / 'w.pth')

    def make(change=lambda content: None):
        folder = tmp_path / 'data'
        if not folder.exists():
            scenes.coco_folder(folder)
        content = json.loads((folder / 'annotations.json').read_text())
        content = change(content) or content
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        (folder / 'annotations.json').write_bytes(data)
        cfg = scenes.coco_config(folder)
        cfg.test_dataloader.update(num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False))
        cfg.merge_from_dict(dict(
            default_scope='mmdet', test_cfg=dict(type='TestLoop'), val_cfg=dict(type='ValLoop'),
            model=dict(type='PerfectDetector', data_preprocessor=dict(type='DetDataPreprocessor')),
            train_dataloader=dict(cfg.test_dataloader), val_dataloader=dict(cfg.test_dataloader),
            val_evaluator=dict(cfg.test_evaluator),
            train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=1),
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=.1))))
        cfg.dump(tmp_path / 'perfect.py')
        return folder
    return make


MEASURE = ('eval_coco_c.py', '--model', 'perfect.py', '--weights', 'w.pth', '--corruptions', 'none', '--device', 'cpu')


def from_zero(content):
    for number, entry in enumerate(content['annotations']):
        entry['id'] = number


def untidy(content):
    """Everything that has one meaning."""
    first, second, third, *_ = content['annotations']
    del first['id'], second['iscrowd'], third['area']
    second['area'] = None
    third['image_id'] = str(third['image_id'])
    for entry in content['images']:
        entry['id'] = str(entry['id'])
    return b'\xef\xbb\xbf' + json.dumps(content).encode()


def text_ids(content):
    """Identifiers that are no numbers; PerfectDetector reads '0010' as 10."""
    for kind, key in (('images', 'id'), ('annotations', 'image_id')):
        for entry in content[kind]:
            entry[key] = f'00{entry[key]}'


@pytest.mark.parametrize('change', [from_zero, untidy, text_ids])
def test_perfect_detections_have_ap_1_in_every_tool(run_tool, place, tmp_path, caplog, change):
    """With an object that has id 0, pycocotools alone computes less; mmdet does not read the others."""
    folder = place(change)
    before = (folder / 'annotations.json').read_bytes()
    done = run_tool('test.py', 'perfect.py', 'w.pth', cwd=tmp_path)
    assert done.code == 0 and 'coco/bbox_mAP 1.000' in done.out, done.err
    done = run_tool(*MEASURE, cwd=tmp_path)
    assert done.code == 0, done.err
    records = [json.loads(line) for line in (tmp_path / 'work_dirs/records/results.jsonl').read_text().splitlines()]
    assert {record['metric']: record['value'] for record in records}['AP'] == 1
    if change is from_zero:
        done = run_tool('train.py', 'perfect.py', '--work-dir', 'work', cwd=tmp_path)
        assert done.code == 0 and 'coco/bbox_mAP 1.000' in done.out, done.err
    assert (folder / 'annotations.json').read_bytes() == before
    counted = [record.getMessage() for record in caplog.records if 'renumbered' in record.getMessage()]
    assert len(counted) == {from_zero: 3, untidy: 2, text_ids: 0}[change]
    assert all('annotations.json' in text and '(6)' in text for text in counted)


def test_records_of_a_repaired_file_have_the_digest_of_the_original(place, tmp_path):
    folder = place(from_zero)
    cfg = scenes.coco_config(folder)
    plain = build_detection_samples(cfg).name
    check_annotations(cfg, ('test_dataloader',))
    assert str(tmp_path / 'cache') in cfg.test_evaluator.ann_file
    assert build_detection_samples(cfg).name == plain and label_file(folder / 'annotations.json') in plain


def test_every_reader_gets_the_same_content(place):
    folder = place(untidy)
    path = str(folder / 'annotations.json')
    cfg = scenes.coco_config(folder)
    truth = GroundTruth.of_file(path, scenes.CLASSES)
    check_annotations(cfg, ('test_dataloader',))
    copy = cfg.test_evaluator.ann_file
    assert copy == cfg.test_dataloader.dataset.ann_file != path
    assert json.loads(open(copy).read()) == truth.content
    correct = scenes.coco_config(scenes.coco_folder(folder.parent / 'correct'))
    check_annotations(correct, ('test_dataloader',))
    assert correct.test_dataloader.dataset.ann_file == 'annotations.json'  # used as it is


@pytest.mark.parametrize('tool', [
    ('train.py', 'perfect.py'), ('test.py', 'perfect.py', 'w.pth'), MEASURE,
    ('eval_adversarial.py', '--model', 'perfect.py', '--weights', 'w.pth'),
    ('show_detections.py', '--model', 'perfect.py', '--weights', 'w.pth'),
    ('train_patch.py', '--model', 'perfect.py', '--weights', 'w.pth'),
    (*MEASURE, '--data', 'data/annotations.json', '--images', 'data/images')], ids=lambda tool: tool[0])
def test_malformed_files_are_refused_before_any_work(run_tool, place, tmp_path, tool):
    def spoil(content):
        content['annotations'][3]['bbox'] = [1, 2, None, 4]
    place(spoil)
    done = run_tool(*tool, cwd=tmp_path)
    assert done.code == 2 and 'Traceback' not in done.err
    assert all(words in done.err for words in ('annotations.json', 'annotations[3]', '(id 4)', 'bbox', 'null'))
    assert {path.name for path in tmp_path.iterdir()} <= {'data', 'w.pth', 'perfect.py', 'cache'}
    (tmp_path / 'data/annotations.json').write_text('{"images": [')
    done = run_tool(*tool, cwd=tmp_path)
    assert done.code == 2 and 'annotations.json' in done.err and 'Traceback' not in done.err


def test_all_ranks_get_the_same_copy_or_refuse(place, tmp_path):
    folder = place(from_zero)
    (tmp_path / 'broken').mkdir()
    shutil.copytree(folder, tmp_path / 'broken/data')
    (tmp_path / 'broken/data/annotations.json').write_text('{"images": []}')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(_check, (tmp_path, port), nprocs=2, start_method='fork')
    first, second = (json.loads((tmp_path / f'rank{rank}').read_text()) for rank in range(2))
    assert first == second and 'cache' in first[0] and 'broken/data/annotations.json' in first[1]


def _check(rank, folder, port):
    torch.distributed.init_process_group('gloo', f'tcp://127.0.0.1:{port}', rank=rank, world_size=2)
    cfg, broken = scenes.coco_config(folder / 'data'), scenes.coco_config(folder / 'broken/data')
    check_annotations(cfg, ('test_dataloader',))
    with pytest.raises(ValueError) as error:
        check_annotations(broken, ('test_dataloader',))
    (folder / f'rank{rank}').write_text(json.dumps([cfg.test_evaluator.ann_file, str(error.value)]))


# ----- sizes and EXIF

ORIENTATIONS = {  # EXIF 2.3, 4.6.4 A: what shows the stored rows and columns upright
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2), 6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a)}


def quarters():
    """uint8 (40, 60, 3): four quarters in four colors, so that no two orientations look alike."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20, :30], pixels[:20, 30:], pixels[20:, :30] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    return pixels


def write(path, kind, orientation, pixels=None):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {'WEBP': {'lossless': True}, 'JPEG': {'quality': 95, 'subsampling': 0}}.get(kind, {})
    Image.fromarray(quarters() if pixels is None else pixels).save(path, kind, exif=exif, **options)


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'TIFF'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_orientation_is_applied_alike_for_all_formats_and_tasks(tmp_path, kind, orientation):
    path = tmp_path / f'x.{kind.lower()}'
    write(path, kind, orientation)
    upright = ORIENTATIONS[orientation](quarters())
    with Image.open(path) as image:
        seen = {'evaluation of classifiers': Preprocess(None, None)(image).permute(1, 2, 0).numpy(),
                'training of classifiers and attention': np.asarray(load_image(path))}
    for backend in ('cv2', 'pillow'):
        for on_broken in ('skip', 'keep'):
            load = TRANSFORMS.build(dict(type='LoadImageOrSkip', imdecode_backend=backend, on_broken=on_broken))
            seen[f'detection {backend} {on_broken}'] = load({'img_path': str(path)})['img'][..., ::-1]
    for name, pixels in seen.items():
        assert pixels.shape == upright.shape, name
        assert np.abs(pixels.astype(int) - upright).mean() < 2, name


@pytest.mark.filterwarnings('ignore:.*EXIF')
def test_malformed_exif_data_count_as_none(tmp_path):
    pixels = quarters()
    for number, exif in enumerate((b'nonsense', b'MM\0*\0\0\0\x08\0\x01\x01\x12', b'II*\0\xff\xff\xff\xff')):
        path = tmp_path / f'{number}.png'
        Image.fromarray(pixels).save(path, exif=b'Exif\0\0' + exif)
        assert np.array_equal(np.asarray(load_image(path)), pixels)


def test_a_truncated_image_is_upright_only_where_a_whole_one_is(tmp_path):
    content = io.BytesIO()
    write(content, 'JPEG', 6)
    path = tmp_path / 'x.jpg'
    for cut in (0, 2):
        path.write_bytes(content.getvalue()[:len(content.getvalue()) - cut])
        for color_type, shape in (('color', (60, 40, 3)), ('color_ignore_orientation', (40, 60, 3))):
            load = TRANSFORMS.build(dict(type='LoadImageOrSkip', color_type=color_type, on_broken='keep'))
            assert load({'img_path': str(path)})['img'].shape == shape


def test_exif_orientation_is_that_of_the_annotations(run_tool, place, tmp_path):
    """Images that are stored turned, with upright annotations, are measured as if they were stored upright."""
    folder = place()
    for index, (name, kind, orientation, back) in enumerate((
            ('a', 'JPEG', 6, 8), ('b', 'PNG', 8, 6), ('c', 'WEBP', 3, 3), ('d', 'TIFF', 5, 5), ('e', 'PNG', 7, 7))):
        stored = np.ascontiguousarray(ORIENTATIONS[back](scenes.pixels(index)))
        write(folder / 'images' / f'{name}.png', kind, orientation, stored)
    samples = build_detection_samples(scenes.coco_config(folder))
    for index in range(len(samples)):
        pixels = scenes.pixels(int(samples[index].id) - 10)
        assert samples[index].image.shape[1:] == pixels.shape[:2]
        assert np.abs(samples[index].image.permute(1, 2, 0).numpy().astype(int) - pixels).mean() < 3
    done = run_tool('test.py', 'perfect.py', 'w.pth', cwd=tmp_path)
    assert done.code == 0 and 'coco/bbox_mAP 1.000' in done.out, done.err


SIZED = [
    ('train.py', 'perfect.py', '--work-dir', 'work', '--cfg-options', 'train_dataloader.num_workers=1'),
    ('train.py', 'perfect.py', '--work-dir', 'work'), ('test.py', 'perfect.py', 'w.pth', '--work-dir', 'work'),
    (*MEASURE, '--allow-missing', '5'), (*MEASURE, '--workers', '1'),
    ('eval_adversarial.py', '--model', 'perfect.py', '--weights', 'w.pth', '--device', 'cpu'),
    ('show_detections.py', '--model', 'perfect.py', '--weights', 'w.pth', '--corruptions', '--attacks', '--image', '1'),
    ('train_patch.py', '--model', 'perfect.py', '--weights', 'w.pth', '--steps', '2', '--device', 'cpu')]


@pytest.mark.parametrize('tool', SIZED, ids=lambda tool: tool[0])
def test_another_size_than_that_of_the_image_is_refused(run_tool, place, tmp_path, tool):
    """Whatever the tool, the number of workers, and however many images may be missing."""
    def grow(content):
        for entry in content['images']:
            entry['width'] += 1
    place(grow)
    rank = '3' if tool == SIZED[0] else '0'  # a fault in the data of one rank is not silent
    done = run_tool(*tool, cwd=tmp_path, env={'RANK': rank})
    assert done.code == 2 and 'Traceback' not in done.err, done.err
    sizes = {f'{name}.png': (f'{width} x {height}', f'{width + 1} x {height}')
             for name, (width, height) in zip('abcde', scenes.SIZES, strict=True)}
    line = done.err.strip().splitlines()[-1]
    assert any(name in line and loaded in line and annotated in line for name, (loaded, annotated) in sizes.items())


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'TIFF'])
def test_boxes_of_the_image_before_its_exif_orientation_are_refused(place, kind):
    folder = place()
    for name, (width, height) in zip('abce', [scenes.SIZES[index] for index in (0, 1, 2, 4)], strict=True):
        write(folder / f'images/{name}.png', kind, 6, np.zeros((height, width, 3), np.uint8))
    cfg = scenes.coco_config(folder)
    samples = build_detection_samples(cfg)
    for index in range(1, len(samples)):  # the first is square
        with pytest.raises(ImageSizeError, match=r'images/[a-e].png.* 48 x 64 .* 64 x 48.*EXIF|'
                                                 r'images/[a-e].png.* 64 x 48 .* 48 x 64.*EXIF'):
            samples[index]
    cfg.test_dataloader.dataset.pipeline[0].color_type = 'color_ignore_orientation'
    if kind != 'TIFF':  # whose orientation all decoders apply
        assert [build_detection_samples(cfg)[index].image.shape[1] for index in range(5)] == [40, 48, 48, 48, 64]
