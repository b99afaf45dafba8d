"""DETR by mmdet's recipe (150 epochs, batch 16), without weight decay on norms, biases and embeddings."""
_base_ = ['mmdet::detr/detr_r50_8xb2-150e_coco.py', './default_runtime.py']
model = dict(data_preprocessor=dict(type='PitDataPreprocessor'))
optim_wrapper = dict(
    constructor='PitOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, lr_mult={'backbone': 0.1}))
auto_scale_lr = dict(enable=False, base_batch_size=16)
