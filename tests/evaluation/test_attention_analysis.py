"""Attention analysis of a folder of images: models, numbers, figures, resume."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import pit_downstream as pit
from pit_downstream.attention.trace import trace_attention
from pit_downstream.backbones import DeepViT
from pit_downstream.evaluation import attention_analysis as attention
from pit_downstream.evaluation import evaluator
from pit_downstream.evaluation.inputs import open_unlabeled_images
from pit_downstream.metrics.attention import AttentionCollapse
from pit_downstream.results.condition import CLEAN
from pit_downstream.utils.errors import InputError
from tests.metrics.collect import collect, compute


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


def open_images(predictor, folder, **options):
    return open_unlabeled_images(predictor, folder, **options)


def test_images_at_any_depth_are_used(folder):
    predictor = attention.build_model('pit_ti', 'random', img_size=64)
    assert open_images(predictor, folder).ids == ['a/0.png', 'a/2.png', 'a/4.png', 'b/1.png', 'b/3.png', 'b/5.png']
    assert open_images(predictor, folder, limit=2).ids == ['a/0.png', 'b/1.png']
    assert len(open_images(predictor, folder, limit=99)) == 6
    assert len(open_images(predictor, folder, exclude=folder / 'a')) == 3


def test_numbers_are_the_metric_on_prepared_images(folder):
    """Prepared as the model's own timm config says: DeepViT in [-1, 1], resized and cropped at 0.9."""
    predictor = attention.build_model('vit_16', 'random', img_size=32)
    model = predictor.model
    results = pit.evaluate(predictor, 'attention', data=folder, batch_size=4)
    config = {**timm.data.resolve_model_data_config(model), 'input_size': (3, 32, 32)}
    assert config['mean'] == (0.5, 0.5, 0.5)
    transform = timm.data.create_transform(**config, is_training=False)
    samples = open_images(predictor, folder)
    images = torch.stack([transform(Image.open(folder / id).convert('RGB')) for id in samples.ids])
    with torch.no_grad(), trace_attention(model) as trace:
        model(images)
        metric = AttentionCollapse()
        expected = compute(metric, collect([metric], [(SimpleNamespace(trace=trace), None, np.arange(6))], 6))
    values = attention.get_values(results)
    assert values.keys() == expected.keys() and {record.count for record in results.records} == {6}
    for name, value in expected.items():
        assert values[name] == pytest.approx(value, rel=1e-4), name
    shown, maps = attention.trace_images(predictor, samples)
    torch.testing.assert_close(shown, (images[:4] + 1) / 2)
    torch.testing.assert_close(maps['softmax']['block16'],
                               trace.maps['softmax']['block16'][:4, :, 0, 1:].mean(1).reshape(4, 2, 2))


def test_attention_is_stored_per_image_and_resumes(folder, tmp_path, monkeypatch):
    benchmark = pit.benchmarks.Attention(corruptions=('brightness(severity=3)',))
    predictor = attention.build_model('deepvit_16', 'random', img_size=32)
    whole = pit.evaluate(predictor, benchmark, data=folder, output_dir=tmp_path / 'whole', batch_size=2)
    assert {record.condition for record in whole.records} == {'clean', 'brightness(severity=3)'}
    monkeypatch.setattr(evaluator, 'BLOCK', 2)
    parts = tmp_path / 'parts'
    pit.evaluate(predictor, benchmark, data=folder, output_dir=parts, batch_size=2)
    lines = (parts / 'outcomes.jsonl').read_text().splitlines(keepends=True)
    (parts / 'results.jsonl').unlink()
    (parts / 'outcomes.jsonl').write_text(''.join(lines[:2]) + lines[3][:99])
    resumed = pit.evaluate(predictor, benchmark, data=folder, output_dir=parts, batch_size=2)
    assert resumed.records == whole.records
    ranks = resumed.get_outcomes(CLEAN, 'token_rank@block3')
    assert len(ranks) == 6 and ranks.mean() == pytest.approx(resumed.table[CLEAN, 'token_rank', 'block3'], rel=1e-12)


