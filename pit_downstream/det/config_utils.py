"""Configs of detector runs, built from the tools' flags, and one-line training summaries."""

import argparse
import os
from pathlib import Path

from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine import dist
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

from pit_downstream.utils.config_paths import config_folder
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.path_checks import require_writable_file, require_writable_folder
from pit_downstream.datasets.shapes import ROOT, write_shapes
from pit_downstream.training.launch import (
    add_hooks,
    find_checkpoint,
    join_processes,
    load_config,
    require_checkpoint,
    set_flags,
    summary,
)
from pit_downstream.training.options import merge_options
from pit_downstream.det.annotation_files import check_annotations
from pit_downstream.det.classes import match_classes
from pit_downstream.det.data_checks import (
    iterate_dicts,
    report_broken_images,
    require_data,
    set_data_root,
    replace_image_loaders,
)
from pit_downstream.det.hooks import make_resumable
from pit_downstream.det.precision import set_bf16

BUNDLED_SETTINGS = {  # detector: name of its settings in configs/_base_/bundled/
    'ATSS': 'dense', 'FCOS': 'dense', 'RetinaNet': 'dense', 'RTMDet': 'rtmdet', 'MaskRCNN': 'mask_rcnn',
    'CascadeRCNN': 'cascade_rcnn', 'DETR': 'detr', 'ConditionalDETR': 'conditional_detr', 'DABDETR': 'conditional_detr',
    'DeformableDETR': 'deformable_detr', 'DINO': 'deformable_detr'}


