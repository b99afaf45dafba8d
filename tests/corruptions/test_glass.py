"""The pointer graph of glass blur against the loop that it replaces."""
import pytest
import torch

from pit_downstream.corruptions.blur import resolve_sources


def copy_sequentially(size, farthest, steps):
    """Return the result of numpy's views in `x[h, w], x[h', w'] = x[h', w'], x[h, w]`: a copy, pixel by pixel."""
    height, width = size
    names = torch.arange(height * width).view(size).tolist()
    for one_pass in steps.tolist():
        for h, row in zip(range(height - farthest, farthest, -1), one_pass, strict=True):
            for w, (dx, dy) in zip(range(width - farthest, farthest, -1), row, strict=True):
                names[h][w] = names[h + dy][w + dx]
    return torch.tensor(names).flatten()


@pytest.mark.parametrize('size', [(32, 32), (33, 47)])
@pytest.mark.parametrize('farthest, passes', [(1, 2), (2, 1), (2, 3), (3, 2), (4, 2)])
def test_same_source_for_every_pixel(size, farthest, passes):
    generator = torch.Generator().manual_seed(farthest)
    steps = torch.randint(-farthest, farthest, (3, passes, *(side - 2 * farthest for side in size), 2),
                          generator=generator)
    found = resolve_sources(size, farthest, steps)
    assert torch.equal(found, torch.stack([copy_sequentially(size, farthest, one) for one in steps]))


def test_one_long_chain():
    """Every pixel takes its right neighbor's value: the last in the visited part of the row is handed to all."""
    size, farthest = (32, 40), 2
    steps = torch.zeros(1, 1, 28, 36, 2, dtype=torch.int64)
    steps[..., 0] = 1
    found = resolve_sources(size, farthest, steps)[0].view(size)
    columns = torch.arange(40)
    assert torch.equal(found[10], 10 * 40 + torch.where((columns > 2) & (columns <= 38), 39, columns))
