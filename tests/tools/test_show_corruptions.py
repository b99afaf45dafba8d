"""tools/show_corruptions.py: a sheet of the right size, and one sentence for bad input."""

import numpy as np
from PIL import Image

from pit_downstream.corruptions import corrupt_images


def test_contact_sheet(tool, tmp_path):
    import torch
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'cat.png')
    done = tool('show_corruptions.py', 'cat.png', '--img-size', 40, '--corruptions', 'contrast', 'fog')
    assert done.returncode == 0, done.stderr
    sheet = np.array(Image.open(tmp_path / 'cat_corrupted.png'))
    assert sheet.shape == (2 * (40 + 16), 6 * 40, 3)
    assert np.array_equal(sheet[16:56, :40], pixels)
    fog = corrupt_images(torch.from_numpy(pixels).permute(2, 0, 1)[None], 'fog', 5, ids=['cat.png'])
    assert np.array_equal(sheet[72:, 200:], fog[0].permute(1, 2, 0).numpy())


def test_bad_input_gets_one_sentence(tool, tmp_path):
    done = tool('show_corruptions.py', 'cat.png')
    assert (done.returncode, 'Traceback' in done.stderr) == (2, False)
    assert 'cat.png could not be read: [Errno 2] No such file' in done.stderr
    Image.new('RGB', (40, 40)).save(tmp_path / 'cat.png')
    (tmp_path / 'dog.png').write_text('no image')
    for flags, words in ((['dog.png'], 'dog.png could not be read: cannot identify'),
                         (['cat.png', '--output', 'nowhere/x.png'], 'in a folder that is there, got nowhere/x.png'),
                         (['cat.png', '--img-size', '8'], 'expected an integer, 32 or more')):
        done = tool('show_corruptions.py', *flags)
        assert (done.returncode, 'Traceback' in done.stderr) == (2, False) and words in done.stderr
    done = tool('show_corruptions.py', 'cat.png', '--corruptions', 'fogg')
    assert (done.returncode, 'Traceback' in done.stderr) == (2, False)
    assert "no corruption named 'fogg'; did you mean fog" in done.stderr
