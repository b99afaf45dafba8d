"""Analysis of a folder of images: what is read, built, measured and written."""

import hashlib
import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from pit_downstream.attention.trace import trace_attention
from pit_downstream.backbones import DeepViT
from pit_downstream.results.records import Record
from pit_downstream.datasets.base import Preprocess, UnreadableImage
from pit_downstream.evaluation import attention_analysis as attention
from pit_downstream.evaluation.classifier import Preparation
from pit_downstream.metrics.attention import AttentionCollapse
from pit_downstream.utils.errors import InputError


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Six images of two classes, and a file that is none."""
    root = tmp_path_factory.mktemp('images')
    generator = np.random.default_rng(0)
    for i in range(6):
        path = root / 'ab'[i % 2] / f'{i}.png'
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    (root / 'a' / 'notes.txt').write_text('no image')
    return root


def test_limit_is_spread_over_the_list(folder):
    names = [path.name for path in attention.list_images(folder)]
    assert names == ['0.png', '2.png', '4.png', '1.png', '3.png', '5.png']
    assert [path.name for path in attention.list_images(folder, limit=2)] == ['0.png', '1.png']
    assert attention.list_images(folder, limit=99) == attention.list_images(folder)


def test_bundled_images_are_drawn_first(few_shapes, monkeypatch):
    asked = []
    monkeypatch.setattr(attention, 'write_shapes', lambda root: asked.append(root) or few_shapes)
    assert len(attention.list_images(attention.bundled_images())) == 6 and asked == ['data/shapes']


def test_analysis_is_the_metric_on_prepared_images(folder):
    """Prepared as the model's own timm config says: DeepViT in [-1, 1], resized and cropped at 0.9."""
    predictor = attention.build_model('vit_16', 'random', img_size=32)
    model = predictor.model
    paths = attention.list_images(folder)
    analysis = attention.analyse(predictor, paths, batch_size=4, samples=5)
    config = {**timm.data.resolve_model_data_config(model), 'input_size': (3, 32, 32)}
    assert config['mean'] == (0.5, 0.5, 0.5)
    transform = timm.data.create_transform(**config, is_training=False)
    images = torch.stack([transform(Image.open(path).convert('RGB')) for path in paths])
    metric = AttentionCollapse()
    with torch.no_grad(), trace_attention(model) as trace:
        model(images)
        metric.update(SimpleNamespace(trace=trace))
    expected = metric.compute()
    assert analysis.count == 6 and analysis.values.keys() == expected.keys()
    for name, value in expected.items():
        assert analysis.values[name] == pytest.approx(value, rel=1e-4), name
    torch.testing.assert_close(analysis.images, (images[:5] + 1) / 2)
    looked = analysis.attention['softmax']['block16']
    torch.testing.assert_close(looked, trace.maps['softmax']['block16'][:5, :, 0, 1:].mean(1).reshape(5, 2, 2))


def test_records_have_the_fields_of_record():
    values = {'softmax_similarity@block1:block2': 0.5, 'softmax_similar_blocks(threshold=0.9)@': 1.0}
    analysis = attention.Analysis(values, 6, torch.zeros(1, 3, 4, 4), {}, Preparation(Preprocess(4, None)))
    assert attention.records(analysis, model='m', dataset='d', seed=3) == [
        Record('m', 'd', 'clean', 'softmax_similarity', 0.5, 6, 3, 'block1:block2'),
        Record('m', 'd', 'clean', 'softmax_similar_blocks(threshold=0.9)', 1.0, 6, 3, '')]


def test_names_are_keys(tmp_path):
    """The digest is that of names and content, by hand."""
    root = tmp_path / 'a' / 'val'
    root.mkdir(parents=True)
    for content in (b'one', b'two'):
        (root / 'x.png').write_bytes(content)
        line = f'x.png {hashlib.sha256(content).hexdigest()[:16]}'
        files = hashlib.sha256(line.encode()).hexdigest()[:16]
        paths = attention.list_images(root)
        assert attention.dataset_text(root, paths) == f"folder(files='{files}', root='a/val')"
        assert attention.dataset_text(root, paths, limit=5) == f"folder(files='{files}', limit=5, root='a/val')"


