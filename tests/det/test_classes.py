"""Classes of detection data: by name in any order, heads and checkpoints that do not fit, VOC's names."""

import argparse
import functools
import http.server
import itertools
import json
import re
import shlex
import shutil
import threading

import pytest
import torch
from mmdet.registry import DATASETS, METRICS
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope

import pit_downstream.det  # noqa: F401
from pit_downstream.det import classes
from pit_downstream.det.annotation_files import check_annotations
from pit_downstream.utils.config_paths import find_config
from tests.det import scenes, tiny

LOADER = dict(num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False))
NAMES = ('cup', 'bowl', 'jug')


def match_classes(cfg, loaders):
    classes.match_classes(cfg, loaders, check_annotations(cfg, loaders))


def write_coco(path, order, ids=(7, 3, 5), boxes=2):
    """A file with the categories of NAMES that are in `order`, and `boxes` objects of each in one image."""
    number = dict(zip(NAMES, ids))
    annotations = [
        {'id': 1 + len(NAMES) * k + label, 'image_id': 1, 'category_id': number[name], 'iscrowd': 0, 'area': 400,
         'bbox': [30 * label, 30 * k, 20, 20]} for k in range(boxes) for label, name in enumerate(NAMES)
        if label in order]
    path.write_text(json.dumps({
        'images': [{'id': 1, 'file_name': 'a.png', 'width': 100, 'height': 100}], 'annotations': annotations,
        'categories': [{'id': number[NAMES[k]], 'name': NAMES[k]} for k in order]}))
    return str(path)


