"""The bundled dataset: what is drawn, and how it lies on disk."""
import json
import os
import subprocess
import sys
import zlib
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from numpy._core._multiarray_umath import __cpu_dispatch__
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

from pit_downstream.datasets import shapes
from pit_downstream.datasets.drawing import OUTLINES, REACH, TEXTURES, make_grid
from pit_downstream.datasets.scenes import MIN_PIXELS
from pit_downstream.datasets.shapes import CLASSES, draw_object, draw_scene, write_shapes
from pit_downstream.utils.errors import InputError

pytestmark = pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning')  # pycocotools

SMALL = dict(train=5, val=3, classification_train=12, classification_val=6)


@pytest.fixture(scope='module')
def scenes():
    return [draw_scene(0, 'train', index) for index in range(150)]


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp('data') / 'shapes', **SMALL)


def tight_box(mask):
    rows, columns = np.nonzero(mask)
    return [columns.min(), rows.min(), columns.max() - columns.min() + 1, rows.max() - rows.min() + 1]


def snapshot(root):
    return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in sorted(root.rglob('*'))}


# Drawing primitives

@pytest.mark.parametrize('name', OUTLINES)
def test_outline_is_a_distance_within_reach(name):
    """One step moves a signed distance by at most one pixel, and nothing lies beyond REACH."""
    x, y = make_grid(141, 141)
    depth = OUTLINES[name](x, y, 50.0)
    assert np.abs(np.diff(depth, axis=0)).max() <= 1 + 1e-4
    assert np.abs(np.diff(depth, axis=1)).max() <= 1 + 1e-4
    assert not (depth < 0)[np.sqrt(x * x + y * y) > 50 * REACH].any()


@pytest.mark.parametrize('name, area', [
    ('circle', np.pi * 47.5 ** 2), ('square', 83 ** 2), ('ring', np.pi * (50 ** 2 - 26 ** 2)),
    ('cross', 2 * 100 * 33 - 33 ** 2)])
def test_outline_has_the_area_of_its_geometry(name, area):
    x, y = make_grid(141, 141)
    assert np.count_nonzero(OUTLINES[name](x, y, 50.0) < 0) == pytest.approx(area, rel=0.02)


@pytest.mark.parametrize('name', TEXTURES)
def test_texture_fills_its_window_within_the_unit_interval(name):
    field = TEXTURES[name](*make_grid(31, 46), 6.0, np.random.default_rng(0))
    assert field.shape == (31, 46) and field.dtype == np.float32
    assert 0 <= field.min() and field.max() <= 1
    assert name == 'plain' or np.ptp(field) > 0.5


# Scenes

def test_scene_has_the_promised_shapes_and_types(scenes):
    for scene in scenes:
        count = len(scene.labels)
        assert (scene.image.shape, scene.image.dtype) == ((128, 128, 3), np.uint8)
        assert (scene.masks.shape, scene.masks.dtype) == ((count, 128, 128), bool)
        assert scene.labels.dtype == np.int64 and 3 <= count <= 7


def test_masks_are_disjoint_and_not_empty(scenes):
    for scene in scenes:
        assert scene.masks.sum(0).max() == 1
        assert scene.masks.sum((1, 2)).min() >= MIN_PIXELS


def test_every_count_class_and_size_occurs(scenes):
    labels = np.concatenate([scene.labels for scene in scenes])
    sides = np.array([max(tight_box(mask)[2:]) for scene in scenes for mask in scene.masks])
    assert {len(scene.labels) for scene in scenes} == set(range(3, 8))
    assert np.bincount(labels, minlength=len(CLASSES)).min() > 0.75 * len(labels) / len(CLASSES)
    counts, _ = np.histogram(sides, bins=[0, 24, 30, 36, 44, 128])
    assert counts.min() > 0.05 * len(sides)


def test_objects_overlap(scenes):
    """Boxes of different objects meet in most scenes, or crowding and occlusion would mean nothing."""
    def crowded(scene):
        boxes = np.array([tight_box(mask) for mask in scene.masks], float)
        boxes[:, 2:] += boxes[:, :2]
        overlaps = rle.iou(*(2 * [np.c_[boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]]), [0] * len(boxes))
        return overlaps[np.triu_indices(len(boxes), 1)].max() > 0.05
    assert np.mean([crowded(scene) for scene in scenes]) > 0.5


