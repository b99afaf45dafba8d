"""Detectors of every family so small that a loss takes milliseconds, with mmdet's own parts."""

import torch
from mmengine.config import Config
from pit_downstream.det.predictor import build_detector
from pit_downstream.det.samples import build_detection_samples
from tests.det import scenes

MEAN_STD = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)
BACKBONE = dict(type='ResNet', depth=18, base_channels=8, norm_cfg=dict(type='BN'), num_stages=2, strides=(1, 2),
                dilations=(1, 1), out_indices=(0, 1))
NECK = dict(type='FPN', in_channels=[8, 16], out_channels=16, num_outs=2)
ANCHORS = dict(type='AnchorGenerator', scales=[4], ratios=[0.5, 1.0, 2.0], strides=[4, 8])
CODER = dict(type='DeltaXYWHBBoxCoder')
L1 = dict(type='L1Loss', loss_weight=1.0)
SIGMOID = dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0)
FOCAL = dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0)
NMS = dict(type='nms', iou_threshold=.5)
HUNGARIAN = dict(assigner=dict(type='HungarianAssigner', match_costs=[
    dict(type='FocalLossCost', weight=2.0), dict(type='BBoxL1Cost', weight=5.0), dict(type='IoUCost', weight=2.0)]))
MASKS = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)


def assigned(high, low):
    return dict(type='MaxIoUAssigner', pos_iou_thr=high, neg_iou_thr=low, min_pos_iou=0., match_low_quality=True)


def retinanet():
    return dict(
        type='RetinaNet', backbone=BACKBONE, neck=NECK,
        bbox_head=dict(type='RetinaHead', num_classes=2, in_channels=16, feat_channels=16, stacked_convs=1,
                       anchor_generator=ANCHORS, bbox_coder=CODER, loss_cls=FOCAL, loss_bbox=L1),
        train_cfg=dict(assigner=assigned(.5, .4), sampler=dict(type='PseudoSampler'), allowed_border=-1, pos_weight=-1),
        test_cfg=dict(nms_pre=100, min_bbox_size=0, score_thr=0., nms=NMS, max_per_img=20))


def fcos():
    return dict(
        type='FCOS', backbone=BACKBONE, neck=NECK,
        bbox_head=dict(type='FCOSHead', num_classes=2, in_channels=16, feat_channels=16, stacked_convs=1,
                       strides=[4, 8], regress_ranges=((-1, 32), (32, 1e8)),
                       norm_cfg=dict(type='GN', num_groups=4)),
        test_cfg=dict(nms_pre=100, min_bbox_size=0, score_thr=0., nms=NMS, max_per_img=20))


def mask_rcnn():
    pooled = dict(type='SingleRoIExtractor', out_channels=16, featmap_strides=[4, 8])
    return dict(
        type='MaskRCNN', backbone=BACKBONE, neck=NECK,
        rpn_head=dict(type='RPNHead', in_channels=16, feat_channels=16, anchor_generator=ANCHORS, bbox_coder=CODER,
                      loss_cls=SIGMOID, loss_bbox=L1),
        roi_head=dict(
            type='StandardRoIHead',
            bbox_roi_extractor=pooled | dict(roi_layer=dict(type='RoIAlign', output_size=3)),
            bbox_head=dict(type='Shared2FCBBoxHead', in_channels=16, fc_out_channels=16, roi_feat_size=3, num_classes=2,
                           bbox_coder=CODER, loss_cls=dict(type='CrossEntropyLoss'), loss_bbox=L1),
            mask_roi_extractor=pooled | dict(roi_layer=dict(type='RoIAlign', output_size=4)),
            mask_head=dict(type='FCNMaskHead', num_convs=1, in_channels=16, conv_out_channels=8, num_classes=2,
                           roi_feat_size=4, loss_mask=dict(type='CrossEntropyLoss', use_mask=True))),
        train_cfg=dict(
            rpn=dict(assigner=assigned(.7, .3), sampler=dict(type='RandomSampler', num=16, pos_fraction=.5),
                     allowed_border=-1, pos_weight=-1),
            rpn_proposal=dict(nms_pre=50, max_per_img=30, nms=dict(type='nms', iou_threshold=.7), min_bbox_size=0),
            rcnn=dict(assigner=assigned(.3, .3), sampler=dict(type='RandomSampler', num=8, pos_fraction=.25,
                                                              add_gt_as_proposals=True), mask_size=8, pos_weight=-1)),
        test_cfg=dict(
            rpn=dict(nms_pre=50, max_per_img=20, nms=dict(type='nms', iou_threshold=.7), min_bbox_size=0),
            rcnn=dict(score_thr=0., nms=dict(type='nms', iou_threshold=.5), max_per_img=10, mask_thr_binary=.5)))


