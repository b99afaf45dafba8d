"""Streaming Re-attention against the formula with the maps in memory, in the words of the official code."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from pit_downstream.backbones.deepvit import ReAttention
from pit_downstream.backbones.deepvit import Streaming
from tests.tolerances import assert_near

pytestmark = pytest.mark.numeric


def naive(module, q, k, v, *, ratio=1.0, mask=1.0):
    """norm(conv(softmax(q k^T / sqrt(d)))) * scale @ v, with `mask` for the dropout after the softmax."""
    attention = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1) * mask
    return module.var_norm(module.reatten_matrix(attention * ratio)) / ratio * module.reatten_scale @ v


def built(heads, head_dim, *, train=False, dtype=torch.float64, **kwargs):
    """A module whose norm has no value at its default."""
    torch.manual_seed(0)
    module = ReAttention(heads * head_dim, heads, **kwargs).to(dtype).train(train)
    norm = module.var_norm
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(tensor)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    return module


def tokens(heads, head_dim, *, batch=2, count=23, dtype=torch.float64):
    return [torch.randn(batch, heads, count, head_dim, dtype=dtype, requires_grad=True) for _ in range(3)]


def results(attend, module, qkv):
    """{name: tensor}: the output, every gradient, and the norm's buffers after one step."""
    out = attend(*qkv)
    wanted = {**dict(zip('qkv', qkv)), **own_parameters(module)}
    generator = torch.Generator().manual_seed(1)
    grads = torch.autograd.grad(out, wanted.values(), torch.randn(out.shape, generator=generator).to(out))
    return {'out': out, **dict(zip(wanted, grads)), **dict(module.var_norm.named_buffers())}


def own_parameters(module):
    """Those between the projections: of the convolution and of the norm."""
    return {name: p for name, p in module.named_parameters() if name.startswith(('reatten_matrix', 'var_norm'))}


def assert_same(ours, theirs, dtype):
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        # under batch statistics the convolution's bias has gradient 0, which the formula gives as a sum that cancels
        peer = 'var_norm.bias' if name == 'reatten_matrix.bias' else name
        scale = max(expected.abs().max().item(), theirs[peer].abs().max().item())
        assert_near(ours[name].to(dtype), expected, 'block', scale=scale)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('heads, head_dim', [(12, 32), (4, 33), (3, 35)])
def test_equals_the_formula(heads, head_dim, train, dtype):
    """The formula always in float64: in float32 it is no closer to itself than the streaming is."""
    module, twin = (built(heads, head_dim, train=train, dtype=dtype, transform_scale=True) for _ in range(2))
    qkv = tokens(heads, head_dim, dtype=dtype)
    ours = results(module.attend, module, qkv)
    exact = [x.detach().double().requires_grad_() for x in qkv]
    assert_same(ours, results(lambda *qkv: naive(twin, *qkv), twin.double(), exact), dtype)


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('rows', [0, 1, 7, 23, 24, 46, 1000])
def test_any_chunk_gives_the_same(rows, train):
    """Less than a row, one row, rows that do not divide 23, one whole image, both."""
    module, twin = (built(4, 8, train=train, budget=max(1, rows * 3 * 4 * 23 * 8)) for _ in range(2))
    qkv = tokens(4, 8)
    assert_same(results(module.attend, module, qkv), results(lambda *qkv: naive(twin, *qkv), twin, qkv), torch.float64)


@pytest.mark.parametrize('train', [False, True])
def test_gradcheck(train):
    module = built(2, 3, train=train, budget=200)
    module.var_norm.momentum = 0.0  # the buffers stand still between evaluations
    qkv = tokens(2, 3, count=5)
    assert torch.autograd.gradcheck(lambda *args: module.attend(*args[:3]), (*qkv, *module.reatten_matrix.parameters(),
                                                                             *module.var_norm.parameters()))


