"""Every detector in configs/: short, documented, consistent in itself, and able to learn and to predict."""

import copy
import itertools
import re

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
from pit_downstream.backbones import DeepViT, PiT
from pit_downstream.det.data_checks import iterate_dicts
from tests.det.zoo import CONFIGS, LARGE, ROOT, read

SIZES = [(256, 320), (224, 288)]  # of the two images; enough tokens for DINO's 900 proposals


@pytest.fixture(params=CONFIGS)
def config(request):
    return read(request.param)


@pytest.fixture(scope='module', params=LARGE)
def trained(request):
    return read(request.param)


@pytest.fixture(scope='module')
def model(trained):
    config = trained
    init_default_scope('mmdet')
    torch.manual_seed(0)
    backbone = {**config.model.backbone, 'init_cfg': None}  # no download
    if backbone['type'] == 'ResNet':
        backbone['zero_init_residual'] = False  # frozen at zero, without the pretrained values, it would stop gradients
    built = MODELS.build({**copy.deepcopy(config.model), 'backbone': backbone})  # mmdet's DETRs change their config
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
def test_is_short_and_documented(name):
    lines = (ROOT / name).read_text().splitlines()
    assert len(lines) <= 30
    assert f'python tools/train.py configs/{name}' in '\n'.join(lines[:6])


@pytest.mark.parametrize('base', [
    "'./configs/retinanet_pit_ti.py'", "[__import__('pit_downstream').__path__[0] + '/configs/retinanet_pit_ti.py']"])
def test_config_in_another_folder_inherits(base, tmp_path):
    """As docs/detection.md describes: by a relative path, or from the installed package."""
    (tmp_path / 'configs').symlink_to(ROOT)
    (tmp_path / 'mine.py').write_text(f'_base_ = {base}\ntrain_cfg = dict(max_epochs=24)\n')
    config, expected = Config.fromfile(tmp_path / 'mine.py'), read('retinanet_pit_ti.py').to_dict()
    expected['train_cfg']['max_epochs'] = 24
    assert config.to_dict() == expected


def test_names_our_package_and_scales_its_rate(config):
    assert 'pit_downstream.det' in config.custom_imports.imports
    assert config.auto_scale_lr.enable is False and config.auto_scale_lr.base_batch_size in (16, 32, 128)


def test_no_image_sees_its_mates(config):
    assert config.model.data_preprocessor.type == 'PitDataPreprocessor'


@pytest.fixture(scope='module')
def maps_of():
    """The backbone of a model, and the shapes of its maps and of the neck's for an image of 256 x 320.

    On the meta device: without weights and without arithmetic. Models with the same backbone and neck share them.
    """
    known = {}

    def maps(model):
        backbone = {**model.backbone.to_dict(), 'init_cfg': None}
        key = repr((backbone, model.neck.to_dict()))
        if key not in known:
            init_default_scope('mmdet')
            with torch.device('meta'):
                body, neck = MODELS.build(backbone), MODELS.build(model.neck)
                body.eval()
                maps = body(torch.empty(1, 3, 256, 320))
                known[key] = body, [one.shape for one in maps], [one.shape for one in neck(maps)]
        return known[key]
    return maps


def test_channels_strides_and_anchors_agree(config, maps_of):
    body, maps, levels = maps_of(config.model)
    assert [shape[1] for shape in maps] == list(config.model.neck.in_channels)
    first = body.out_strides[0] if isinstance(body, (DeepViT, PiT)) else 256 // maps[config.model.neck.get(
        'start_level', 0)][2]
    doubled = [first * 2 ** i for i in range(len(levels))]
    for head in iterate_dicts([config.model.get('bbox_head'), config.model.get('rpn_head')]):
        if 'strides' in head:
            assert list(head.strides) == doubled
    if 'num_feature_levels' in config.model:
        assert config.model.num_feature_levels == len(levels)
    for part in iterate_dicts(config.model.get('roi_head')):
        if 'featmap_strides' in part:
            assert part.featmap_strides == doubled[:len(part.featmap_strides)] and len(part.featmap_strides) in (3, 4)
            assert part.get('finest_scale', 56) == 56 * first / 4  # 56 belongs to stride 4 (FPN paper)


