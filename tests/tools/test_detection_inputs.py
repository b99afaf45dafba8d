"""Detection data that could mislead or end the tools: other images, names that leave a folder, broken files."""

import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from pit_downstream.det.predictor import build_detector
from tests.det import scenes, tiny

FEW = ('--workers', '0', '--device', 'cpu')


@pytest.fixture
def config(tmp_path):
    """A config file with a tiny FCOS and the five images of tests/det/scenes.py in data/."""
    cfg = tiny.config(scenes.coco_folder(tmp_path / 'data'), 'fcos')
    cfg.dump(tmp_path / 'fcos_tiny.py')
    return tmp_path / 'fcos_tiny.py'


def datasets_measured(folder):
    lines = (folder / 'work_dirs/records/results.jsonl').read_text().splitlines()
    return [record['dataset'] for record in map(json.loads, lines) if record['metric'] == 'AP']


def test_other_images_are_another_dataset(run_tool, config, tmp_path):
    """One store, one annotation file: original images, black ones, a changed file, and a missing one."""
    data = tmp_path / 'data'
    black = tmp_path / 'black'
    black.mkdir()
    for path in (data / 'images').iterdir():
        Image.new('RGB', Image.open(path).size).save(black / path.name)

    def measure(images, *flags):
        done = run_tool('eval_coco_c.py', '--model', config, '--weights', 'random', *FEW, '--corruptions', 'none',
                        '--data', data / 'annotations.json', '--images', images, *flags)
        assert done.code == 0, done.err
        return done.out
    first = measure(data / 'images')
    measure(black)
    assert measure(data / 'images') == first and len(set(datasets_measured(tmp_path))) == 2
    (black / 'c.png').write_bytes((data / 'images/c.png').read_bytes())  # of the same size in pixels
    measure(black)
    (black / 'd.png').unlink()
    measure(black, '--allow-missing', '1')
    names = datasets_measured(tmp_path)
    assert len(names) == len(set(names)) == 4


def test_attacks_on_other_images_are_made_anew(run_tool, config, tmp_path):
    """The images that --save-images wrote share one annotation file; so do fog 1 and fog 5."""
    done = run_tool('eval_coco_c.py', '--model', config, '--weights', 'random', *FEW, '--corruptions', 'fog',
                    '--severities', '1', '5', '--save-images', 'saved')
    assert done.code == 0, done.err
    for severity in ('1', '5'):
        done = run_tool('eval_adversarial.py', '--model', config, '--weights', 'random', *FEW, '--limit', '1',
                        '--data', 'saved/annotations.json', '--images', f'saved/fog/{severity}', '--attacks', 'noise')
        assert done.code == 0, done.err
    lines = map(json.loads, (tmp_path / 'work_dirs/records/results.jsonl').read_text().splitlines())
    assert len({line['dataset'] for line in lines if 'noise' in line['condition']}) == 2


def test_saved_images_of_another_dataset_or_seed_are_not_taken_for_these(run_tool, config, tmp_path):
    flags = ('eval_coco_c.py', '--model', config, '--weights', 'random', *FEW, '--corruptions', 'fog',
             '--severities', '1', '--limit', '1', '--save-images', 'saved')
    assert run_tool(*flags).code == 0
    saved = next((tmp_path / 'saved').glob('fog/1/*.png')).read_bytes()
    done = run_tool(*flags, '--seed', '1')
    assert done.code == 2 and 'saved' in done.err and 'Traceback' not in done.err
    assert next((tmp_path / 'saved').glob('fog/1/*.png')).read_bytes() == saved