def test_mean_color_does_not_give_the_class_away(scenes):
    colors = np.array([scene.image[mask].mean(0) for scene in scenes for mask in scene.masks])
    labels = np.concatenate([scene.labels for scene in scenes])
    fit = np.arange(len(labels)) % 2 == 0
    centroids = np.array([colors[fit & (labels == label)].mean(0) for label in range(len(CLASSES))])
    guess = ((colors[~fit, None] - centroids) ** 2).sum(-1).argmin(1)
    assert (guess == labels[~fit]).mean() < 0.35  # chance is 0.25


def test_most_objects_stand_out_from_their_surroundings(scenes):
    """Median color distance between an object and the ground of its image, in the unit cube."""
    gaps = [np.linalg.norm(scene.image[mask].mean(0) - scene.image[~scene.masks.any(0)].mean(0)) / 255
            for scene in scenes for mask in scene.masks]
    assert np.mean(np.array(gaps) > 0.25) > 0.85


@pytest.mark.parametrize('size', [96, 131])
def test_scene_size_is_free(size):
    scene = draw_scene(3, 'val', 1, size=size)
    assert scene.image.shape == (size, size, 3) and scene.masks.shape[1:] == (size, size)


# Determinism

def pictures(index):
    scene = draw_scene(0, 'train', index)
    image, _ = draw_object(0, 'val', index)
    return scene.image.tobytes(), scene.masks.tobytes(), scene.labels.tobytes(), image.tobytes()


def test_images_do_not_depend_on_order_or_process():
    here = [pictures(index) for index in range(6)]
    assert [pictures(index) for index in reversed(range(6))] == here[::-1]
    with ProcessPoolExecutor(2, mp_context=get_context('spawn')) as pool:
        assert list(pool.map(pictures, range(6))) == here


def checksum():
    """CRC-32 over the first twelve scenes and object images."""
    return zlib.crc32(b''.join(b''.join(pictures(index)) for index in range(12)))


def test_images_do_not_depend_on_the_vector_unit():
    """numpy without its SIMD kernels, as on another machine, draws the same bits."""
    code = 'from tests.datasets.test_shapes import checksum; print(checksum())'
    plain = {**os.environ, 'NPY_DISABLE_CPU_FEATURES': ' '.join(__cpu_dispatch__)}
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], env=plain, cwd=Path(__file__).parents[2],
                          capture_output=True, text=True, check=True)
    assert int(done.stdout) == checksum()


def test_images_change_only_with_the_version():
    """A guard, not an oracle: who changes an image raises VERSION, so that sets on disk are drawn again."""
    assert {shapes.VERSION: checksum()} == {3: 1190355840}


def test_seed_split_index_and_kind_each_change_the_image():
    images = [draw_scene(*which).image.tobytes() for which in [
        (0, 'train', 0), (1, 'train', 0), (0, 'val', 0), (0, 'train', 1)]]
    assert len(set(images)) == 4
    assert draw_scene(0, 'train', 0, size=96).image.tobytes() != draw_object(0, 'train', 0, size=96)[0].tobytes()


def test_drawing_leaves_the_global_generator_alone():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    draw_scene(0, 'train', 0)
    assert (np.random.get_state()[1] == before).all()


@pytest.mark.parametrize('call, words', [
    (lambda: draw_scene(0, 'test', 0), "split is one of train, val, got 'test'"),
    (lambda: draw_scene(-1, 'train', 0), 'seed and index are 0 or more, got -1 and 0'),
    (lambda: draw_scene(0, 'train', 0, size=64), 'at least 96 pixels wide, got 64'),
    (lambda: draw_scene(0, 'train', 0, contrast=1.5), r'contrast is in \(0, 1\], got 1.5'),
    (lambda: draw_object(0, 'train', 0, contrast=float('nan')), r'contrast is in \(0, 1\], got nan'),
    (lambda: draw_object(0, 'train', 0, size=8), 'at least 32 pixels wide, got 8')])
def test_bad_arguments_are_refused_with_words(call, words):
    with pytest.raises(InputError, match=words):
        call()


