"""tools/analyze_attention.py from the command line: what it writes and says, on drawn and on real images."""

import json
import os
import re
from pathlib import Path

import pytest


def test_two_models_on_the_bundled_images(tool, few_shapes, tmp_path):
    done = tool('analyze_attention.py', '--model', 'vit_16', '--compare', 'deepvit_16', '--data',
                few_shapes / 'classification/val', '--img-size', '32', '--limit', '3', '--output-dir', 'out',
                '--weights', 'random', '--compare-weights', 'random')
    assert done.returncode == 0, done.stderr
    assert done.stderr == ''  # no progress bar: this is no terminal
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"vit_16\(img_size=32, mean=0.5, std=0.5, weights='random@[0-9a-f]{16}'\) on folder\(.*\), "
                        '3 images', lines[0])
    assert lines[4].split() == ['clean', 'softmax', 'all', '15', '0.9375']
    assert lines[6].startswith('deepvit_16(img_size=32, mean=0.5, std=0.5, weights=')
    assert lines[1] == lines[7] and 'crop of 32 x 32, mean 0.5 0.5 0.5' in lines[1]
    assert [line.split()[1] for line in lines[10:12]] == ['softmax', 'Re-attention']
    assert lines[12] == 'out/similarity.png' and all((tmp_path / line).is_file() for line in lines[12:])
    records = [json.loads(line) for line in (tmp_path / 'out/results.jsonl').read_text().splitlines()]
    [dataset] = {record['dataset'] for record in records}
    assert re.fullmatch(r"folder\(files='[0-9a-f]{16}', images=\d+, interpolation='bicubic', limit=3, resize=35, "
                        r"root='classification/val', size=32\)", dataset)
    assert {record['condition'] for record in records} == {'clean'}


def test_bad_input_gets_one_sentence(tool, few_shapes):
    done = tool('analyze_attention.py', '--model', 'resnet18', '--data', few_shapes / 'val', '--output-dir', 'out',
                '--weights', 'random')
    assert (done.returncode, done.stdout) == (2, '')
    assert done.stderr == ("expected PiT, DeepViT or one of timm's ViT and DeiT, got ResNet, which has no patches and "
                           'transformer blocks\n')


def test_real_images(tool):
    real = os.environ.get('PIT_DOWNSTREAM_REAL_DATA')
    if not real:
        pytest.skip('PIT_DOWNSTREAM_REAL_DATA is not set')
    done = tool('analyze_attention.py', '--model', 'pit_ti', '--data', Path(real).resolve() / 'imagenet_sample',
                '--limit', '3', '--output-dir', 'out', '--weights', 'random')
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("pit_ti(weights='random@")
    assert ', 3 images\n' in done.stdout and 'softmax  stage1' in done.stdout
