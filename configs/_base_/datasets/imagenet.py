"""ImageNet at batch 64 per GPU, with the augmentation of DeiT (facebookresearch/deit, main.py)."""
loader = dict(num_workers=8, collate_fn=dict(type='default_collate'),
              worker_init_fn=dict(type='skip_worker_seeding'))
train_dataloader = dict(
    batch_size=64, drop_last=True, sampler=dict(type='DefaultSampler', shuffle=True), dataset=dict(
        type='TrainingImages', root='data/imagenet/train', transform=dict(
            scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), hflip=0.5, auto_augment='rand-m9-mstd0.5-inc1', color_jitter=0.4,
            interpolation='bicubic')), **loader)
val_dataloader = dict(
    batch_size=96, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='EvaluationImages', root='data/imagenet/val'), **loader)
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type='TopAccuracy', topk=(1, 5))