@pytest.mark.parametrize('id', ['../../../stray', '{tmp}/stray', 10])
@pytest.mark.parametrize('name', ['../images/a.png', '{tmp}/data/images/a.png'])
def test_no_name_in_an_annotation_file_leaves_the_folder_of_save_images(run_tool, config, tmp_path, id, name):
    """A file name that leaves the folder is replaced by the image id; an id that leaves it, too, is refused."""
    path = tmp_path / 'data/annotations.json'
    content = json.loads(path.read_text())
    id, name = (id.format(tmp=tmp_path) if isinstance(id, str) else id), name.format(tmp=tmp_path)
    content['images'] = [content['images'][0] | {'id': id, 'file_name': name}]
    content['annotations'] = [one | {'image_id': id} for one in content['annotations'] if one['image_id'] == 10]
    path.write_text(json.dumps(content))
    before = set(tmp_path.rglob('*'))
    done = run_tool('eval_coco_c.py', '--model', config, '--weights', 'random', *FEW, '--corruptions', 'fog',
                    '--severities', '1', '--save-images', 'out/saved')
    new = {path.relative_to(tmp_path).parts[:2] for path in set(tmp_path.rglob('*')) - before}
    assert new <= {('configs',), ('out',), ('out', 'saved'), ('work_dirs',), ('work_dirs', 'records')}
    if id == 10:
        assert done.code == 0 and (tmp_path / 'out/saved/fog/1/10.png').is_file()
    if str(id).startswith('..'):
        assert done.code == 2 and id in done.err and 'Traceback' not in done.err


def test_a_link_in_the_folder_of_save_images_is_refused(run_tool, config, tmp_path):
    (tmp_path / 'saved').mkdir()
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'saved/fog').symlink_to(tmp_path / 'elsewhere')
    done = run_tool('eval_coco_c.py', '--model', config, '--weights', 'random', *FEW, '--corruptions', 'fog',
                    '--severities', '1', '--save-images', 'saved')
    assert done.code == 2 and 'saved' in done.err and 'Traceback' not in done.err
    assert not list((tmp_path / 'elsewhere').iterdir())