@pytest.mark.parametrize('order', list(itertools.permutations(range(3))))
def test_labels_of_datasets_and_metrics_follow_the_names_in_any_order_of_the_file(tmp_path, order):
    """By hand: object k of a class is at x = 30 * label. Both cups, one bowl, no jug found: AP 1, 0.5050 and 0."""
    path = write_coco(tmp_path / 'a.json', order)
    cfg = Config(dict(
        train_dataloader=dict(dataset=dict(type='RepeatDataset', times=1, dataset=dict(
            type='CocoDataset', ann_file=path, data_prefix=dict(img=''), metainfo=dict(classes=NAMES),
            pipeline=[]))),
        val_evaluator=dict(type='CocoMetric', ann_file=path, classwise=True), model={}))
    cfg.val_dataloader = dict(dataset=dict(cfg.train_dataloader.dataset.dataset, test_mode=True))
    init_default_scope('mmdet')
    match_classes(cfg, ('train_dataloader', 'val_dataloader'))
    for dataset in (cfg.train_dataloader.dataset, cfg.val_dataloader.dataset):
        info = DATASETS.build(dataset).get_data_info(0)
        assert [one['bbox_label'] for one in info['instances']] == [one['bbox'][0] // 30 for one in info['instances']]
    metric = METRICS.build(cfg.val_evaluator)
    metric.dataset_meta = {'classes': NAMES}
    found = [(0, 0), (0, 30), (1, 0)]
    metric.process({}, [{'img_id': 1, 'ori_shape': (100, 100), 'pred_instances': {
        'bboxes': torch.tensor([[30 * label, top, 30 * label + 20, top + 20] for label, top in found]).float(),
        'labels': torch.tensor([label for label, _ in found]), 'scores': torch.tensor([.9, .8, .7])}}])
    values = metric.evaluate(1)
    half = 51 / 101  # COCO's 101 recalls: those up to 0.5 have precision 1
    assert values['coco/bbox_mAP'] == pytest.approx((1 + half) / 3, abs=1e-3)
    assert [values[f'coco/{name}_precision'] for name in NAMES] == pytest.approx([1, half, 0], abs=1e-3)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A checkpoint of the oracle as mmengine saves it."""
    path = tmp_path_factory.mktemp('weights') / 'epoch_1.pth'
    torch.save({'meta': {'dataset_meta': {'classes': scenes.CLASSES}}, 'state_dict': {
        'bbox_head.weight': torch.zeros(2, 1), 'bbox_head.bias': torch.zeros(2)}}, path)
    return path


@pytest.fixture
def written(tmp_path):
    """written(**changes): the path of a config of the oracle on the images of scenes; changes: of their COCO file."""
    folder = scenes.coco_folder(tmp_path / 'data')

    def write(classes=scenes.CLASSES, model=None, **changes):
        path = folder / 'annotations.json'
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
        cfg = scenes.coco_config(folder)
        cfg.test_dataloader.update(LOADER)
        cfg.test_dataloader.dataset.metainfo.classes = classes
        cfg.merge_from_dict(dict(
            custom_imports=dict(imports=['pit_downstream.det', 'tests.det.oracle']), default_scope='mmdet',
            model=model or dict(type='Oracle', num_classes=len(classes)), test_cfg=dict(type='TestLoop')))
        cfg.val_dataloader, cfg.val_evaluator = cfg.test_dataloader, cfg.test_evaluator
        cfg.val_cfg = dict(type='ValLoop')
        cfg.train_dataloader = dict(cfg.test_dataloader, dataset=dict(cfg.test_dataloader.dataset, test_mode=False))
        cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1, val_interval=1)
        cfg.optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=.1))
        cfg.dump(tmp_path / 'config.py')
        return tmp_path / 'config.py'
    return write


CATEGORIES = [{'id': 7, 'name': 'cup'}, {'id': 3, 'name': 'bowl'}]


@pytest.mark.parametrize('order', [1, -1])
def test_tools_give_one_ap_for_any_order(run_tool, written, trained, tmp_path, order):
    config = written(categories=CATEGORIES[::order])
    done = run_tool('test.py', config, trained, '--work-dir', tmp_path / 'work')
    assert done.code == 0 and 'coco/bbox_mAP 1.000' in done.out, done.err
    done = run_tool('eval_coco_c.py', '--model', config, '--weights', trained, '--corruptions', 'none',
                    '--output-dir', tmp_path / 'store', '--json', tmp_path / 'out.json')
    assert done.code == 0 and re.search(r'\nAP +1.0000', done.out), done.err


MODEL = ('--model', 'CONFIG', '--weights', 'WEIGHTS')
TOOLS = {
    'train.py': ('CONFIG',), 'test.py': ('CONFIG', 'WEIGHTS'), 'eval_coco_c.py': (*MODEL, '--corruptions', 'none'),
    'eval_adversarial.py': (*MODEL, '--attacks', 'fgsm'), 'show_detections.py': (*MODEL, '--output', 'a.png'),
    'train_patch.py': (*MODEL, '--output-dir', 'patch')}


@pytest.mark.parametrize('tool', TOOLS)
@pytest.mark.parametrize('changes, words', [
    (dict(categories=[{'id': 7, 'name': 'cup'}, {'id': 3, 'name': 'bowll'}]), ('bowl (', 'bowll', 'annotations.json')),
    (dict(model=dict(type='Oracle', num_classes=3)), ('model.num_classes is 3', 'model.num_classes=2'))])
def test_tools_refuse_misspelled_classes_and_unfit_heads(run_tool, written, trained, tmp_path, tool, changes, words):
    paths = {'CONFIG': written(**changes), 'WEIGHTS': trained}
    done = run_tool(tool, *(paths.get(flag, flag) for flag in TOOLS[tool]))
    assert done.code == 2 and not done.out
    assert all(word in done.err for word in words), done.err
    assert not (tmp_path / 'work_dirs').exists()


def test_other_categories_are_left_out_with_their_number(written, caplog):
    """Two bowls and a crowd of them; a head for the cups alone fits."""
    cfg = Config.fromfile(written(classes=('cup',)))
    match_classes(cfg, ('test_dataloader',))
    line, = [line for line in caplog.messages if 'annotations.json' in line]
    assert '3 objects' in line and line.endswith(': bowl')


WEIGHT, BIAS = 'bbox_head.weight', 'bbox_head.bias'


@pytest.mark.parametrize('tool', ['test.py', 'eval_coco_c.py'])
@pytest.mark.parametrize('state, names, words', [
    ({WEIGHT: (2, 1)}, None, (BIAS,)), ({}, None, ()), ({'head.fc.weight': (2, 1)}, None, (WEIGHT,)),
    ({WEIGHT: (3, 1), BIAS: (3,)}, None, (WEIGHT,)),
    ({WEIGHT: (2, 1), BIAS: (2,)}, ('bowl', 'cup'), ('bowl, cup', 'order', 'cup, bowl')),
    ({WEIGHT: (2, 1), BIAS: (2,)}, ('cup', 'plate'), ('cup, plate', 'cup, bowl'))])
def test_tools_refuse_checkpoints_that_do_not_fit(run_tool, written, tmp_path, tool, state, names, words):
    """mmengine keeps random weights where tensors are missing or have other shapes."""
    path = tmp_path / 'other.pth'
    torch.save({'meta': {'dataset_meta': {'classes': names}}, 'state_dict': {
        name: torch.zeros(shape) for name, shape in state.items()}}, path)
    done = run_tool(tool, *(('--model', written(), '--weights', path, '--corruptions', 'none')
                            if tool == 'eval_coco_c.py' else (written(), path, '--work-dir', tmp_path / 'work')))
    assert done.code == 2 and 'bbox_mAP' not in done.out
    assert all(word in done.err for word in (*words, 'other.pth')), done.err


def test_a_run_on_other_classes_is_not_resumed(run_tool, written, tmp_path):
    path = tmp_path / 'epoch_1.pth'
    torch.save({'meta': {'epoch': 1, 'iter': 2, 'dataset_meta': {'classes': ('bowl', 'cup')}}, 'state_dict': {
        WEIGHT: torch.zeros(2, 1), BIAS: torch.zeros(2)}}, path)
    done = run_tool('train.py', written(), '--work-dir', tmp_path / 'work', '--resume', path)
    assert done.code == 2 and 'bowl, cup' in done.err and 'epoch_1.pth' in done.err


@pytest.mark.parametrize('change, words', [
    ({'train_dataloader.dataset.metainfo.classes': ('bowl', 'cup')}, ('train_dataloader.dataset: bowl, cup',)),
    ({'val_dataloader.dataset.metainfo.classes': 'cup'}, ("('cup',)",)),
    ({'val_dataloader.dataset.metainfo.classes': ('cup', 'cup')}, ('cup twice',)),
    ({'val_evaluator.ann_file': 'OTHER'}, ('other.json', 'bowl'))])
def test_datasets_and_evaluators_that_disagree_are_refused(written, tmp_path, change, words):
    cfg = Config.fromfile(written())
    other = write_coco(tmp_path / 'other.json', (0, 2))
    cfg.merge_from_dict({key: other if value == 'OTHER' else value for key, value in change.items()})
    with pytest.raises(ValueError) as refused:
        match_classes(cfg, ('train_dataloader', 'val_dataloader'))
    assert all(word in str(refused.value) for word in words)


def test_advice_for_custom_classes_works_as_printed(written):
    """With COCO's 80 classes in the config, the error names the options that train on the file's two."""
    cfg = Config.fromfile(written())
    for name in ('train_dataloader', 'val_dataloader'):
        cfg[name].dataset.pop('metainfo')
    cfg.model = tiny.mask_rcnn()
    cfg.model.roi_head.mask_head.pop('num_classes')  # FCNMaskHead's default is 80
    loaders = ('train_dataloader', 'val_dataloader')
    with pytest.raises(ValueError, match='categories: cup, bowl') as refused:
        match_classes(cfg, loaders)
    options = DictAction(['--cfg-options'], 'cfg_options')
    chosen = argparse.Namespace()
    options(None, chosen, shlex.split(str(refused.value).partition('--cfg-options ')[2]))
    assert len(chosen.cfg_options) == 4
    cfg.merge_from_dict(chosen.cfg_options)
    match_classes(cfg, loaders)


@pytest.mark.parametrize('name, expected', [
    ('mask_rcnn_pit_s', {'roi_head.bbox_head', 'roi_head.mask_head'}),
    ('cascade_mask_rcnn_pit_s', {*(f'roi_head.bbox_head.{k}' for k in range(3)), 'roi_head.mask_head'}),
    ('mmdet::htc/htc_r50_fpn_1x_coco', {*(f'roi_head.{head}_head.{k}' for k in range(3) for head in ('bbox', 'mask'))}),
    ('mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco', {'panoptic_head', 'panoptic_fusion_head'}),
    ('mmdet::grounding_dino/grounding_dino_swin-t_finetune_16xb2_1x_coco', set())])
def test_heads_are_all_found_and_no_others(name, expected):
    model = Config.fromfile(find_config(name + '.py' if '::' in name else f'configs/{name}.py')).model
    assert {path.rpartition('.')[0].removeprefix('model.') for path, _ in classes.find_heads(model)} == expected
    assert {number for _, number in classes.find_heads(model)} <= {80}


@pytest.mark.parametrize('names, words', [
    (('bowl', 'cup'), None), (('cup',), '3 objects of'), (('cup', 'bowls'), 'bowl; no object has the class bowls'),
    (('cups', 'bowls'), ValueError)])
def test_names_in_voc_files_are_counted(tmp_path, caplog, names, words):
    """A VOC dataset lists no categories: names of objects that are no class are reported, and refused if all are."""
    cfg = scenes.voc_config(scenes.voc_folder(tmp_path / 'data'))
    cfg.test_dataloader.dataset.metainfo.classes = names
    cfg.model = dict(bbox_head=dict(num_classes=len(names)))
    if words is ValueError:
        with pytest.raises(ValueError, match='cups, bowls .names: cup, bowl'):
            match_classes(cfg, ('test_dataloader',))
        return
    match_classes(cfg, ('test_dataloader',))
    lines = [line for line in caplog.messages if 'test.txt' in line]
    assert lines == [] if words is None else len(lines) == 1 and words in lines[0]


@pytest.mark.parametrize('content', [None, '<annotation><object><name>cup</na', 'no XML'])
def test_missing_or_malformed_xml_file_is_refused(tmp_path, content):
    folder = scenes.voc_folder(tmp_path / 'data')
    file = folder / 'VOC2007/Annotations/12.xml'
    file.unlink() if content is None else file.write_text(content)
    cfg = scenes.voc_config(folder)
    with pytest.raises(ValueError, match='VOC2007/Annotations/12.xml'):
        match_classes(cfg, ('test_dataloader',))


def test_remote_annotation_file_is_matched_by_name(tmp_path):
    """mmengine reads files from URLs."""
    write_coco(tmp_path / 'a.json', (2, 0, 1))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        root = f'http://127.0.0.1:{server.server_port}/'
        for names in (('cup', 'bowl'), ('cup', 'plate')):
            cfg = Config(dict(model={}, test_dataloader=dict(dataset=dict(
                type='CocoDataset', data_root=root, ann_file='a.json', metainfo=dict(classes=names)))))
            if names == ('cup', 'bowl'):
                match_classes(cfg, ('test_dataloader',))
                continue
            with pytest.raises(ValueError, match=f'{root}a.json has no .* plate .categories: jug, cup, bowl'):
                match_classes(cfg, ('test_dataloader',))
        server.shutdown()


def test_panoptic_files_are_left_to_mmdet(tmp_path):
    """Their objects are in segments_info: an annotation has no category_id."""
    path = tmp_path / 'panoptic.json'
    path.write_text(json.dumps({
        'images': [{'id': 1, 'file_name': 'a.jpg', 'width': 8, 'height': 8}],
        'annotations': [{'image_id': 1, 'file_name': 'a.png', 'segments_info': [{'id': 1, 'category_id': 1}]}],
        'categories': [{'id': 1, 'name': 'cup', 'isthing': 1}]}))
    cfg = Config(dict(model={}, test_dataloader=dict(dataset=dict(
        type='CocoPanopticDataset', ann_file=str(path), metainfo=dict(classes=('cup',))))))
    match_classes(cfg, ('test_dataloader',))
    assert cfg.test_dataloader.dataset.type == 'CocoPanopticDataset'


def test_an_evaluator_of_other_images_is_named_in_a_warning(written, tmp_path, caplog):
    cfg = Config.fromfile(written())
    other = shutil.copy(cfg.test_evaluator.ann_file, tmp_path / 'all.json')
    match_classes(cfg, ('test_dataloader',))
    assert 'count as missed' not in caplog.text
    cfg.test_evaluator.ann_file = str(other)
    match_classes(cfg, ('test_dataloader',))
    assert str(other) in caplog.text and 'count as missed' in caplog.text


@pytest.mark.parametrize('text, words', [
    ("_base_ = 'BASE'\nmodel = dict(roi_head=dict(bbox_head=dict(num_classes=2)))", 'bbox_head.0.num_classes=2'),
    ("_base_ = './missing.py'", 'missing.py')])
def test_a_config_that_does_not_fit_its_base_is_refused(run_tool, tmp_path, text, words):
    base = find_config('mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py')
    (tmp_path / 'custom.py').write_text(text.replace('BASE', str(base)))
    done = run_tool('train.py', 'custom.py')
    assert done.code == 2 and words in done.err.splitlines()[-1] and 'custom.py' in done.err
