"""Runtime of all classifiers: our package, logs, checkpoints and averaged weights as in DeiT."""
custom_imports = dict(imports=['pit_downstream.training.registration'], allow_failed_imports=False)
default_hooks = dict(logger=dict(type='LoggerHook', interval=50), checkpoint=dict(
    type='CheckpointHook', interval=1, max_keep_ckpts=3))
custom_hooks = [
    dict(type='EMAHook', momentum=1 - 0.99996, update_buffers=True), dict(type='EpochSeedHook'),
    dict(type='WeightsHook')]
randomness = dict(seed=0)