def test_two_files_of_one_name_are_two_models(folder, tmp_path):
    for i in (1, 2):
        (tmp_path / str(i)).mkdir()
        torch.save(attention.build_model('pit_ti', 'random', seed=i).model.state_dict(), tmp_path / str(i) / 'w.pth')
    analyses = attention.analyze_models([('pit_ti', str(tmp_path / str(i) / 'w.pth')) for i in (1, 2)],
                                        attention.list_images(folder, limit=1), img_size=64)
    assert len(analyses) == 2
    assert all(re.fullmatch(r"pit_ti\(img_size=64, num_classes=1000, weights='w.pth@[0-9a-f]{16}'\)", text)
               for text in analyses)


def test_a_backbone_of_a_detector_will_do(tmp_path):
    backbone = DeepViT('16', out_strides=(8, 16, 32))
    torch.save({'state_dict': {f'backbone.{key}': value for key, value in backbone.state_dict().items()}},
               tmp_path / 'w.pth')
    model = attention.build_model('deepvit_16', str(tmp_path / 'w.pth')).model
    assert torch.equal(model.blocks[15].mlp.fc1.weight, backbone.blocks[15].mlp.fc1.weight)


def test_figures_are_not_measured_again(folder):
    assert len(attention.list_images(folder, apart_from=folder / 'a')) == 3


def test_arguments_are_in_the_name_as_for_every_tool(folder, tmp_path):
    built = attention.build_model('pit_ti(img_size=64,num_classes=4)', 'random', seed=1).model
    torch.save(built.state_dict(), tmp_path / 'w.pth')
    chosen = [('pit_ti(img_size=64,num_classes=4)', str(tmp_path / 'w.pth')), ('pit_ti', str(tmp_path / 'w.pth'))]
    analyses = attention.analyze_models(chosen, attention.list_images(folder, limit=2))
    named, plain = analyses
    assert named.startswith("pit_ti(img_size=64, num_classes=4, weights='w.pth@")
    assert plain.startswith("pit_ti(num_classes=4, weights='w.pth@")
    assert [one.images.shape[-1] for one in analyses.values()] == [64, 224]


