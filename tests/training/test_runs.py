"""Runs of a classifier: read, trained, stopped and resumed, taken into other tools. Tiny images, PiT-Ti at 32 px."""

import os
import shutil
import socket
from pathlib import Path

import pytest
import timm
import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from PIL import Image

from pit_downstream.cli.train_classifier import make_parser
from pit_downstream.datasets.imagenet import load_class_folders
from pit_downstream.evaluation.models import build_classifier
from pit_downstream.training import runs
from pit_downstream.training import safe_loading as checkpoint
from pit_downstream.utils.errors import InputError
from tests.evaluation.toy import started

TINY = ('model.network.name=pit_ti', 'model.network.img_size=32', 'train_dataloader.batch_size=2',
        'train_dataloader.num_workers=0', 'val_dataloader.num_workers=0', 'val_dataloader.batch_size=4',
        'default_hooks.logger.interval=1')
SHORT = (*TINY, 'train_cfg.max_epochs=2', 'auto_scale_lr.enable=False', 'param_scheduler.0.end=1',
         'param_scheduler.1.begin=1', 'param_scheduler.1.end=2', 'custom_hooks.0.momentum=0.5')
MODEL = 'pit_ti(img_size=32,num_classes=4)'


def arguments(config, *flags, options=TINY):
    return make_parser().parse_args([f'configs/{config}', *map(str, flags), '--cfg-options', *options])


def read(*args, **kwargs):
    return runs.read_config(arguments(*args, **kwargs))


@HOOKS.register_module()
class Watch(Hook):
    """What is evaluated, and with what each run's epochs ended."""

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self.evaluated = {name: value.clone() for name, value in model.network.state_dict().items()}


def train(cfg):
    cfg.custom_hooks = [*cfg.custom_hooks, dict(type='Watch')]
    runner = Runner.from_cfg(cfg)
    runs.require_batches(runner)
    runner.train()
    return runner


@pytest.mark.parametrize('tool, config', [('train.py', 'retinanet_pit_ti.py'),
                                          ('train_classifier.py', 'imagenet_pit_s.py')])
@pytest.mark.parametrize('seed', ['-1', '4294967296', '0.5'])
def test_seeds_that_are_none_are_refused(run_tool, few_shapes, tmp_path, tool, config, seed):
    done = run_tool(tool, f'configs/{config}', '--bundled', '--data', few_shapes, '--work-dir', tmp_path / 'work',
                    '--cfg-options', f'randomness.seed={seed}', *(SHORT if 'classifier' in tool else ()))
    assert done.code == 2 and 'randomness.seed' in done.err and seed in done.err
    assert not (tmp_path / 'work').exists()


def test_a_loss_that_is_not_finite_stops_training_before_a_checkpoint(run_tool, few_shapes, tmp_path):
    done = run_tool('train_classifier.py', 'configs/imagenet_pit_s.py', '--data', few_shapes / 'classification',
                    '--work-dir', tmp_path / 'work', '--cfg-options', *SHORT, 'optim_wrapper.optimizer.lr=nan')
    assert done.code == 2 and 'loss is not finite' in done.err.lower() and 'Traceback' not in done.err
    assert not list((tmp_path / 'work').rglob('*.pth'))


@pytest.fixture(scope='module')
def recipe(few_shapes, tmp_path_factory):
    """PiT-S' whole recipe but for its size: RandAugment, erasing, mixing, AdamP, averaging; 2 epochs of 3 steps."""
    return train(read('imagenet_pit_s.py', '--data', few_shapes / 'classification', '--work-dir',
                      tmp_path_factory.mktemp('recipe'), options=SHORT))


def test_the_recipe_learns_and_evaluates(recipe):
    losses = recipe.message_hub.get_scalar('train/loss').data[0]
    assert len(losses) == 6 and all(0 < loss < float('inf') for loss in losses)
    assert recipe.cfg.model.network.num_classes == 4
    summary = runs.format_summary(recipe)
    assert summary.startswith('6 iterations, loss ')
    assert summary.endswith(f'the network alone in {recipe.work_dir}/weights.pth')
    assert 'accuracy/top1 ' in summary and 'accuracy/top5 1.000' in summary  # of four classes