def read_config(args: argparse.Namespace, *, loaders: tuple[str, ...]) -> Config:
    """Load `args.config`, apply the shared flags and check that the data of `loaders` exist.

    Raises InputError before any work.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    setup_cache_size_limit_of_dynamo()
    cfg = load_config(args.config)
    if not cfg.get('model'):
        raise InputError(f'expected the config of a detector, found no model in {args.config}. Name a whole config.')
    if cfg.model.get('type') == 'ImageClassifier':
        raise InputError(f'expected the config of a detector, got {args.config}. Train classifiers with '
                         'pit-downstream train-classifier.')
    cfg.launcher = args.launcher
    if args.bundled:
        use_bundled(cfg, args.data or ROOT)
    elif args.data:
        set_data_root(cfg, args.data)
    merge_options(cfg, args.cfg_options)
    if getattr(args, 'annotations', None):
        _set_annotations(cfg, args)
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or f'work_dirs/{Path(args.config).stem}'
    join_processes(cfg)
    if args.bundled and not args.data and not getattr(args, 'annotations', None):
        if dist.is_main_process():
            write_shapes(ROOT)
        dist.barrier()
    require_data(cfg, loaders)
    match_classes(cfg, loaders, check_annotations(cfg, loaders))
    replace_image_loaders(cfg)
    return cfg


def use_bundled(cfg: Config, root: str = ROOT) -> None:
    """Change the config of any detector for training from scratch on the bundled dataset in `root`, in place.

    Dataset, evaluators and schedule of `cfg` are replaced by those of configs/_base_/, and model settings are merged.
    """
    base, masks = config_folder() / '_base_', 'mask_head' in cfg.model.get('roi_head', {})
    bundled = Config.fromfile(base / f'datasets/bundled_{"instance" if masks else "detection"}.py')
    settings = BUNDLED_SETTINGS.get(cfg.model.type, 'default')
    bundled.merge_from_dict(Config.fromfile(base / f'bundled/{settings}.py').to_dict())
    model = bundled.pop('model', {})
    if not masks:
        for key in ('mask_head', 'mask_roi_extractor'):
            model.get('roi_head', {}).pop(key, None)
    for part in iterate_dicts(cfg.model):
        part.pop('init_cfg', None)
        if 'num_classes' in part:
            part['num_classes'] = len(bundled.metainfo.classes)
    cfg.merge_from_dict({'model': model})
    cfg.default_hooks = {**cfg.get('default_hooks', {}), **bundled.pop('default_hooks')}
    for key, value in bundled.items():
        cfg[key] = value
    cfg.custom_hooks = [hook for hook in cfg.get('custom_hooks', []) if hook.type != 'PipelineSwitchHook']
    set_data_root(cfg, root)
    _train_from_scratch(cfg.model)


def _train_from_scratch(model: ConfigDict) -> None:
    """Train all layers of the backbone of `model`, and let a DETR read the map of stride 16, in place."""
    backbone = model.backbone
    for key, value in (('drop_path_rate', 0.0), ('frozen_stages', -1), ('norm_eval', False)):
        if key in backbone:
            backbone[key] = value
    if backbone.type == 'ResNet':
        backbone.norm_cfg = ConfigDict(type='BN', requires_grad=True)
    if model.type not in ('DETR', 'ConditionalDETR', 'DABDETR'):
        return
    if backbone.type == 'DeepViT':  # at stride 32 several objects share each of the 4 x 4 positions
        backbone.out_strides = (16,)
        return
    stage = backbone.out_indices[-1] - 1
    backbone.out_indices = (stage,)
    model.neck.in_channels = [channels // 2 for channels in model.neck.in_channels]  # in PiT and in ResNet
    if backbone.type == 'ResNet':
        backbone.update(num_stages=stage + 1, strides=(1, 2, 2, 2)[:stage + 1], dilations=(1,) * (stage + 1))


def set_training(cfg: Config, args: argparse.Namespace) -> None:
    """Apply the flags of tools/train.py to `cfg`, in place, and check that its pretrained weights exist."""
    require_writable_folder(cfg.work_dir, '--work-dir')
    _require_weights(cfg)
    report_broken_images(cfg)
    if args.amp == 'bf16':
        set_bf16(cfg)
    set_flags(cfg, args)
    if cfg.get('load_from'):
        add_hooks(cfg, 'CheckpointClassesHook' if cfg.get('resume') else 'BackboneLoadFromHook')
    make_resumable(cfg)


def _set_annotations(cfg: Config, args: argparse.Namespace) -> None:
    """Apply an annotation file --data and --images to `cfg`, in place.

    Raises:
        InputError: The test_evaluator is not one CocoMetric.
    """
    evaluator = cfg.get('test_evaluator')
    metrics = [part.get('type') for part in iterate_dicts(evaluator) if 'type' in part]
    if not isinstance(evaluator, dict) or not issubclass(METRICS.get(metrics[0]) or object, CocoMetric):
        raise InputError(f'an annotation file as --data needs a config whose test_evaluator is one CocoMetric, got '
                         f'{", ".join(map(str, metrics)) or "none"}. Name the dataset in the config instead.')
    cfg.merge_from_dict({
        'test_dataloader.dataset.data_root': '', 'test_dataloader.dataset.ann_file': args.annotations,
        'test_dataloader.dataset.data_prefix.img': args.images, 'test_evaluator.ann_file': args.annotations})


def set_testing(cfg: Config, args: argparse.Namespace) -> None:
    """Apply the flags of tools/test.py to `cfg`, in place."""
    require_writable_folder(cfg.work_dir, '--work-dir')
    if not 0 <= args.score_thr <= 1:
        raise InputError(f'--score-thr must be in 0..1, got {args.score_thr}. Choose another one.')
    cfg.load_from = str(find_checkpoint(args.checkpoint))
    report_broken_images(cfg)
    add_hooks(cfg, 'CheckpointClassesHook', 'FiniteDetectorHook')
    require_checkpoint(cfg)
    if args.amp:
        set_bf16(cfg)
    if args.show_dir:
        require_writable_folder(args.show_dir, '--show-dir')
        loader = next((step for step in iterate_dicts(cfg.test_dataloader)
                       if str(step.get('type')).startswith('LoadImage')), {})
        turn = '_ignore_orientation' if str(loader.get('color_type')).endswith('_ignore_orientation') else ''
        cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(
            type='DrawDetectionsHook', out_dir=args.show_dir, score_thr=args.score_thr, color_type=f'color{turn}',
            backend_args=loader.get('backend_args'))]
    if args.out:
        if not args.out.endswith(('.pkl', '.pickle')):
            raise InputError(f'--out is a .pkl file, got {args.out}')
        require_writable_file(args.out, '--out')
        evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
        cfg.test_evaluator = [*evaluators, dict(type='DumpDetResults', out_file_path=args.out)]


def format_summary(runner: Runner) -> str:
    return summary(runner, scores=('mAP', 'mAP_50', 'AP50'))


def _require_weights(cfg: Config) -> None:
    """Raise InputError if a local file with pretrained weights of the model is missing."""
    for part in iterate_dicts(cfg.model):
        path = part.get('checkpoint') if part.get('type') == 'Pretrained' else None
        if path and '://' not in path and not Path(path).is_file():
            norms = ' model.backbone.norm_eval=False' if cfg.model.get('backbone', {}).get('norm_eval') else ''
            raise InputError(
                f'expected pretrained weights, found none at {path}; put them there as data/README.md describes, or '
                f'train from scratch with --cfg-options model.backbone.init_cfg=None{norms}')
