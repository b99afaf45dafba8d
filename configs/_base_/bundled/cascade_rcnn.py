"""Cascade (Mask) R-CNN on the bundled dataset: the settings of Mask R-CNN for each of its three stages."""
_base_ = './mask_rcnn.py'
model = dict(
    roi_head=dict(bbox_head={'_delete_': True, **{str(i): _base_.model.roi_head.bbox_head for i in range(3)}}),
    train_cfg=dict(rcnn={'_delete_': True, **{str(i): _base_.model.train_cfg.rcnn for i in range(3)}}))
