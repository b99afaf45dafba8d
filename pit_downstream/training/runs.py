"""Classifier training runs: from command-line flags to an mmengine config for the dataset and network."""

import argparse
import os
from dataclasses import asdict
from pathlib import Path

import torch
from mmengine import dist
from mmengine.config import Config
from mmengine.runner import Runner

from pit_downstream.utils.config_paths import config_folder
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.path_checks import require_writable_folder
from pit_downstream.utils.spec import Spec
from pit_downstream.datasets.folders import list_folders, list_images_by_class, format_names
from pit_downstream.datasets.labelsets import sort_training_classes, get_wnid_indices
from pit_downstream.datasets.shapes import ROOT, write_shapes
from pit_downstream.evaluation.classifier import Preparation
from pit_downstream.evaluation.models import build_classifier
from pit_downstream.training import safe_loading as checkpoint
from pit_downstream.training.hooks import WEIGHTS
from pit_downstream.training.launch import join_processes, load_config, set_flags, summary
from pit_downstream.training.options import merge_options


def read_config(args: argparse.Namespace) -> Config:
    """Read `args.config`, apply the flags, and set values that follow from the dataset and the network.

    Raises InputError, with a one-sentence message, before any work.
    """
    checkpoint.register()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = load_config(args.config)
    if cfg.get('model', {}).get('type') != 'ImageClassifier':
        raise InputError(f'expected the config of a classifier, got {args.config}. Train detectors with '
                         'pit-downstream train.')
    cfg.launcher = args.launcher
    if args.bundled:
        use_bundled(cfg, args.data or ROOT)
    elif args.data:
        set_data_root(cfg, args.data)
    merge_options(cfg, args.cfg_options)
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or f'work_dirs/{Path(args.config).stem}'
    require_writable_folder(cfg.work_dir, '--work-dir')
    join_processes(cfg)
    if args.bundled and not args.data:
        if dist.is_main_process():
            write_shapes(ROOT)
        dist.barrier()
    require_schedule(cfg)
    set_classes(cfg)
    set_preparation(cfg)
    set_flags(cfg, args)
    return cfg


def use_bundled(cfg: Config, root: str = ROOT) -> None:
    """Change the config of any classifier for training from scratch on the bundled images in `root`, in place.

    Loaders and schedule of `cfg` are replaced by those of configs/_base_/, and model settings are merged.
    """
    bundled = Config.fromfile(config_folder() / '_base_/bundled/classification.py')
    cfg.merge_from_dict({'model': bundled.pop('model')})
    cfg.model.network.pop('pretrained', None)
    cfg.default_hooks = {**cfg.get('default_hooks', {}), **bundled.pop('default_hooks')}
    for key, value in bundled.items():
        cfg[key] = value
    for hook in cfg.get('custom_hooks', []):
        if hook.type == 'EMAHook':
            hook.momentum = 0.02  # for 37 steps per epoch
    set_data_root(cfg, str(Path(root, 'classification')))


def require_schedule(cfg: Config) -> None:
    """Raise InputError if a part of the schedule begins after the last epoch."""
    epochs = cfg.train_cfg.max_epochs
    late = [part.type for part in cfg.param_scheduler if part.get('by_epoch', True) and part.get('begin', 0) >= epochs]
    if late:
        raise InputError(f'expected a schedule for {epochs} epochs, got a {late[0]} that begins later; give '
                         'param_scheduler.0.end and param_scheduler.1.begin with --cfg-options, too')


def set_data_root(cfg: Config, root: str) -> None:
    """Set the training folder to root/train and the evaluation folder to root/val, or else root/test, in place."""
    val = next((name for name in ('val', 'test') if Path(root, name).is_dir()), 'val')
    for loader, name in (('train', 'train'), ('val', val), ('test', val)):
        cfg[f'{loader}_dataloader'].dataset.root = str(Path(root, name))


def set_classes(cfg: Config) -> None:
    """Set the number of classes of the network and the class names of the loaders from the training folders, in place.

    Evaluation folders are matched by name, and some may be missing. A config with 1000 classes may train on a subset of
    ImageNet's.

    Raises:
        InputError: There are no class folders.
        InputError: A training folder has no images, an evaluation folder has an unknown class, or the config has
            another number of classes.
    """
    train, val = (cfg[f'{part}_dataloader'].dataset.root for part in ('train', 'val'))
    folders, asked = (_list_class_folders(root) for root in (train, val))
    empty = [name for name, files in list_images_by_class(Path(train), folders).items() if not files]
    if empty:
        raise InputError(f'{len(empty)} of {len(folders)} class folders in {train} have no images: '
                         f'{format_names(empty)}. Add '
                         'images, or remove the folders.')
    network, names = cfg.model.network, sort_training_classes(folders)
    if network.get('num_classes') == len(get_wnid_indices()) and set(names) <= get_wnid_indices().keys():
        names = tuple(get_wnid_indices())
    unknown = [name for name,
               files in list_images_by_class(Path(val), asked).items() if files and name not in names]
    if unknown:
        raise InputError(f'expected the classes of {train} in {val}, got {format_names(unknown)}; both need the same '
                         'folders')
    if network.setdefault('num_classes', len(names)) != len(names):
        raise InputError(f'expected a network of {len(names)} classes for {train}, got model.network.num_classes='
                         f'{network.num_classes}; leave it out')
    for part in ('train', 'val', 'test'):
        cfg[f'{part}_dataloader'].dataset.classes = list(names)


def set_preparation(cfg: Config) -> None:
    """Set the preprocessing of the loaders and the preprocessor as in the evaluation tools, in place."""
    preparation, preprocessor = build_preparation(cfg.model.network), cfg.model.data_preprocessor
    preprocessor.update(mean=preparation.mean, std=preparation.std, num_classes=cfg.model.network.num_classes)
    cfg.train_dataloader.dataset.transform.update(input_size=preparation.view.size, mean=preparation.mean)
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.view = asdict(preparation.view)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.setdefault('pin_memory', torch.cuda.is_available())
    if preprocessor.get('mixing') and cfg.train_dataloader.batch_size % 2:
        raise InputError(f'mixup and cutmix mix images in pairs: expected an even batch, got '
                         f'{cfg.train_dataloader.batch_size}; change train_dataloader.batch_size, or leave them out '
                         'with model.data_preprocessor.mixing=None')


def build_preparation(network: dict) -> Preparation:
    """Return the preprocessing of a network, without allocating its weights.

    `network` has arguments of timm.create_model.
    """
    named = {key: value for key, value in network.items() if not key.startswith('pretrained')}
    with torch.device('meta'):
        return build_classifier(str(Spec.of(**named)), weights='random', device='meta').preparation


def require_batches(runner: Runner) -> None:
    """Raise InputError if an epoch would have no batch."""
    loader = runner.train_dataloader
    if not len(loader):
        raise InputError(f'expected images for one batch at least on each of {runner.world_size} processes, got '
                         f'{len(loader.dataset)} in all for batches of {loader.batch_size}; lower '
                         'train_dataloader.batch_size')


def format_summary(runner: Runner) -> str:
    return f'{summary(runner, scores=("top1", "top5"))}; the network alone in {Path(runner.work_dir, WEIGHTS)}'


def _list_class_folders(root: str) -> list[str]:
    if not Path(root).is_dir() or not list_folders(root):
        raise InputError(
            f'expected a folder of images for each class in {root}, found none; put them there as data/README.md '
            'describes, name another folder with --data DIR, or run with --bundled, which needs no dataset')
    return list_folders(root)