@pytest.mark.parametrize('momentum', [0.1, 0.3, None])
def test_running_statistics_are_batch_norms(momentum):
    module, twin = built(3, 4, train=True), built(3, 4, train=True)
    module.var_norm.momentum = twin.var_norm.momentum = momentum
    for _ in range(3):
        qkv = tokens(3, 4)
        module.attend(*qkv), naive(twin, *qkv)
    assert module.var_norm.num_batches_tracked == 3
    for ours, theirs in zip(module.var_norm.buffers(), twin.var_norm.buffers()):
        torch.testing.assert_close(ours, theirs)


def test_norm_alone_can_be_put_into_eval_mode():
    module, twin = built(3, 4, train=True), built(3, 4, train=True)
    module.var_norm.eval(), twin.var_norm.eval()
    before = module.var_norm.running_mean.clone()
    qkv = tokens(3, 4)
    assert_same(results(module.attend, module, qkv), results(lambda *qkv: naive(twin, *qkv), twin, qkv), torch.float64)
    assert torch.equal(module.var_norm.running_mean, before)


def test_norm_without_running_statistics_uses_the_batch_always():
    module = built(3, 4)
    module.var_norm = nn.BatchNorm2d(3, track_running_stats=False).double().eval()
    qkv = tokens(3, 4)
    torch.testing.assert_close(module.attend(*qkv), naive(module, *qkv))


def test_forward_is_projections_around_it():
    module = built(3, 4)
    sequence = torch.randn(2, 9, 12, dtype=torch.float64)
    q, k, v = module.qkv(sequence).reshape(2, 9, 3, 3, 4).permute(2, 0, 3, 1, 4)
    expected = module.proj(naive(module, q, k, v).transpose(1, 2).reshape(2, 9, 12))
    torch.testing.assert_close(module(sequence), expected)


@pytest.mark.parametrize('norm_train', [False, True])
def test_dropout_is_the_formulas_under_the_same_mask(norm_train, monkeypatch):
    """The rows of a dropped-out softmax do not sum to 1, and the batch mean feels it."""
    full = torch.empty(2, 4, 23, 23, dtype=torch.float64).bernoulli_(0.7).div_(0.7)
    monkeypatch.setattr(Streaming, 'draw_mask', lambda self, images, rows, like: full[images, :, rows])
    module, twin = (built(4, 8, train=True, attn_drop=0.3, budget=5 * 4 * 23 * 8 * 9) for _ in range(2))
    module.var_norm.train(norm_train), twin.var_norm.train(norm_train)
    qkv = tokens(4, 8)
    assert_same(results(module.attend, module, qkv), results(lambda *qkv: naive(twin, *qkv, mask=full), twin, qkv),
                torch.float64)


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('dropout', [0.0, 0.3])
def test_no_images(train, dropout):
    """Nothing comes out, gradients are 0, and the running statistics are not touched."""
    module = built(4, 8, train=train, attn_drop=dropout)
    before = {name: value.clone() for name, value in module.named_buffers()}
    sequence = torch.empty(0, 23, 32, dtype=torch.float64, requires_grad=True)
    out = module(sequence)
    out.sum().backward()
    assert out.shape == sequence.grad.shape == (0, 23, 32)
    assert all(torch.equal(value, before[name]) for name, value in module.named_buffers())
    assert all(p.grad is None or not p.grad.any() for p in module.parameters())


def test_dropout_masks():
    """Shares and scale as nn.Dropout's; new for every chunk, the same for the same chunk."""
    like = torch.empty(2, 4, 50, 197)
    streaming = Streaming(1, dropout=0.25, seed=3)
    first, again = (streaming.draw_mask(slice(0, 2), slice(0, 50), like) for _ in range(2))
    assert torch.equal(first, again) and first.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert abs(first.mean().item() - 1) < 0.01  # 78,800 values: five standard deviations
    assert not torch.equal(first, streaming.draw_mask(slice(0, 2), slice(50, 100), like))
    assert not torch.equal(first, streaming.draw_mask(slice(2, 4), slice(0, 50), like))


