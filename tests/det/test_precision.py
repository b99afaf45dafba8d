"""bfloat16 in training and evaluation, beside float32, for a tiny detector of every family."""

from types import SimpleNamespace

import pytest
import torch

import pit_downstream.det  # noqa: F401
from mmengine.config import Config
from mmengine.registry import HOOKS
from pit_downstream.det import config_utils
from pit_downstream.det.annotations import set_ground_truth
from pit_downstream.det.losses import compute_losses, has_mask_losses
from pit_downstream.det.precision import set_bf16, use_bf16
from tests.det import scenes, tiny


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return scenes.coco_folder(tmp_path_factory.mktemp('precision') / 'data')


@pytest.fixture(scope='module', params=tiny.FAMILIES)
def detector(request, folder):
    predictor, samples = tiny.detector(folder, request.param)
    batch = predictor.collate([samples[0]])
    return predictor, batch


def compute_loss(predictor, batch, *, kind=''):
    """As training sums it up; kind: of those losses alone that have this word in their name."""
    (_, data), = predictor.model_inputs(batch.images, batch)
    set_ground_truth(data['data_samples'][0], batch.samples[0].target.instances, predictor.device,
              masks=has_mask_losses(predictor.model))
    losses = compute_losses(predictor.model, data, seed=0)
    return predictor.model.parse_losses({name: value for name, value in losses.items() if kind in name})[0]


def test_losses_and_predictions_agree(detector):
    """To bfloat16's 8 bits, through some ten layers; what follows proposals is another sum where one differs."""
    predictor, batch = detector
    kind = 'rpn' if getattr(predictor.model, 'with_rpn', False) else ''
    plain, found = compute_loss(predictor, batch, kind=kind), predictor.predict(batch.images, batch).predictions[0]
    forward = predictor.model.forward
    try:
        use_bf16(predictor.model)
        half, seen = compute_loss(predictor, batch, kind=kind), predictor.predict(batch.images, batch).predictions[0]
    finally:
        predictor.model.forward = forward
    assert half.isfinite() and not torch.equal(half, plain)
    torch.testing.assert_close(half.float(), plain, rtol=0.05, atol=0.05)
    for name in ('bboxes', 'scores'):
        assert seen.pred_instances[name].dtype == torch.float32
    best = min(3, len(found.pred_instances), len(seen.pred_instances))
    torch.testing.assert_close(seen.pred_instances.scores[:best], found.pred_instances.scores[:best], rtol=0, atol=0.1)


def test_gradients_stay_float32(detector):
    predictor, batch = detector
    weights = [p.requires_grad_() for p in predictor.model.parameters()]
    forward = predictor.model.forward
    try:
        use_bf16(predictor.model)
        compute_loss(predictor, batch).backward()
    finally:
        predictor.model.forward = forward
    grads = [p.grad for p in weights if p.grad is not None]
    assert grads and all(grad.dtype == torch.float32 and grad.isfinite().all() for grad in grads)
    predictor.model.zero_grad()
    predictor.model.requires_grad_(False)


def test_the_hook_reaches_the_model_inside_a_wrapper(detector):
    predictor, _ = detector
    hook, forward = HOOKS.build(dict(type='Bf16Hook')), predictor.model.forward
    hook.before_run(SimpleNamespace(model=predictor.model))
    assert predictor.model.forward is not forward and predictor.model.forward.__wrapped__ == forward
    del predictor.model.forward


def test_the_flag_replaces_what_trained_before():
    cfg = Config(dict(
        optim_wrapper=dict(type='AmpOptimWrapper', loss_scale='dynamic', dtype='float16', optimizer=dict(type='SGD')),
        custom_hooks=[dict(type='EMAHook')]))
    set_bf16(cfg)
    assert cfg.optim_wrapper.to_dict() == dict(type='OptimWrapper', optimizer=dict(type='SGD'))
    assert [hook.type for hook in cfg.custom_hooks] == ['EMAHook', 'Bf16Hook']


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_float16_needs_a_gpu(tmp_path):
    flags = SimpleNamespace(amp='fp16', auto_scale_lr=False, resume=None)
    with pytest.raises(ValueError, match='--amp fp16 needs a GPU, and there is none; leave it out, or take bf16'):
        config_utils.set_training(Config(dict(model=dict(), optim_wrapper=dict(), work_dir=str(tmp_path))), flags)
