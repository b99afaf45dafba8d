"""Bundled dataset for classifiers: 1200 training and 300 validation images of one object, 64 x 64 pixels."""
train_dataloader = dict(
    batch_size=32, num_workers=1, drop_last=True, collate_fn=dict(type='default_collate'),
    worker_init_fn=dict(type='skip_worker_seeding'), sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='TrainingImages', root='data/shapes/classification/train', transform=dict(
            scale=(0.6, 1.0), ratio=(0.8, 1.25), vflip=0.5, color_jitter=0.2, interpolation='bicubic')))
val_dataloader = dict(
    batch_size=32, num_workers=1, collate_fn=dict(type='default_collate'),
    worker_init_fn=dict(type='skip_worker_seeding'), sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='EvaluationImages', root='data/shapes/classification/val'))
test_dataloader = val_dataloader
