"""Settings that --bundled merges into the config of a classifier: images of 64 pixels, no stochastic depth.

Classes differ in outline, so mixing and erasing are disabled. The regularizer, distillation and averaging are kept.
"""
_base_ = ['../datasets/bundled_classification.py', '../schedules/bundled_20e.py']
model = dict(
    network=dict(img_size=64, drop_path_rate=0.0), data_preprocessor=dict(mixing=None, erasing=None))
load_from, resume = None, False
default_hooks = dict(logger=dict(type='LoggerHook', interval=10))
