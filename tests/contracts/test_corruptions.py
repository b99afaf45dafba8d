"""Contract of every registered corruption, custom ones included."""
import pytest
import torch

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.registry import CORRUPTIONS
from pit_downstream.corruptions import BatchRng, corrupt, corrupt_images, corrupt_severities
from pit_downstream.corruptions.base import VARIANTS

CASES = [(name, None) for name in CORRUPTIONS] + [tuple(both.split(':')) for both in VARIANTS]
SIZE = (61, 97)
GROUPS = {
    'noise': ['gaussian_noise', 'shot_noise', 'impulse_noise'],
    'blur': ['defocus_blur', 'glass_blur', 'motion_blur', 'zoom_blur'],
    'weather': ['snow', 'frost', 'fog', 'brightness'],
    'digital': ['contrast', 'elastic_transform', 'pixelate', 'jpeg_compression'],
    'extra': ['speckle_noise', 'gaussian_blur', 'spatter', 'saturate'], 'occlusion': ['occlusion']}


def random_images(count, size=SIZE):
    """Smooth colors with an edge in them: uint8 (count, 3, *size)."""
    rows, columns = (torch.linspace(0, 1, side) for side in size)
    phase = torch.arange(count * 3).view(count, 3, 1, 1)
    waves = torch.sin(3 * rows[:, None] + phase) * torch.cos(5 * columns + 2 * phase)
    waves[..., size[0] // 3:size[0] // 2, size[1] // 4:size[1] // 2] *= -1
    return ((waves + 1) * 127).to(torch.uint8)


@pytest.fixture(params=CASES, ids=lambda case: ':'.join(filter(None, case)))
def case(request):
    return request.param


def test_corruption_groups():
    groups = {group: [name for name in CORRUPTIONS if CORRUPTIONS.get_entry(name).metadata['group'] == group]
              for group in GROUPS}
    assert groups == GROUPS
    assert all(len(CORRUPTIONS.get_entry(name).metadata['strengths']) == 5
               and CORRUPTIONS.get_entry(name).metadata['source']
               for name in CORRUPTIONS)


@pytest.mark.parametrize('severity', range(1, 6))
def test_shape_dtype_and_effect(case, severity):
    name, variant = case
    images = random_images(2)
    before = images.clone()
    out = corrupt_images(images, name, severity, variant=variant)
    assert out.shape == images.shape and out.dtype == torch.uint8 and out.is_contiguous()
    assert torch.equal(images, before)
    assert not torch.equal(out, images)


def test_batched_severities_equal_single_ones(case):
    name, variant = case
    images, rng = random_images(2), BatchRng(3, ['a', 'b'])
    together = corrupt_severities(images, name, (1, 2, 3, 4, 5), rng, variant=variant)
    alone = [corrupt(images, name, severity, rng, variant=variant) for severity in range(1, 6)]
    assert torch.equal(together, torch.stack(alone))
    backwards = corrupt_severities(images, name, (5, 3, 1), rng, variant=variant)
    assert torch.equal(backwards, torch.stack([alone[4], alone[2], alone[0]]))


def test_pixels_depend_on_the_sample_alone(case):
    """Not on the batch it is in, nor on its place in there."""
    name, variant = case
    images, ids = random_images(8), [f'val/{number}' for number in range(8)]
    out = corrupt_images(images, name, 4, seed=5, ids=ids, variant=variant)
    assert torch.equal(out, corrupt_images(images, name, 4, seed=5, ids=ids, variant=variant))
    for number in (0, 5, 7):
        alone = corrupt_images(images[number:number + 1], name, 4, seed=5, ids=ids[number:number + 1], variant=variant)
        assert torch.equal(alone[0], out[number])
    mixed = [6, 2, 7]
    assert torch.equal(corrupt_images(images[mixed], name, 4, seed=5, ids=[ids[number] for number in mixed],
                                      variant=variant), out[mixed])


@pytest.mark.parametrize('size', [SIZE, (224, 224)])
def test_pixels_do_not_depend_on_the_threads(case, size):
    name, variant = case
    images, before = random_images(2, size), torch.get_num_threads()
    try:
        one, two = [], []
        for threads, out in ((1, one), (2, two)):
            torch.set_num_threads(threads)
            out.append(corrupt_severities(images, name, (1, 5), BatchRng(0, 'ab'), variant=variant))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one[0], two[0])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('size', [SIZE, (224, 224)])
def test_pixels_depend_on_the_sample_alone_on_a_gpu(case, size):
    name, variant = case
    images, ids = random_images(8, size).cuda(), range(8)
    together = corrupt_images(images, name, 4, ids=ids, variant=variant)
    for number in ids:
        alone = corrupt_images(images[number:number + 1], name, 4, ids=[number], variant=variant)
        assert torch.equal(alone[0], together[number])


@pytest.mark.parametrize('size', [(32, 32), (32, 75), (131, 40)])
def test_odd_sizes(case, size):
    name, variant = case
    images = random_images(1, size)
    out = corrupt_severities(images, name, (1, 5), BatchRng(0, [0]), variant=variant)
    assert out.shape == (2, *images.shape)


def test_black_and_white_stay_in_range(case):
    """Division by a value of 0, overflow past 255: both would show here."""
    name, variant = case
    images = torch.stack((torch.zeros(3, 40, 40), torch.full((3, 40, 40), 255))).to(torch.uint8)
    out = corrupt_severities(images, name, (1, 5), BatchRng(0, 'bw'), variant=variant)
    if CORRUPTIONS.get_entry(name).metadata['group'] == 'blur' and name != 'zoom_blur' or name in ('contrast',
                                                                                                   'pixelate'):
        assert torch.equal(out, images.expand_as(out))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_device_follows_the_images(case):
    name, variant = case
    out = corrupt_images(random_images(3).cuda(), name, 3, variant=variant)
    assert out.device.type == 'cuda' and out.shape == (3, 3, *SIZE)


@pytest.mark.parametrize('severity', [0, 6, 2.5, 'high'])
def test_severity_is_1_to_5(severity):
    with pytest.raises(ValueError, match='severity must be in 1..5, got .*. For clean images omit the corruption'):
        corrupt_images(random_images(1), 'fog', severity)


@pytest.mark.parametrize('images, words', [
    (torch.zeros(1, 3, 40, 40), r'images must be uint8 \(B, 3, H, W\) in RGB, got torch.float32 \(1, 3, 40, 40\)'),
    (torch.zeros(40, 40, 3, dtype=torch.uint8), r'got torch.uint8 \(40, 40, 3\)'),
    (torch.zeros(1, 3, 40, 31, dtype=torch.uint8), 'at least 32 pixels per side, got 40 x 31'),
])
def test_images_are_checked(images, words):
    with pytest.raises(ValueError, match=words):
        corrupt_images(images, 'contrast', 1)


def test_error_for_unknown_name_suggests_similar_ones():
    with pytest.raises(InputError, match="no corruption named 'motion'; did you mean"):
        corrupt_images(random_images(1), 'motion', 1)
    with pytest.raises(InputError, match="no variant named 'fog:hendrycks'"):
        corrupt_images(random_images(1), 'fog', 1, variant='hendrycks')


def test_one_id_per_image():
    with pytest.raises(ValueError, match='rng must have one id per image, 2, got 1'):
        corrupt_images(random_images(2), 'contrast', 1, ids=['a'])


def test_no_images():
    assert corrupt_images(random_images(0), 'fog', 1).shape == (0, 3, *SIZE)