def detr():
    layer = dict(self_attn_cfg=dict(embed_dims=16, num_heads=2, dropout=.1),
                 ffn_cfg=dict(embed_dims=16, feedforward_channels=16, num_fcs=2, ffn_drop=.1))
    return dict(
        type='DETR', num_queries=6, backbone=BACKBONE | dict(out_indices=(1,)),
        neck=dict(type='ChannelMapper', in_channels=[16], kernel_size=1, out_channels=16, num_outs=1, act_cfg=None,
                  norm_cfg=dict(type='BN')),
        encoder=dict(num_layers=1, layer_cfg=layer),
        decoder=dict(num_layers=2, return_intermediate=True,
                     layer_cfg=layer | dict(cross_attn_cfg=layer['self_attn_cfg'])),
        positional_encoding=dict(num_feats=8, normalize=True),
        bbox_head=dict(type='DETRHead', num_classes=2, embed_dims=16,
                       loss_cls=dict(type='CrossEntropyLoss', bg_cls_weight=.1, class_weight=1.0),
                       loss_bbox=L1, loss_iou=dict(type='GIoULoss', loss_weight=2.0)),
        train_cfg=dict(assigner=dict(type='HungarianAssigner', match_costs=[
            dict(type='ClassificationCost', weight=1.), dict(type='BBoxL1Cost', weight=5.),
            dict(type='IoUCost', weight=2.)])), test_cfg=dict(max_per_img=6))


def dino():
    """As wide as mmdet's code for reference points takes for granted."""
    layer = dict(ffn_cfg=dict(embed_dims=256, feedforward_channels=16, ffn_drop=0.))
    deformable = dict(embed_dims=256, num_heads=2, num_levels=2, num_points=2, dropout=0.)
    return dict(
        type='DINO', num_queries=8, with_box_refine=True, as_two_stage=True, num_feature_levels=2,
        backbone=BACKBONE | dict(num_stages=4, strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1), out_indices=(2, 3)),
        neck=dict(type='ChannelMapper', in_channels=[32, 64], kernel_size=1, out_channels=256, num_outs=2,
                  act_cfg=None),
        encoder=dict(num_layers=1, layer_cfg=layer | dict(self_attn_cfg=deformable)),
        decoder=dict(num_layers=2, return_intermediate=True, post_norm_cfg=None, layer_cfg=layer | dict(
            self_attn_cfg=dict(embed_dims=256, num_heads=2, dropout=0.), cross_attn_cfg=deformable)),
        positional_encoding=dict(num_feats=128, normalize=True),
        bbox_head=dict(type='DINOHead', num_classes=2, embed_dims=256, sync_cls_avg_factor=True, loss_cls=FOCAL,
                       loss_bbox=L1, loss_iou=dict(type='GIoULoss', loss_weight=2.0)),
        dn_cfg=dict(label_noise_scale=.5, box_noise_scale=1., group_cfg=dict(dynamic=True, num_dn_queries=4)),
        train_cfg=HUNGARIAN, test_cfg=dict(max_per_img=8))


SCORES = ('retina_cls', 'conv_cls', 'fc_cls', 'rpn_cls', 'cls_branches')  # their last layers
FAMILIES = {'retinanet': retinanet, 'fcos': fcos, 'mask_rcnn': mask_rcnn, 'detr': detr, 'dino': dino}


def config(folder, family, *, pipeline=scenes.PIPELINE, **changes) -> Config:
    """The dataset of tests/det/scenes.py in `folder` and a detector of the family."""
    cfg = scenes.coco_config(folder, pipeline=pipeline)
    pad = 1 if family in ('detr', 'dino') else 32
    preprocessor = dict(type='DetDataPreprocessor', pad_size_divisor=pad, **MEAN_STD)
    cfg.merge_from_dict(dict(model=FAMILIES[family]() | dict(data_preprocessor=preprocessor)))
    cfg.merge_from_dict(changes)
    return cfg


AUGMENTED = (dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
             dict(type='RandomResize', scale=[(64, 64), (96, 96)], keep_ratio=True), dict(type='RandomFlip', prob=.5),
             dict(type='PackDetInputs'))


def training(folder, family, **changes) -> Config:
    """As `config`, with all that tools/train.py needs: two epochs of three steps, each followed by a validation."""
    cfg = config(folder, family)
    loader = dict(num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False))
    cfg.test_dataloader.update(loader)
    train = cfg.test_dataloader.dataset.to_dict() | dict(pipeline=list(AUGMENTED), test_mode=False)
    cfg.merge_from_dict(dict(
        default_scope='mmdet', val_dataloader=cfg.test_dataloader, val_evaluator=cfg.test_evaluator,
        val_cfg=dict(type='ValLoop'), test_cfg=dict(type='TestLoop'),
        train_dataloader=loader | dict(batch_size=2, dataset=train, sampler=dict(type='DefaultSampler', shuffle=True)),
        train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=1),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=.01, momentum=.9)),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1))))
    cfg.merge_from_dict(changes)
    return cfg


def detector(folder, family, **options):
    """(predictor with random weights, samples); the last layer of scores is steep, so that places differ."""
    cfg = config(folder, family, **options)
    predictor = build_detector(cfg, 'random', config=family)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        for name, parameter in predictor.model.named_parameters():
            if any(part in name for part in SCORES):
                parameter.normal_(std=1. if parameter.dim() > 1 else .1)
            if name.endswith('fc_cls.bias'):
                parameter[-1] -= 5  # or all would be background
    return predictor, build_detection_samples(cfg)