def damage(path):
    """Change the middle of a PNG; its end stays intact."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def test_broken_files_are_counted_as_unreadable(run_tool, config, tmp_path):
    images = tmp_path / 'data/images'
    damage(images / 'a.png')
    (images / 'b.png').unlink()
    (images / 'c.png').unlink()
    (images / 'c.png').symlink_to('nowhere')
    flags = ('eval_coco_c.py', '--model', config, '--weights', 'random', *FEW, '--corruptions', 'none')
    done = run_tool(*flags, '--allow-missing', '2')
    assert done.code == 2 and all(name in done.err for name in ('a.png', 'b.png', 'c.png')), done.err
    assert run_tool(*flags, '--allow-missing', '3').code == 0
    train = ('train_patch.py', '--model', config, '--weights', 'random', '--device', 'cpu', '--steps', '2',
             '--batch-size', '4')
    done = run_tool(*train)
    assert done.code == 2 and '--allow-missing' in done.err and 'Traceback' not in done.err
    assert run_tool(*train, '--allow-missing', '3').code == 0


def test_training_and_its_validation_survive_broken_files(run_tool, tmp_path):
    folder = scenes.coco_folder(tmp_path / 'data')
    tiny.training(folder, 'fcos').dump(tmp_path / 'tiny.py')
    damage(folder / 'images/a.png')
    (folder / 'images/d.png').unlink()
    done = run_tool('train.py', 'tiny.py', '--work-dir', 'work')
    assert done.code == 0 and '6 iterations' in done.out, done.err
    logs = ''.join(path.read_text() for path in (tmp_path / 'work').rglob('*.log'))
    assert 'a.png is broken' in logs and 'another image is trained on' in logs
    counted = [line for line in logs.splitlines() if '2 broken images were evaluated' in line]
    assert len(counted) == 1 and all(name in counted[0] for name in ('a.png', 'd.png'))  # mmengine logs it once a run
    done = run_tool('test.py', 'tiny.py', 'work')
    assert done.code == 0 and 'bbox_mAP' in done.out and '2 broken images were evaluated' in done.out + done.err


@pytest.fixture
def segmented(tmp_path):
    """A config file with a tiny Mask R-CNN whose ground truth has polygons, and weights for it."""
    masks = dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=False)
    cfg = tiny.training(scenes.coco_folder(tmp_path / 'data'), 'mask_rcnn')
    for loader in (cfg.test_dataloader, cfg.val_dataloader):
        loader.dataset.pipeline[2] = masks
    cfg.dump(tmp_path / 'tiny.py')
    torch.save({'state_dict': build_detector(cfg, 'random', config='x').model.state_dict()}, tmp_path / 'w.pth')
    return tmp_path / 'data'


def test_every_image_has_its_drawing(run_tool, segmented, tmp_path):
    """Images of one name in several folders and with two suffixes, a truncated one, and one that is missing."""
    content = json.loads((segmented / 'annotations.json').read_text())
    for image, name in zip(content['images'], ('x/1.png', 'y/1.png', '1.png', '1.bmp', 'y/gone.png'), strict=True):
        old, new = segmented / 'images' / image['file_name'], segmented / 'images' / name
        new.parent.mkdir(exist_ok=True)
        Image.open(old).save(new)
        old.unlink()
        image['file_name'] = name
    (segmented / 'annotations.json').write_text(json.dumps(content))
    (segmented / 'images/y/gone.png').unlink()
    path = segmented / 'images/x/1.png'
    path.write_bytes(path.read_bytes()[:-400])
    for threshold in ('0', '1'):
        done = run_tool('test.py', 'tiny.py', 'w.pth', '--show-dir', f'shown{threshold}', '--score-thr', threshold)
        assert done.code == 0, done.err
    drawn = {path.relative_to(tmp_path / 'shown0').as_posix() for path in (tmp_path / 'shown0').rglob('*.png')}
    assert drawn == {'x/1.png.png', 'y/1.png.png', '1.png.png', '1.bmp.png', 'y/gone.png.png'}
    low, high = (np.asarray(Image.open(tmp_path / f'shown{threshold}/1.png.png')) for threshold in ('0', '1'))
    half = (low.shape[1] - 8) // 2
    assert np.array_equal(low[:, :half], high[:, :half]) and not np.array_equal(low[:, -half:], high[:, -half:])
    for start in (0, half + 8):  # titles on white
        assert (low[:14, start:start + 60] < 100).any()
    done = run_tool('test.py', 'tiny.py', 'w.pth', '--show-dir', 'x', '--score-thr', '2')
    assert done.code == 2 and '2.0' in done.err


def test_no_image_path_leaves_the_folder_of_drawings(run_tool, segmented, tmp_path):
    """Paths of several roots are taken below their common folder; a link inside the output folder is refused."""
    content = json.loads((segmented / 'annotations.json').read_text())
    (tmp_path / 'other').mkdir()
    (segmented / 'images/a.png').rename(tmp_path / 'other/a.png')
    content['images'][0]['file_name'] = '../../other/a.png'
    (segmented / 'annotations.json').write_text(json.dumps(content))
    done = run_tool('test.py', 'tiny.py', 'w.pth', '--show-dir', 'shown')
    assert done.code == 0, done.err
    folders = {path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.rglob('a.png')}
    assert folders == {'other', 'shown/other'}
    (tmp_path / 'linked').mkdir()
    (tmp_path / 'linked/other').symlink_to(tmp_path / 'other')
    done = run_tool('test.py', 'tiny.py', 'w.pth', '--show-dir', 'linked')
    assert done.code == 2 and 'linked' in done.err and 'Traceback' not in done.err


def test_averaged_weights_of_any_wrapping_are_those_of_the_checkpoint(run_tool, config, tmp_path):
    """EMAHook tests its copy of the model, which must have the weights of a plain, DDP or EMA checkpoint."""
    cfg = tiny.training(tmp_path / 'data', 'fcos')
    state = build_detector(cfg, 'random', config='tiny').model.state_dict()
    cfg.custom_hooks = [dict(type='EMAHook')]
    cfg.dump(config)
    scores = []
    for name, checkpoint in {'plain': state, 'ddp': {f'module.{key}': value for key, value in state.items()},
                             'ema': {'model_ema': state, 'epoch': 3}}.items():
        torch.save(checkpoint, tmp_path / f'{name}.pth')
        done = run_tool('test.py', config, tmp_path / f'{name}.pth', '--out', f'{name}.pkl')
        assert done.code == 0, done.err
        results = pickle.loads((tmp_path / f'{name}.pkl').read_bytes())
        scores.append(torch.cat([result['pred_instances']['scores'] for result in results]))
    assert len(scores[0]) and all(torch.equal(scores[0], other) for other in scores)
