"""--cfg-options of configs for detectors and classifiers: keys that nothing reads are refused."""

import argparse
import re
import shlex

import pytest
from mmengine.config import Config, DictAction

import pit_downstream.det  # noqa: F401
from pit_downstream.training.options import merge_options
from tests.readme import PAGES, ROOT, steps

RETINANET, MASK = 'retinanet_pit_ti', 'mask_rcnn_pit_s'
COMMAND = re.compile(r'(?:pit-downstream (?:train|test|train-classifier)|tools/\w+\.py) (\w+)')  # and its config
PRINTED = [(command[1], step.text) for page in (*PAGES, ROOT / 'data/README.md') for step in steps(page.read_text())
           if step.language == 'sh' and '--cfg-options' in step.text and (command := COMMAND.search(step.text))]


def config(name):
    return Config.fromfile(ROOT / 'configs' / f'{name}.py')


@pytest.mark.parametrize('name, key, words', [
    (MASK, 'model.bbox_head.num_classes', (
        'model.roi_head.bbox_head.num_classes', 'model.roi_head.mask_head.num_classes')),
    ('cascade_mask_rcnn_pit_s', 'model.roi_head.bbox_head.num_classes', (
        'list of 3', 'model.roi_head.bbox_head.2.num_classes')),
    (RETINANET, 'model.bbox_head.num_class', ('model.bbox_head.num_classes',)),
    (RETINANET, 'model.bbox_head.loss_cls.gama', ('gamma',)), (RETINANET, 'trian_cfg.max_epochs', ('train_cfg',)),
    (RETINANET, 'train_cfg.max_epoch', ('max_epochs',)), (RETINANET, 'val_dataloader.batchsize', ('batch_size',)),
    (RETINANET, 'param_scheduler.7.end', ('param_scheduler.1.end',)),
    (RETINANET, 'train_cfg.max_epochs.a', ('train_cfg.max_epochs is 12',)),
    ('cifar10_pit_ti', 'model.img_size', ('model.network.img_size',))])
def test_keys_that_nothing_reads_are_refused(name, key, words):
    with pytest.raises(ValueError) as refused:
        merge_options(config(name), {key: 2})
    assert key in str(refused.value) and all(word in str(refused.value) for word in words)


@pytest.mark.parametrize('key', [
    'model.backbone.init_cfg.type', 'model.test_cfg.score_thr', 'randomness.seed', 'optim_wrapper.accumulative_counts',
    'optim_wrapper.paramwise_cfg.layer_decay', 'optim_wrapper.clip_grad.max_norm', 'optim_wrapper.optimizer.betas',
    'param_scheduler.1.end', 'default_hooks.checkpoint.max_keep_ckpts', 'train_dataloader.sampler.seed',
    'train_dataloader.dataset.metainfo.classes', 'train_dataloader.dataset.indices', 'val_evaluator.classwise',
    'train_dataloader.dataset.pipeline.1.with_mask', 'model.data_preprocessor.non_blocking', 'train_cfg.val_begin',
    'model.bbox_head.anchor_generator.scales', 'model.neck.norm_cfg.type', 'env_cfg.cudnn_benchmark'])
def test_arguments_that_the_config_does_not_set_are_accepted(key):
    cfg = config(RETINANET)
    merge_options(cfg, {key: 2})
    node = cfg
    for name in key.split('.'):
        node = node[int(name) if name.isdigit() else name]
    assert node == 2


def test_arguments_of_another_type_are_accepted_with_it():
    cfg = config(RETINANET)
    merge_options(cfg, {'model.backbone.type': 'ResNet', 'model.backbone.depth': 50})
    assert cfg.model.backbone.depth == 50


def test_documentation_has_commands_with_options():
    assert len(PRINTED) >= 3


@pytest.mark.parametrize('name, text', PRINTED, ids=[text[:60] for _, text in PRINTED])
def test_printed_options_are_accepted(name, text):
    words = shlex.split(text)
    values = words[words.index('--cfg-options') + 1:]
    values = values[:next((k for k, word in enumerate(values) if word.startswith('--')), len(values))]
    parsed = argparse.Namespace()
    DictAction(['--cfg-options'], 'options')(None, parsed, values)
    cfg = config(name)
    merge_options(cfg, parsed.options)
