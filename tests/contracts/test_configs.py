"""Every detector in configs/: short, documented, consistent in itself, and able to learn and to predict."""

import itertools
from pathlib import Path

import pytest
import torch

import pit_downstream.det  # noqa: F401  before anything of mmdet's
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from mmdet.structures.mask import BitmapMasks

ROOT = Path(__file__).parents[2] / 'configs'
CONFIGS = sorted(path.name for path in ROOT.glob('*.py') if 'tools/train.py' in path.read_text())
SIZES = [(256, 320), (224, 288)]  # of the two images; enough tokens for DINO's 900 proposals


@pytest.fixture(scope='module', params=CONFIGS)
def config(request):
    return Config.fromfile(ROOT / request.param)


@pytest.fixture(scope='module')
def model(config):
    init_default_scope('mmdet')
    torch.manual_seed(0)
    backbone = {**config.model.backbone, 'init_cfg': None}  # no download
    if backbone['type'] == 'ResNet':
        backbone['zero_init_residual'] = False  # frozen at zero, without the pretrained values, it would stop gradients
    built = MODELS.build({**config.model, 'backbone': backbone})
    built.init_weights()
    return built


def sample(size, with_masks):
    boxes = torch.tensor([[10., 20., 90., 120.], [100., 40., 200., 180.], [30., 30., 60., 60.]])
    truth = InstanceData(bboxes=boxes, labels=torch.tensor([0, 1, 2]))
    if with_masks:
        masks = torch.zeros(3, *size, dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist()):
            mask[y1:y2, x1:x2] = 1
        truth.masks = BitmapMasks(masks.numpy(), *size)
    data = DetDataSample(gt_instances=truth)
    data.set_metainfo(dict(img_shape=size, ori_shape=size, scale_factor=(1., 1.), img_id=1, img_path='-'))
    return data


def batch(with_masks=False):
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in SIZES]
    return dict(inputs=images, data_samples=[sample(size, with_masks) for size in SIZES])


@pytest.mark.parametrize('name', CONFIGS)
def test_is_short_and_says_what_it_is(name):
    lines = (ROOT / name).read_text().splitlines()
    assert len(lines) <= 30
    assert f'python tools/train.py configs/{name}' in '\n'.join(lines[:6])


def test_names_our_package_and_scales_its_rate(config):
    assert 'pit_downstream.det' in config.custom_imports.imports
    assert config.auto_scale_lr.enable is False and config.auto_scale_lr.base_batch_size in (16, 32)


def roi_extractors(roi_head):
    return [roi_head.bbox_roi_extractor, *([roi_head.mask_roi_extractor] if roi_head.with_mask else [])]


def test_channels_strides_and_anchors_agree(config, model):
    if config.model.backbone.type == 'ResNet':
        pytest.skip('mmdet made this backbone and its neck for each other')
    backbone = model.backbone
    assert tuple(config.model.neck.in_channels) == backbone.out_channels
    levels = model.neck(backbone(torch.zeros(1, 3, 256, 256)))
    doubled = [backbone.out_strides[0] * 2 ** i for i in range(len(levels))]
    for head in (model.bbox_head if hasattr(model, 'bbox_head') else None, getattr(model, 'rpn_head', None)):
        if hasattr(head, 'prior_generator'):
            assert [stride[0] for stride in head.prior_generator.strides] == doubled
            assert head.prior_generator.num_levels == len(levels)
    if hasattr(model, 'num_feature_levels'):
        assert model.num_feature_levels == len(levels)
    if hasattr(model, 'roi_head'):
        for extractor in roi_extractors(model.roi_head):
            assert tuple(extractor.featmap_strides) == backbone.out_strides
            assert extractor.finest_scale == 56 * backbone.out_strides[0] / 4  # 56 belongs to stride 4 (FPN paper)


def test_learns_a_step_and_predicts(config, model):
    """Every parameter gets a gradient, too: then DistributedDataParallel needs no find_unused_parameters."""
    with_masks = 'mask_head' in config.model.get('roi_head', {})
    optimizer = build_optim_wrapper(model, config.optim_wrapper)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    data = model.train().data_preprocessor(batch(with_masks), True)
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    assert loss.isfinite() and loss > 0
    optimizer.backward(loss)
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    optimizer.step()
    still = [name for name, p in model.named_parameters() if p.requires_grad and torch.equal(before[name], p)]
    assert len(still) < 0.1 * len(before)  # biases at zero gradient, such as those of unmatched levels
    assert all(p.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        results = model.eval().test_step(batch(with_masks))
    for found in (result.pred_instances for result in results):
        assert found.bboxes.shape == (len(found.scores), 4) and found.bboxes.isfinite().all()
        assert len(found) <= 300  # no config keeps more


SLOW = {  # detector -> parts of names that learn at a tenth of the rate, as the papers' code has it
    'DETR': ['backbone'], 'DINO': ['backbone'], 'DeformableDETR': ['backbone', 'sampling_offsets', 'reference_points']}


def test_rules_of_rate_and_decay_compose(config, model):
    groups = build_optim_wrapper(model, config.optim_wrapper).optimizer.param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    rate, slow = config.optim_wrapper.optimizer.lr, SLOW.get(config.model.type, [])
    for group, parameter in itertools.chain.from_iterable(zip(itertools.repeat(g), g['params']) for g in groups):
        name = names[id(parameter)]
        bare = parameter.ndim < 2 or 'pos_embed' in name or 'cls_token' in name
        assert group['lr'] == pytest.approx(rate * (0.1 if any(part in name for part in slow) else 1.0)), name
        assert (group['weight_decay'] == 0) == bare, name


@pytest.mark.parametrize('name, sides', [
    ('retinanet_pit_ti.py', (32, 512)), ('retinanet_pit_b.py', (28, 448)), ('mask_rcnn_pit_s.py', (32, 512))])
def test_anchors_cover_the_sizes_of_mmdets_fpn_detectors(name, sides):
    """32 to 512 px (Lin et al. 2017, FPN and focal loss), or as near as PiT-B's strides come."""
    config = Config.fromfile(ROOT / name)
    generator = (config.model.get('rpn_head') or config.model.bbox_head).anchor_generator
    scale = generator.get('octave_base_scale') or generator.scales[0]
    assert (generator.strides[0] * scale, generator.strides[-1] * scale) == sides