def test_two_files_of_one_name_are_two_models(tmp_path):
    names = set()
    for i in (1, 2):
        (tmp_path / str(i)).mkdir()
        torch.save(attention.build_model('pit_ti', 'random', seed=i).model.state_dict(), tmp_path / str(i) / 'w.pth')
        names.add(attention.build_model('pit_ti', str(tmp_path / str(i) / 'w.pth'), img_size=64).name)
    assert len(names) == 2
    assert all(re.fullmatch(r"pit_ti\(img_size=64, num_classes=1000, weights='w.pth@[0-9a-f]{16}'\)", name)
               for name in names)


def test_a_backbone_of_a_detector_will_do(tmp_path):
    backbone = DeepViT('16', out_strides=(8, 16, 32))
    torch.save({'state_dict': {f'backbone.{key}': value for key, value in backbone.state_dict().items()}},
               tmp_path / 'w.pth')
    model = attention.build_model('deepvit_16', str(tmp_path / 'w.pth')).model
    assert torch.equal(model.blocks[15].mlp.fc1.weight, backbone.blocks[15].mlp.fc1.weight)


def test_arguments_are_in_the_name_as_for_every_tool(tmp_path):
    built = attention.build_model('pit_ti(img_size=64,num_classes=4)', 'random', seed=1).model
    torch.save(built.state_dict(), tmp_path / 'w.pth')
    named, plain = (attention.build_model(name, str(tmp_path / 'w.pth'))
                    for name in ('pit_ti(img_size=64,num_classes=4)', 'pit_ti'))
    assert named.name.startswith("pit_ti(img_size=64, num_classes=4, weights='w.pth@") and named.view.size == 64
    assert plain.name.startswith("pit_ti(num_classes=4, weights='w.pth@") and plain.view.size == 224


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


def test_other_bad_input_gets_one_sentence(tmp_path):
    with pytest.raises(InputError, match='no published weights available for vit_16'):
        attention.build_model('vit_16')
    with pytest.raises(InputError, match="no model named 'deepvit_x'; did you mean deepvit_"):
        attention.build_model('deepvit_x')
    predictor = attention.build_model('pit_ti', 'random', img_size=64)
    with pytest.raises(InputError, match='no images under'):
        open_images(predictor, tmp_path)


def test_damaged_images_are_refused(tmp_path):
    """A PNG with a wrong checksum, too, whose pixels Pillow decodes."""
    (tmp_path / 'torn.jpg').write_bytes(b'\xff\xd8\xff')
    Image.new('RGB', (70, 70), 'red').save(tmp_path / 'damaged.png')
    content = bytearray((tmp_path / 'damaged.png').read_bytes())
    content[content.index(b'IEND') - 5] ^= 1  # the last byte of the checksum of the pixels
    (tmp_path / 'damaged.png').write_bytes(content)
    predictor = attention.build_model('pit_ti', 'random', img_size=64)
    with pytest.raises(InputError, match='2 images are unreadable: damaged.png .*torn.jpg'):
        pit.evaluate(predictor, 'attention', data=tmp_path)


def test_figures_of_two_models(folder, tmp_path):
    predictors = [attention.build_model(name, 'random', img_size=32) for name in ('vit_16', 'deepvit_16')]
    results = [pit.evaluate(predictor, 'attention', data=folder, limit=3) for predictor in predictors]
    samples = [open_images(predictor, folder, limit=3) for predictor in predictors]
    files = attention.draw_attention(results, predictors, samples, tmp_path)
    assert [re.sub('_[0-9a-f]{16}_', '_DIGEST_', path.name) for path in files] == [
        'similarity.png', 'profile.png',
        'attention_vit_16_img_size_32_mean_0_5_std_0_5_weights_random_DIGEST_softmax.png',
        'attention_deepvit_16_img_size_32_mean_0_5_std_0_5_weights_random_DIGEST_softmax.png',
        'attention_deepvit_16_img_size_32_mean_0_5_std_0_5_weights_random_DIGEST_reattention.png']
    assert all(Image.open(path).size[0] > 300 for path in files)
    assert 'softmax' in str(results[1]) and 'Re-attention' in str(results[1]) and 'Re-attention' not in str(results[0])