def test_random_weights_follow_the_seed_alone():
    first = attention.build_model('pit_ti', 'random', seed=1).model.state_dict()
    torch.rand(3)
    state = torch.random.get_rng_state()
    again, other = (attention.build_model('pit_ti', 'random', seed=seed).model.state_dict() for seed in (1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first['pos_embed'], other['pos_embed'])
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize('name, built, asked', [
    ('vit_16', None, None), ('vit_16', None, 64), ('vit_16', 64, 64), ('pit_ti', None, 96), ('pit_ti', 96, None),
    ('deit_tiny_patch16_224', 64, 64)])
def test_weights_load_at_their_size(name, built, asked, tmp_path):
    """built: side of the stored position embedding; asked: --img-size. The number of classes follows the file."""
    source = timm.create_model(name, num_classes=7, **({'img_size': built} if built else {}))
    torch.save({'state_dict': {f'module.{key}': value for key, value in source.state_dict().items()}},
               tmp_path / 'w.pth')
    model = attention.build_model(name, str(tmp_path / 'w.pth'), img_size=asked).model
    state = model.state_dict()
    assert model.num_classes == 7
    assert all(torch.equal(value, state[key]) for key, value in source.state_dict().items() if key != 'pos_embed')
    assert built != asked or torch.equal(source.pos_embed, model.pos_embed)


def test_timms_pit_weights_load_into_ours(tmp_path):
    torch.save(timm.create_model('pit_ti_224', num_classes=3).state_dict(), tmp_path / 'w.pth')
    model = attention.build_model('pit_ti', str(tmp_path / 'w.pth')).model
    assert model.num_classes == 3


class Code:
    pass


@pytest.mark.parametrize('content, words', [
    (None, "found no such file"), ({'a': torch.zeros(1)}, 'found no patch_embed.proj.weight'),
    ({'model': Code()}, 'expected a checkpoint that loads without running code'),
    ([1, 2], 'expected a checkpoint'), (b'<!doctype html><title>Sign in</title>', 'expected a checkpoint'),
    (lambda: timm.create_model('vit_24', num_classes=2).state_dict(), 'expected weights of vit_16')])
def test_bad_weights_get_one_sentence(content, words, tmp_path):
    if isinstance(content, bytes):
        (tmp_path / 'w.pth').write_bytes(content)
    elif content is not None:
        torch.save(content() if callable(content) else content, tmp_path / 'w.pth')
    with pytest.raises(InputError) as error:
        attention.build_model('vit_16', str(tmp_path / 'w.pth'))
    assert words in str(error.value)


def test_other_bad_input_gets_one_sentence(folder, tmp_path):
    with pytest.raises(ValueError, match='expected --compare MODEL with --compare-weights'):
        attention.chosen_models('vit_16', None, None, 'w.pth')
    with pytest.raises(InputError, match='no published weights available for vit_16'):
        attention.build_model('vit_16')
    with pytest.raises(InputError, match="no model named 'deepvit_x'; did you mean deepvit_"):
        attention.build_model('deepvit_x')
    with pytest.raises(ValueError, match=r'got vit_16\(.* twice; give other weights'):
        attention.analyze_models([('vit_16', 'random')] * 2, [])
    with pytest.raises(ValueError, match='expected images under .*, found none'):
        attention.list_images(tmp_path)
    with pytest.raises(ValueError, match='limit is a positive number of images, got 0'):
        attention.list_images(folder, limit=0)
    with pytest.raises(ValueError, match='batch size and samples are positive, got 0 and 4'):
        attention.analyze_models([('vit_16', 'random')], [], batch_size=0)


def test_damaged_images_are_refused(tmp_path):
    """A PNG with a wrong checksum, too, whose pixels Pillow decodes."""
    (tmp_path / 'torn.jpg').write_bytes(b'\xff\xd8\xff')
    Image.new('RGB', (70, 70), 'red').save(tmp_path / 'damaged.png')
    content = bytearray((tmp_path / 'damaged.png').read_bytes())
    content[content.index(b'IEND') - 5] ^= 1  # the last byte of the checksum of the pixels
    (tmp_path / 'damaged.png').write_bytes(content)
    for name in ('torn.jpg', 'damaged.png'):
        with pytest.raises(UnreadableImage, match=name):
            attention.analyze_models([('pit_ti(img_size=64)', 'random')], [tmp_path / name])


def test_everything_is_written(folder, tmp_path):
    analyses = attention.analyze_models([('vit_16', 'random'), ('deepvit_16', 'random')],
                                        attention.list_images(folder, limit=3), img_size=32, samples=2)
    files = attention.write_analyses(analyses, tmp_path / 'out', dataset='d')
    assert [re.sub('_[0-9a-f]{16}_', '_DIGEST_', path.name) for path in files] == [
        'results.jsonl', 'similarity.png', 'profile.png',
        'attention_vit_16_img_size_32_mean_0_5_std_0_5_weights_random_DIGEST_softmax.png',
        'attention_deepvit_16_img_size_32_mean_0_5_std_0_5_weights_random_DIGEST_softmax.png',
        'attention_deepvit_16_img_size_32_mean_0_5_std_0_5_weights_random_DIGEST_reattention.png']
    lines = [json.loads(line) for line in files[0].read_text().splitlines()]
    assert len(lines) == sum(len(analysis.values) for analysis in analyses.values())
    assert {line['model'] for line in lines} == set(analyses) and {line['count'] for line in lines} == {3}
    assert all(Image.open(path).size[0] > 300 for path in files[1:])
    attention.write_analyses(analyses, tmp_path / 'out', dataset='d')
    assert len(files[0].read_text().splitlines()) == len(lines)  # a second time adds nothing
    grown = {text: replace(analysis, count=4) for text, analysis in analyses.items()}
    with pytest.raises(ValueError, match=r'on 3 images of d\(.*size=32\), got 4; choose another folder'):
        attention.write_analyses(grown, tmp_path / 'out', dataset='d')
    said = attention.summary(*list(analyses.items())[1])
    assert said.startswith('deepvit_16(img_size=32, mean=0.5, std=0.5, weights=')
    assert ', 3 images: similar blocks (threshold=0.9): softmax 15, ' in said