def test_averaged_weights_are_evaluated_and_kept(recipe):
    watch = next(hook for hook in recipe.hooks if isinstance(hook, Watch))
    kept = torch.load(f'{recipe.work_dir}/weights.pth')
    raw = recipe.model.network.state_dict()
    assert kept.keys() == watch.evaluated.keys() == raw.keys()
    assert all(torch.equal(kept[name], watch.evaluated[name]) for name in kept)
    assert not torch.equal(kept['head.weight'], raw['head.weight'])


def test_the_measuring_tools_take_the_file(recipe, few_shapes):
    """Its errors there are those of the last evaluation here, on the same images in the same view."""
    predictor = build_classifier(MODEL, weights=f'{recipe.work_dir}/weights.pth')
    samples = load_class_folders(few_shapes / 'classification' / 'val', view=predictor.view)
    batch = predictor.collate([samples[index] for index in range(len(samples))])
    right = predictor.logits(batch.images).argmax(1) == predictor.labels(batch)
    top1 = recipe.message_hub.get_scalar('val/accuracy/top1').current()
    assert right.double().mean().item() == pytest.approx(top1)


@pytest.mark.parametrize('file', ['weights.pth', 'epoch_2.pth'])
def test_a_detector_begins_with_the_file(recipe, file):
    """Each tensor of the backbone is the trained one, the position embedding resampled from 3 x 3 to 27 x 27."""
    from pit_downstream.det.backbones import PiT
    pretrained = dict(type='Pretrained', checkpoint=f'{recipe.work_dir}/{file}')
    backbone = PiT('ti', init_cfg=pretrained)
    backbone.init_weights()
    kept = torch.load(f'{recipe.work_dir}/weights.pth')
    assert all(torch.equal(value, kept[name]) for name, value in backbone.state_dict().items()
               if name != 'pos_embed' and not name.startswith('norm'))
    assert backbone.pos_embed.shape[-2:] == (27, 27) and kept['pos_embed'].shape[-2:] == (3, 3)


def test_a_resumed_run_ends_as_one_never_stopped(recipe, few_shapes, tmp_path):
    """The second epoch again, from the first one's checkpoint: weights, averages and optimizer to the bit."""
    runner = train(read('imagenet_pit_s.py', '--data', few_shapes / 'classification', '--work-dir', tmp_path,
                        '--resume', f'{recipe.work_dir}/epoch_1.pth', options=SHORT))
    assert runner.iter == 6
    first, second = (checkpoint.load(f'{folder}/epoch_2.pth') for folder in (recipe.work_dir, tmp_path))
    for part in ('state_dict', 'ema_state_dict'):
        assert all(torch.equal(value, second[part][name]) for name, value in first[part].items())
    for index, state in first['optimizer']['state'].items():
        assert all(torch.equal(torch.as_tensor(value), torch.as_tensor(second['optimizer']['state'][index][name]))
                   for name, value in state.items())


def test_bundled_images(few_shapes, tmp_path):
    cfg = read('imagenet_deepvit_24.py', '--bundled', '--data', few_shapes, '--work-dir', tmp_path, options=(
        *TINY, 'train_cfg.max_epochs=1', 'model.regularizer.pairs=1', 'model.regularizer.weight=0.1'))
    assert cfg.model.network.num_classes == 4 and cfg.optim_wrapper.optimizer.type == 'AdamW'
    runner = train(cfg)
    assert runner.iter == 3 and runner.message_hub.get_scalar('train/loss').current() > 0
    assert 0 < abs(runner.message_hub.get_scalar('train/loss_likeness').current()) <= 0.1