def test_contrast_is_what_is_left_of_the_distance_to_mid_grey():
    for draw, part in ((draw_scene, lambda scene: scene.image), (draw_object, lambda drawn: drawn[0])):
        strong, faint = (part(draw(0, 'val', 3, contrast=contrast)).astype(float) for contrast in (1.0, 0.25))
        assert np.abs(faint - (127.5 + 0.25 * (strong - 127.5))).max() <= 0.5 + 0.25 * 0.5 + 1e-6  # both are rounded
    strong, faint = draw_scene(0, 'val', 3), draw_scene(0, 'val', 3, contrast=0.25)
    assert (strong.masks == faint.masks).all() and (strong.labels == faint.labels).all()


# Object images

def test_object_images_are_balanced():
    drawn = [draw_object(0, 'train', index) for index in range(60)]
    assert np.bincount([label for _, label in drawn]).tolist() == [15] * 4
    assert all((image.shape, image.dtype) == ((64, 64, 3), np.uint8) for image, _ in drawn)


# On disk

@pytest.mark.parametrize('split, count', [('train', 5), ('val', 3)])
def test_annotations_match_the_drawing(written, split, count, capsys):
    coco = COCO(written / f'annotations/instances_{split}.json')
    assert [coco.cats[place]['name'] for place in sorted(coco.cats)] == list(CLASSES)
    assert sorted(coco.cats) == [1, 2, 3, 4] and len(coco.imgs) == count
    for index in coco.getImgIds():
        entry, scene = coco.imgs[index], draw_scene(0, split, index)
        assert (entry['height'], entry['width']) == (128, 128)
        assert (np.asarray(Image.open(written / split / entry['file_name'])) == scene.image).all()
        notes = coco.loadAnns(coco.getAnnIds(index))
        assert [note['category_id'] - 1 for note in notes] == scene.labels.tolist()
        for note, mask in zip(notes, scene.masks):
            assert (coco.annToMask(note) == mask).all()
            assert note['bbox'] == rle.toBbox(note['segmentation']).tolist() == tight_box(mask)
            assert note['area'] == rle.area(note['segmentation']) == mask.sum()
            assert note['iscrowd'] == 0


def test_the_folder_holds_the_promised_files_and_no_others(written):
    expected = {'shapes.json', 'annotations/instances_train.json', 'annotations/instances_val.json'}
    expected |= {f'train/{index:06d}.png' for index in range(5)} | {f'val/{index:06d}.png' for index in range(3)}
    for split, count in [('train', 12), ('val', 6)]:
        expected |= {f'classification/{split}/{CLASSES[index % 4]}/{index:06d}.png' for index in range(count)}
    assert {str(path.relative_to(written)) for path in written.rglob('*') if path.is_file()} == expected
    assert [path.name for path in written.parent.iterdir()] == ['shapes']
    image = np.asarray(Image.open(written / 'classification/val/circle/000004.png'))
    assert (image == draw_object(0, 'val', 4)[0]).all()


def test_second_write_touches_nothing(written):
    before = snapshot(written)
    assert write_shapes(str(written), **SMALL) == written
    assert snapshot(written) == before


def test_other_parameters_redraw_ours_and_leave_the_rest(tmp_path):
    root = write_shapes(tmp_path / 'shapes', **SMALL)
    (root / 'train/mine.txt').write_text('mine')
    write_shapes(root, **SMALL | dict(train=2, seed=1))
    assert sorted(os.listdir(root / 'train')) == ['000000.png', '000001.png', 'mine.txt']
    assert (np.asarray(Image.open(root / 'train/000000.png')) == draw_scene(1, 'train', 0).image).all()
    assert json.loads((root / 'shapes.json').read_text())['seed'] == 1


def test_a_set_of_other_contrast_is_another_set(tmp_path):
    """Its annotations say so, which name it in records; those of the usual contrast are as they were before."""
    root = write_shapes(tmp_path / 'shapes', **SMALL)
    assert 'contrast' not in json.loads((root / 'annotations/instances_val.json').read_text())['info']['parameters']
    write_shapes(root, **SMALL, contrast=0.5)
    assert json.loads((root / 'shapes.json').read_text())['contrast'] == 0.5
    assert json.loads((root / 'annotations/instances_val.json').read_text())['info']['parameters']['contrast'] == 0.5
    assert (np.asarray(Image.open(root / 'val/000001.png')) == draw_scene(0, 'val', 1, contrast=0.5).image).all()