def test_dropout_follows_the_global_seed_and_the_backward_pass_sees_the_same_masks():
    module = built(2, 3, train=True, attn_drop=0.4, budget=500)
    module.var_norm.momentum = 0.0
    qkv = tokens(2, 3, count=5)

    def seeded(*qkv):
        torch.manual_seed(5)
        return module.attend(*qkv)
    assert torch.autograd.gradcheck(seeded, qkv)
    assert not torch.equal(seeded(*qkv), module.attend(*qkv))
    assert torch.equal(module.eval().attend(*qkv), module.attend(*qkv))


class LargestTensor(TorchDispatchMode):
    """Notes the size, in numbers, of the largest tensor that any operation makes or touches."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [one for one in (out if isinstance(out, (tuple, list)) else [out]) if isinstance(one, torch.Tensor)]
        self.numbers = max([self.numbers] + [one.untyped_storage().nbytes() // one.element_size() for one in tensors])
        return out


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('dropout', [0.0, 0.1])
def test_no_map_is_ever_in_memory(train, dropout):
    module, count = built(2, 4, train=train, attn_drop=dropout, dtype=torch.float32, budget=2 ** 16), 600
    qkv = tokens(2, 4, count=count, dtype=torch.float32)
    with LargestTensor() as largest:
        module.attend(*qkv).sum().backward()
    assert largest.numbers <= 2 ** 16 // 4 < 2 * count ** 2 // 40


def test_largest_tensor_sees_a_map():
    module, qkv = built(2, 4, dtype=torch.float32), tokens(2, 4, dtype=torch.float32)
    with LargestTensor() as largest:
        naive(module, *qkv)
    assert largest.numbers == 2 * 2 * 23 * 23


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_loses_no_more_than_its_rounding(dtype, train):
    """Long sequences too, where a mean entry, 1 / 4201, is among float16's subnormal numbers after one more factor."""
    for count in (23, 4201):
        module, twin = (built(2, 8, train=train, dtype=torch.float32) for _ in range(2))
        qkv = [x.detach().to(dtype) for x in tokens(2, 8, batch=1, count=count, dtype=torch.float32)]
        with torch.autocast('cpu', dtype):
            ours = module.attend(*qkv)
        theirs = naive(twin.double(), *(x.double() for x in qkv))
        assert ours.dtype == dtype
        assert_near(ours, theirs, 'layer')


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_autocast_forward_and_backward(dtype, train):
    module, twin = (built(4, 8, train=train, dtype=torch.float32) for _ in range(2))
    sequence = torch.randn(2, 50, 32)
    with torch.autocast('cpu', dtype):
        ours = module(sequence)
        ours.float().sin().sum().backward()
    theirs = twin(sequence)
    theirs.sin().sum().backward()
    assert_near(ours, theirs, 'block')  # two linear layers' rounding more
    assert module.reatten_matrix.weight.grad.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize('train', [False, True])
def test_resolution_consistent_mode_is_the_scaled_formula(train):
    module, twin = (built(3, 4, train=train, base_tokens=10) for _ in range(2))
    qkv = tokens(3, 4)
    assert_same(results(module.attend, module, qkv), results(lambda *qkv: naive(twin, *qkv, ratio=2.3), twin, qkv),
                torch.float64)


def test_resolution_consistent_mode_is_the_identity_at_its_own_size():
    module, qkv = built(3, 4), tokens(3, 4)
    plain = module.attend(*qkv)
    module.base_tokens = 23
    assert torch.equal(module.attend(*qkv), plain)


@pytest.mark.parametrize('train', [False, True])
def test_finer_sampling_of_the_same_tokens_changes_nothing(train):
    """Every token five times over: each map entry falls apart into five of a fifth, which the mode makes good."""
    module, twin = (built(3, 4, train=train, base_tokens=23) for _ in range(2))
    qkv = tokens(3, 4)
    finer = module.attend(*(x.repeat_interleave(5, 2) for x in qkv))
    torch.testing.assert_close(finer, twin.attend(*qkv).repeat_interleave(5, 2))
    torch.testing.assert_close(module.var_norm.running_mean, twin.var_norm.running_mean)