def rank_of_two(rank, port, data, work):
    """One of two processes: an epoch of one step, and five images evaluated, of which one rank has three."""
    os.environ |= dict(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2', MASTER_ADDR='127.0.0.1',
                       MASTER_PORT=str(port))
    train(read('cifar10_pit_ti.py', '--data', data, '--work-dir', work, '--launcher', 'pytorch', options=(
        *TINY, 'train_cfg.max_epochs=1', 'param_scheduler.1.begin=0')))


def test_two_processes_evaluate_every_image_once(few_shapes, tmp_path):
    data, work = shutil.copytree(few_shapes / 'classification', tmp_path / 'data'), tmp_path / 'work'
    sorted((data / 'val').glob('*/*.png'))[0].unlink()
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    ranks = [started(rank_of_two, rank, port, data, work) for rank in range(2)]
    for process in ranks:
        process.join(120)
    assert [process.exitcode for process in ranks] == [0, 0]
    predictor = build_classifier(MODEL, weights=work / 'weights.pth')
    samples = load_class_folders(data / 'val', view=predictor.view)
    batch = predictor.collate([samples[index] for index in range(5)])
    right = (predictor.logits(batch.images).argmax(1) == predictor.labels(batch)).sum().item()
    log = ''.join(path.read_text() for path in work.rglob('*.log'))
    assert f'accuracy/top1: {right / 5:.4f}' in log and 'Epoch(val) [1][1/1]' in log


@pytest.mark.parametrize('flags, options, words', [
    (('--data', 'none'), (), 'expected a folder of images for each class in none/train, found none; put them'),
    (('--data', 'FEW'), ('model.network.name=pit_xl',), "no model named 'pit_xl'; did you mean"),
    (('--data', 'FEW'), ('model.network.num_classes=3',), r'of 4 classes for .*\.num_classes=3; leave it out'),
    (('--data', 'FEW'), ('train_dataloader.batch_size=3',), 'expected an even batch, got 3; change'),
    (('--data', 'FEW'), ('train_cfg.max_epochs=5',), 'for 5 epochs, got a CosineAnnealingLR that begins later'),
    (('--data', 'FEW', '--work-dir', __file__), (), 'expected a folder to write to for --work-dir'),
    (('--data', 'FEW', '--resume', 'none.pth'), (), 'expected a checkpoint, found none at none.pth'),
])
def test_bad_input_gets_one_sentence(few_shapes, flags, options, words):
    flags = [few_shapes / 'classification' if flag == 'FEW' else flag for flag in flags]
    with pytest.raises(InputError, match=words):
        read('imagenet_pit_s.py', *flags, options=(*TINY, *options))


def test_a_detectors_config_belongs_to_another_tool(tmp_path):
    (tmp_path / 'detr.py').write_text("model = dict(type='DETR')")
    args = arguments('cifar10_pit_ti.py')
    args.config = str(tmp_path / 'detr.py')
    with pytest.raises(ValueError, match='expected the config of a classifier, got .*detr.py. Train detectors with'):
        runs.read_config(args)


def test_other_classes_for_evaluation_are_refused(few_shapes, tmp_path):
    data = shutil.copytree(few_shapes / 'classification', tmp_path / 'data')
    (data / 'val' / 'circle').rename(data / 'val' / 'disk')
    with pytest.raises(ValueError, match='expected the classes of .*/train in .*/val, got disk;'):
        read('imagenet_pit_s.py', '--data', data)


def test_too_few_images_for_a_batch(few_shapes, tmp_path):
    cfg = read('imagenet_pit_s.py', '--data', few_shapes / 'classification', '--work-dir', tmp_path, options=(
        *TINY, 'train_dataloader.batch_size=64'))
    with pytest.raises(ValueError, match='got 6 in all for batches of 64; lower train_dataloader.batch_size'):
        runs.require_batches(Runner.from_cfg(cfg))


