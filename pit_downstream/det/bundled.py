"""Adaptation of any detector config to the bundled dataset: classes, image size and a schedule for two CPU cores."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.config import Config, ConfigDict

from pit_downstream.datasets.shapes import CLASSES
from pit_downstream.det.data_checks import LOADERS, dicts_in

ROOT = 'data/shapes'


@dataclass(frozen=True)
class Preset:
    """Settings for training one family of detectors on the bundled dataset from scratch.

    side: image side in pixels. clip: maximum gradient norm. model: settings that are smaller than in the COCO model.
    """

    epochs: int = 17
    batch_size: int = 8
    side: int = 128
    lr: float = 1e-3
    clip: float = 1.0
    model: Mapping = field(default_factory=dict)


# Trained from scratch, neck and head need normalization (He et al. 2019, 1811.08883).
NORM = dict(type='GN', num_groups=16)


def _detr(queries: int, encoder: int, decoder: int, width: int = 1024, dropout: str = 'dropout') -> dict:
    """Return model settings with as many queries as the images need, fewer layers and no dropout.

    width: hidden channels of the feed-forward network. dropout: the decoder's argument for attention dropout.
    With more layers or dropout, all DETR queries give the same output for thousands of steps on such a small dataset.
    BN in the neck removes the component that all positions of a map share, which hides the content of each position.
    """
    ffn, still = dict(ffn_drop=0.0, feedforward_channels=width), {dropout: 0.0}
    return dict(
        neck=dict(norm_cfg=dict(_delete_=True, type='BN')), num_queries=queries, test_cfg=dict(max_per_img=queries),
        encoder=dict(num_layers=encoder, layer_cfg=dict(self_attn_cfg=dict(dropout=0.0), ffn_cfg=ffn)),
        decoder=dict(num_layers=decoder, layer_cfg=dict(self_attn_cfg=still, cross_attn_cfg=still, ffn_cfg=ffn)))


def _two_stage(width: int) -> dict:
    """Return model settings with narrower heads, fewer proposals and anchors from 16 px.

    A step costs a tenth of the full model's.
    """
    narrow = dict(out_channels=width)
    roi_head = dict(
        bbox_roi_extractor=narrow, mask_roi_extractor=narrow,
        bbox_head=dict(in_channels=width, fc_out_channels=256),
        mask_head=dict(num_convs=2, in_channels=width, conv_out_channels=64, norm_cfg=NORM))
    train = dict(rpn_proposal=dict(nms_pre=300, max_per_img=100), rcnn=dict(sampler=dict(num=64)))
    return dict(
        neck=dict(norm_cfg=NORM, **narrow),
        rpn_head=dict(in_channels=width, feat_channels=width, anchor_generator=dict(scales=[2])),
        roi_head=roi_head, train_cfg=train, test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=100)))


def _cascade(width: int) -> dict:
    """Return the settings of `_two_stage` for each of the three heads of a cascade."""
    slim = _two_stage(width)
    roi, train = slim['roi_head'], slim['train_cfg']
    roi['bbox_head'] = {str(i): roi['bbox_head'] for i in range(3)}  # mmengine's syntax for list items
    train['rcnn'] = {str(i): train['rcnn'] for i in range(3)}
    return slim


def _dense(**neck) -> dict:
    """Return model settings with half the width and fewer head convolutions. neck: further neck settings."""
    head = dict(in_channels=128, feat_channels=128, stacked_convs=2, norm_cfg=NORM)
    return dict(neck=dict(out_channels=128, **neck), bbox_head=head)


PRESETS = {
    'ATSS': Preset(model=_dense(norm_cfg=NORM)),
    'CascadeRCNN': Preset(model=_cascade(128)),
    'ConditionalDETR': Preset(
        epochs=50, batch_size=16, lr=4e-4, model=_detr(24, encoder=1, decoder=2, dropout='attn_drop')),
    'DABDETR': Preset(epochs=50, batch_size=16, lr=4e-4, model=_detr(24, encoder=1, decoder=2, dropout='attn_drop')),
    'DETR': Preset(epochs=100, batch_size=16, lr=4e-4, model=_detr(12, encoder=1, decoder=2)),
    'DeformableDETR': Preset(epochs=30, lr=2e-4, clip=0.1, model=_detr(40, encoder=3, decoder=3)),
    'DINO': Preset(epochs=30, lr=2e-4, clip=0.1, model=_detr(40, encoder=3, decoder=3)),
    'FCOS': Preset(model=_dense(norm_cfg=NORM)),
    'MaskRCNN': Preset(model=_two_stage(128)),
    'RetinaNet': Preset(model=_dense(norm_cfg=NORM)),
    'RTMDet': Preset(model=_dense()),
}


def use_bundled(cfg: Config, root: str = ROOT) -> None:
    """Rewrite `cfg` in place for the dataset of `write_shapes(root)`, without downloads or pretrained weights."""
    cfg.load_from, cfg.resume = None, False
    preset = PRESETS.get(cfg.model.type, Preset())
    _fit_model(cfg, preset)
    _fit_data(cfg, preset, root)
    _fit_schedule(cfg, preset)


def _fit_model(cfg: Config, preset: Preset) -> None:
    for part in dicts_in(cfg.model):
        part.pop('init_cfg', None)
        if 'num_classes' in part:
            part['num_classes'] = len(CLASSES)
    cfg.merge_from_dict({'model': deepcopy(preset.model)})  # resolves the _delete_ keys
    backbone = cfg.model.backbone
    if 'drop_path_rate' in backbone:
        backbone.drop_path_rate = 0.0
    for key, free in (('frozen_stages', -1), ('norm_eval', False)):  # frozen parts would stay random
        if key in backbone:
            backbone[key] = free
    if backbone.type == 'ResNet':
        backbone.norm_cfg = ConfigDict(type='BN', requires_grad=True)
    if cfg.model.type in ('DETR', 'ConditionalDETR', 'DABDETR'):
        _take_finer_map(cfg.model)


def _take_finer_map(model: ConfigDict) -> None:
    """Give DETR the map of the previous stage: at stride 32 several objects share each of the 4 x 4 positions."""
    if model.backbone.type == 'DeepViT':
        model.backbone.out_strides = (16,)
        return
    stage = model.backbone.out_indices[-1] - 1
    model.backbone.out_indices = (stage,)
    model.neck.in_channels = [channels // 2 for channels in model.neck.in_channels]  # in PiT and in ResNet
    if model.backbone.type == 'ResNet':
        model.backbone.update(num_stages=stage + 1, strides=(1, 2, 2, 2)[:stage + 1], dilations=(1,) * (stage + 1))


def _fit_data(cfg: Config, preset: Preset, root: str) -> None:
    masks = 'mask_head' in cfg.model.get('roi_head', {})
    resize = dict(type='Resize', scale=(preset.side, preset.side), keep_ratio=True)
    load, truth = dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=masks)
    pipelines = {
        'train': [load, truth, resize, dict(type='RandomFlip', prob=0.5, direction=['horizontal', 'vertical']),
                  dict(type='PackDetInputs')],
        'val': [load, resize, truth, dict(type='PackDetInputs', meta_keys=(
            'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]}
    for loader in LOADERS:
        split = 'train' if loader.startswith('train') else 'val'
        cfg[loader] = ConfigDict(
            batch_size=preset.batch_size, num_workers=1, persistent_workers=True, drop_last=False,
            sampler=dict(type='DefaultSampler', shuffle=split == 'train'),
            dataset=dict(
                type='CocoDataset', data_root=root, ann_file=f'annotations/instances_{split}.json',
                data_prefix=dict(img=f'{split}/'), metainfo=dict(classes=CLASSES), test_mode=split == 'val',
                pipeline=pipelines[split]))
    cfg.val_evaluator = ConfigDict(
        type='CocoMetric', ann_file=str(Path(root, 'annotations/instances_val.json')),
        metric=['bbox', 'segm'] if masks else 'bbox')
    cfg.test_evaluator = cfg.val_evaluator


def _fit_schedule(cfg: Config, preset: Preset) -> None:
    cfg.optim_wrapper = ConfigDict(
        type='OptimWrapper', constructor='PitOptimWrapperConstructor',
        optimizer=dict(type='AdamW', lr=preset.lr, weight_decay=0.05, fused=True), clip_grad=dict(max_norm=preset.clip))
    cfg.train_cfg = ConfigDict(
        type='EpochBasedTrainLoop', max_epochs=preset.epochs, val_interval=max(1, preset.epochs // 6))
    cfg.param_scheduler = [
        ConfigDict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
        ConfigDict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True, begin=0)]  # to the last epoch
    cfg.auto_scale_lr = ConfigDict(enable=False, base_batch_size=preset.batch_size)
    cfg.custom_hooks = [hook for hook in cfg.get('custom_hooks', []) if hook.type != 'PipelineSwitchHook']
    cfg.default_hooks.checkpoint = ConfigDict(type='CheckpointHook', interval=1, max_keep_ckpts=3, save_optimizer=True)
    cfg.default_hooks.logger = ConfigDict(type='LoggerHook', interval=20)
