"""Settings that --bundled merges into the config of a detector without settings of its own in this folder."""
_base_ = '../schedules/bundled_17e.py'
load_from, resume = None, False
default_hooks = dict(
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=3, save_optimizer=True),
    logger=dict(type='LoggerHook', interval=20))