def test_folder_test_replaces_val(few_shapes, tmp_path):
    data = shutil.copytree(few_shapes / 'classification', tmp_path / 'data')
    (data / 'val').rename(data / 'test')
    cfg = read('imagenet_pit_s.py', '--data', data)
    assert cfg.val_dataloader.dataset.root == cfg.test_dataloader.dataset.root == f'{data}/test'


def test_class_names_go_with_the_weights(recipe, few_shapes, tmp_path, run_tool):
    """Moved alone, the file still has them: a folder without the first class is not numbered anew."""
    names = ('circle', 'cross', 'ring', 'square')
    weights = shutil.copy(f'{recipe.work_dir}/weights.pth', tmp_path / 'moved.pth')
    state = torch.load(weights, weights_only=True)
    assert state.class_names == names and all(isinstance(value, torch.Tensor) for value in state.values())
    assert Path(recipe.work_dir, 'classes.txt').read_text().split() == list(names)
    predictor = build_classifier(MODEL, weights=weights)
    assert predictor.class_names == names
    timm.create_model('pit_ti', img_size=32, num_classes=4, checkpoint_path=str(weights))
    data = shutil.copytree(few_shapes / 'classification' / 'val', tmp_path / 'val')
    shutil.rmtree(data / 'circle')
    wrong = [predictor.predict(predictor.view(Image.open(path).convert('RGB'))[None].float() / 255, None)
             .predictions.argmax().item() != names.index(path.parent.name) for path in sorted(data.rglob('*.png'))]
    flags = ('--model', MODEL, '--weights', weights, '--data', data, '--output-dir', 'store', '--corruptions',
             'brightness', '--severities', '1')
    done = run_tool('eval_imagenet_c.py', *flags)
    assert done.code == 0 and f'{sum(wrong) / len(wrong):.4f}' in done.out.partition('clean')[2].splitlines()[0], done
    (data / 'ring').rename(data / 'disk')
    done = run_tool('eval_imagenet_c.py', *flags)
    assert done.code == 2 and 'disk' in done.err and 'circle, cross, ring, square' in done.err


def test_unreadable_images_do_not_end_a_run(few_shapes, tmp_path, logged):
    """In training another one takes the place; in validation, of six images, the accuracy rests on four."""
    data = shutil.copytree(few_shapes / 'classification', tmp_path / 'data')
    for part in ('train', 'val'):
        first, second, *_ = sorted((data / part).glob('*/*.png'))
        content = bytearray(first.read_bytes())
        content[len(content) // 2] ^= 255
        first.write_bytes(content)
        second.unlink()
        second.symlink_to('nowhere.png')
    runner = train(read('cifar10_pit_ti.py', '--data', data, '--work-dir', tmp_path / 'work', options=(
        *TINY, 'train_cfg.max_epochs=1', 'param_scheduler.1.begin=0')))
    top1 = runner.message_hub.get_scalar('val/accuracy/top1').current()
    assert runner.iter == 3 and top1 * 4 == int(top1 * 4)
    text = ''.join(path.read_text() for path in (tmp_path / 'work').rglob('*.log'))
    assert '2 of 6 images were unreadable: the accuracy rests on the other 4' in text
    assert text.count('left out of the accuracy') == 2 and text.count('another image is trained on') == 2


@pytest.mark.parametrize('change, words', [
    (lambda data: (data / 'train' / 'bird').mkdir(), r'1 of 5 class folders in .*train have no images: bird'),
    (lambda data: (data / 'train' / 'ring').rename(data / 'train' / 'square' / 'ring'), 'got ring; both need the same'),
    (lambda data: shutil.move(data / 'train', data / 'all') and shutil.move(data / 'all', data / 'train' / 'all'),
     'one level deeper: all/'),
])
def test_folders_that_are_no_classes_are_refused(few_shapes, tmp_path, change, words):
    data = shutil.copytree(few_shapes / 'classification', tmp_path / 'data')
    change(data)
    with pytest.raises(ValueError, match=words):
        read('cifar10_pit_ti.py', '--data', data)