def test_a_set_from_before_there_was_a_contrast_stays(tmp_path):
    root = write_shapes(tmp_path / 'shapes', **SMALL)
    stamp = json.loads((root / 'shapes.json').read_text())
    del stamp['contrast']
    (root / 'shapes.json').write_text(json.dumps(stamp))
    before = snapshot(root)
    write_shapes(root, **SMALL)
    assert snapshot(root) == before


@pytest.mark.parametrize('contrast', [0.0, 1.5, float('nan')])
def test_a_contrast_that_is_none_is_refused_before_any_work(tmp_path, contrast):
    with pytest.raises(ValueError, match=r'contrast is in \(0, 1\], got'):
        write_shapes(tmp_path / 'shapes', **SMALL, contrast=contrast)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('name', ['holiday.jpg', 'shapes.json'])
def test_foreign_folder_is_refused_and_kept(tmp_path, name):
    (tmp_path / name).write_text('{"by": "somebody else"}')
    with pytest.raises(ValueError, match='not drawn here; choose another root or move it away'):
        write_shapes(tmp_path, **SMALL)
    assert os.listdir(tmp_path) == [name]


def test_empty_folder_is_welcome(tmp_path):
    assert (write_shapes(tmp_path, **SMALL) / 'shapes.json').is_file()


@pytest.mark.parametrize('name, value', [('train', 0), ('classification_val', 3), ('size', 64), ('seed', -1)])
def test_bad_counts_are_refused_before_any_work(tmp_path, name, value):
    with pytest.raises(ValueError, match=f'{name} is at least .*, got {value}'):
        write_shapes(tmp_path / 'shapes', **SMALL | {name: value})
    assert os.listdir(tmp_path) == []


def interrupt(*args, **kwargs):
    raise KeyboardInterrupt


def test_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(shapes, 'draw_object', interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_shapes(tmp_path / 'shapes', **SMALL)
    assert os.listdir(tmp_path) == []


def test_interrupted_redrawing_leaves_the_old_set_whole(tmp_path, monkeypatch):
    root = write_shapes(tmp_path / 'shapes', **SMALL)
    before = snapshot(root)
    monkeypatch.setattr(shapes, 'draw_object', interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_shapes(root, **SMALL | dict(seed=1))
    assert snapshot(root) == before


def test_a_set_torn_while_being_replaced_is_drawn_again(tmp_path, monkeypatch):
    root = write_shapes(tmp_path / 'shapes', **SMALL)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, 'unlink', interrupt)
        write_shapes(root, **SMALL | dict(train=4))
    assert json.loads((root / 'shapes.json').read_text())['version'] == 0
    write_shapes(root, **SMALL)
    assert (np.asarray(Image.open(root / 'train/000004.png')) == draw_scene(0, 'train', 4).image).all()


def test_a_process_that_comes_second_accepts_the_same_set(tmp_path, monkeypatch):
    draw = shapes._write_classification

    def overtaken(*args):
        monkeypatch.setattr(shapes, '_write_classification', draw)
        write_shapes(tmp_path / 'shapes', **SMALL)
        draw(*args)
    monkeypatch.setattr(shapes, '_write_classification', overtaken)
    root = write_shapes(tmp_path / 'shapes', **SMALL)
    assert (root / 'shapes.json').is_file() and os.listdir(tmp_path) == ['shapes']


def test_command_reports_the_reason(tmp_path):
    (tmp_path / 'holiday.jpg').touch()
    done = subprocess.run([sys.executable, '-m', 'pit_downstream.datasets.shapes', str(tmp_path)],
                          capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ''
    assert done.stderr.startswith('expected no folder') and done.stderr.count('\n') == 1


def test_drawing_needs_no_detector_and_no_torch():
    code = ('import sys, pit_downstream.datasets.shapes; '
            'print([name for name in ("torch", "mmdet", "mmcv", "mmengine") if name in sys.modules])')
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout == '[]\n'