TWINS = [(name, sibling) for name in CONFIGS for sibling in CONFIGS if name.endswith(('_r50.py', '_vit_s.py'))
         and sibling.endswith(('pit_s.py', 'deepvit_s.py', 'deepvit_16.py'))
         and re.sub('_(r50|vit_s)', '', name) == re.sub('_(pit_s|deepvit_s|deepvit_16)', '', sibling)]
OWN = {'backbone', 'in_channels', 'mean', 'std'}  # of a backbone
GEOMETRY = {'featmap_strides', 'finest_scale', 'scales', 'strides'}  # of maps that begin at another stride


def without(node, names):
    if isinstance(node, dict):
        return {key: without(value, names) for key, value in node.items() if key not in names}
    return [without(one, names) for one in node] if isinstance(node, (list, tuple)) else node


@pytest.mark.parametrize('name, sibling', TWINS)
def test_twins_share_all_but_the_backbone(name, sibling):
    """Data, schedule, optimizer, head and losses of the rows of a comparison are the same."""
    own, other = read(name), read(sibling)
    names = set(OWN)
    if 'rcnn' in name:  # PiT has no map of stride 4
        names |= GEOMETRY
    if name == 'faster_rcnn_r50.py':  # a FPN in place of ViTDet's pyramid, and no layers to decay the rate over
        names |= {'neck', 'paramwise_cfg'}
    assert without(own.to_dict(), names) == without(other.to_dict(), names)


def test_every_transformer_has_both_twins():
    rows = {re.sub('_(pit|deepvit)_.*', '', name) for name in CONFIGS if not name.endswith('bccd.py')
            and re.search('_(pit|deepvit)_', name)}
    assert {f'{row}_{twin}.py' for row in rows for twin in ('r50', 'vit_s')} <= set(CONFIGS)


def test_learns_a_step_and_predicts(trained, model):
    """Every parameter gets a gradient, too: then DistributedDataParallel needs no find_unused_parameters."""
    config = trained
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
    **dict.fromkeys(['ConditionalDETR', 'DABDETR', 'DETR', 'DINO'], ['backbone']),
    'DeformableDETR': ['backbone', 'sampling_offsets', 'reference_points']}


def test_rules_of_rate_and_decay_compose(trained, model):
    groups = build_optim_wrapper(model, trained.optim_wrapper).optimizer.param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    rate, slow = trained.optim_wrapper.optimizer.lr, SLOW.get(trained.model.type, [])
    by_layer = trained.optim_wrapper.get('paramwise_cfg', {}).get('layer_decay', 1)
    for group, parameter in itertools.chain.from_iterable(zip(itertools.repeat(g), g['params']) for g in groups):
        name = names[id(parameter)]
        bare = parameter.ndim < 2 or 'pos_embed' in name or 'cls_token' in name
        factor = 0.1 if any(part in name for part in slow) else 1.0
        if by_layer < 1 and name.startswith('backbone.'):
            layer, count = model.backbone.get_layer_depth(name, 'backbone.')
            factor *= by_layer ** (count - 1 - layer)
        assert group['lr'] == pytest.approx(rate * factor), name
        assert (group['weight_decay'] == 0) == bare, name


@pytest.mark.parametrize('name, sides', [
    ('retinanet_pit_ti.py', (32, 512)), ('retinanet_pit_b.py', (28, 448)), ('mask_rcnn_pit_s.py', (32, 512))])
def test_anchors_cover_the_sizes_of_mmdets_fpn_detectors(name, sides):
    """32 to 512 px (Lin et al. 2017, FPN and focal loss), or as near as PiT-B's strides come."""
    config = read(name)
    generator = (config.model.get('rpn_head') or config.model.bbox_head).anchor_generator
    scale = generator.get('octave_base_scale') or generator.scales[0]
    assert (generator.strides[0] * scale, generator.strides[-1] * scale) == sides