def output_rms(base_tokens):
    """RMS of the output at the token counts of DETECTION.md d.6, by the statistics of 197 tokens.

    The norm's shift makes a row of the map sum to 1.42, as in d.6's trial, over values around 1.
    """
    module = built(2, 8, dtype=torch.float32, base_tokens=base_tokens, train=True)
    nn.init.constant_(module.var_norm.weight, 0.05)
    nn.init.constant_(module.var_norm.bias, 1.42 / 197)
    module.var_norm.momentum = 1.0
    rms = []
    for count in (197, 577, 1025, 2101, 4201):
        q, k, v = (x.detach() for x in tokens(2, 8, batch=1, count=count, dtype=torch.float32))
        if count == 197:
            module.attend(q, k, v + 1)  # leaves its statistics as the running ones
            module.eval()
        rms.append(module.attend(q, k, v + 1).square().mean().sqrt().item())
    return rms


@torch.no_grad()
def test_rms_stays_from_197_to_4201_tokens_and_explodes_without_the_mode():
    kept, plain = output_rms(197), output_rms(None)
    assert kept[0] == pytest.approx(plain[0])
    assert max(kept) / min(kept) < 2
    assert plain[-1] / plain[0] > 20 and plain == sorted(plain)


def attend_on_a_rank(rank, folder):
    """What one of two processes does: attend to its own tokens, more on one rank than on the other."""
    dist.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=2)
    module = nn.SyncBatchNorm.convert_sync_batchnorm(built(3, 4, train=True))
    result = results(module.attend, module, rank_tokens(rank))
    torch.save({name: value.detach() for name, value in result.items()}, folder / f'{rank}.pt')
    dist.destroy_process_group()


def rank_tokens(rank):
    torch.manual_seed(rank)
    return tokens(3, 4, batch=1 + rank, count=(6, 9)[rank])


def test_two_processes_share_their_statistics(tmp_path):
    """Against BatchNorm over all entries of both ranks' maps at once."""
    torch.multiprocessing.spawn(attend_on_a_rank, (tmp_path,), nprocs=2)
    module, qkv = built(3, 4, train=True), [rank_tokens(rank) for rank in range(2)]
    maps = [module.reatten_matrix((q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)) for q, k, _ in qkv]
    columns = [one.transpose(0, 1).flatten(1) for one in maps]
    normed = module.var_norm(torch.cat(columns, 1)[None, :, :, None])[0, :, :, 0].split([len(c.T) for c in columns], 1)
    outs = [n.view(one.transpose(0, 1).shape).transpose(0, 1) @ v for n, one, (_, _, v) in zip(normed, maps, qkv)]
    results_of = [torch.load(tmp_path / f'{rank}.pt') for rank in range(2)]
    grads_out = [torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out) for out in outs]
    names = own_parameters(module)
    inputs = [*qkv[0], *qkv[1], *names.values()]
    grads = torch.autograd.grad(outs, inputs, grads_out)
    for rank, result in enumerate(results_of):
        theirs = {'out': outs[rank], **dict(zip('qkv', grads[3 * rank:])), **dict(module.var_norm.named_buffers())}
        assert_same({name: result[name] for name in theirs}, theirs, torch.float64)
    for name, grad in zip(names, grads[6:]):
        torch.testing.assert_close(results_of[0][name] + results_of[1][name], grad, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize('call, words', [
    (lambda: ReAttention(10, 4), 'width must be a multiple of the 4 heads, got 10'),
    (lambda: built(2, 3, budget=0).attend(*tokens(2, 3)), 'the budget is a positive number of bytes, got 0'),
    (lambda: built(2, 3, train=True, attn_drop=1.0).attend(*tokens(2, 3)), 'a probability in .0, 1., got 1.0'),
])
def test_bad_arguments_get_one_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()
