"""Gradient attacks against torchattacks and foolbox from the same start, and where the best attack is known."""

import pytest
import torch

from pit_downstream.attacks.apgd import TargetedAPGD
from pit_downstream.attacks.fab import TargetedFAB
from pit_downstream.attacks.gradient import BIM, FGSM, MIM, PGD, TPGD
from pit_downstream.attacks.square import Square
from pit_downstream.attacks.threat_model import ThreatModel
from tests.attacks.toys import Linear, Replay, attacked, batch_of, exact_predictor, fooled, make_images, predictor

pytestmark = pytest.mark.numeric

EPSILON, STEP = 8 / 255, 2 / 255


def scene(count=12):
    images, labels = make_images(count, seed=7)
    return batch_of(images, labels), labels


def drawn(shape, low, high, seed=3):
    return torch.empty(shape).uniform_(low, high, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def torchattacks():
    with torch.random.fork_rng():
        yield pytest.importorskip('torchattacks')


@pytest.mark.parametrize('ours, theirs, arguments', [
    (FGSM(ThreatModel('Linf', EPSILON), run_to_end=True), 'FGSM', {'eps': EPSILON}),
    (BIM(ThreatModel('Linf', EPSILON), steps=5, step=STEP, run_to_end=True), 'BIM',
     {'eps': EPSILON, 'alpha': STEP, 'steps': 5}),
    (MIM(ThreatModel('Linf', EPSILON), steps=5, step=STEP, run_to_end=True), 'MIFGSM',
     {'eps': EPSILON, 'alpha': STEP, 'steps': 5, 'decay': 1.}),
    (MIM(ThreatModel('Linf', EPSILON), steps=4, momentum=.5, run_to_end=True), 'MIFGSM',
     {'eps': EPSILON, 'alpha': EPSILON / 4, 'steps': 4, 'decay': .5}),
    (PGD(ThreatModel('L2', .5), steps=5, step=.2, start='clean', run_to_end=True), 'PGDL2',
     {'eps': .5, 'alpha': .2, 'steps': 5, 'random_start': False, 'eps_for_division': 0})],
    ids=lambda value: type(value).__name__)
def test_from_the_image_as_torchattacks(torchattacks, ours, theirs, arguments):
    batch, labels = scene()
    wanted = getattr(torchattacks, theirs)(exact_predictor().model, **arguments)(batch.images, labels)
    torch.testing.assert_close(attacked(ours, exact_predictor(), batch), wanted, rtol=0, atol=1e-6)
    assert (wanted - batch.images).abs().max() > .01


def test_pgd_from_the_same_random_start_as_torchattacks(torchattacks, monkeypatch):
    batch, labels = scene()
    start = drawn(batch.images.shape, -EPSILON, EPSILON)
    monkeypatch.setattr(torch.Tensor, 'uniform_', lambda field, low, high: field.copy_(start))
    wanted = torchattacks.PGD(exact_predictor().model, eps=EPSILON, alpha=STEP, steps=7)(batch.images, labels)
    ours = PGD(ThreatModel('Linf', EPSILON), steps=7, step=STEP, run_to_end=True)
    found = ours(exact_predictor(), batch, Replay((start / EPSILON + 1) / 2))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


def test_tpgd_from_the_same_start_as_torchattacks(torchattacks, monkeypatch):
    batch, labels = scene()
    start = torch.randn(batch.images.shape, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(torch, 'randn_like', lambda images: start)
    wanted = torchattacks.TPGD(exact_predictor().model, eps=EPSILON, alpha=STEP, steps=6)(batch.images)
    ours = TPGD(ThreatModel('Linf', EPSILON), steps=6, step=STEP, run_to_end=True)
    torch.testing.assert_close(ours(exact_predictor(), batch, Replay(start)), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize('norm, epsilon, optimizer, name', [
    ('Linf', EPSILON, 'steepest', 'LinfProjectedGradientDescentAttack'),
    ('Linf', EPSILON, 'adam', 'LinfAdamProjectedGradientDescentAttack'),
    ('L2', .8, 'steepest', 'L2ProjectedGradientDescentAttack')])
def test_pgd_from_the_same_random_start_as_foolbox(norm, epsilon, optimizer, name):
    foolbox = pytest.importorskip('foolbox', exc_type=ImportError)
    batch, labels = scene()
    threat, draws = ThreatModel(norm, epsilon), [drawn(batch.images.shape, 0, 1)]
    if norm == 'L2':
        draws = [torch.randn(batch.images.shape, generator=torch.Generator().manual_seed(4)), drawn((12, 1), 0, 1)]
    start = threat.draw(batch.images.shape, Replay(*draws))
    theirs = getattr(foolbox.attacks, name)(abs_stepsize=epsilon / 4, steps=6, random_start=True)
    theirs.get_random_start = lambda images, epsilon: images + type(images)(start)
    model = foolbox.PyTorchModel(exact_predictor().model, bounds=(0, 1), device='cpu')
    wanted = theirs.run(model, batch.images, labels, epsilon=epsilon)
    ours = PGD(threat, steps=6, step=epsilon / 4, optimizer=optimizer, run_to_end=True)
    torch.testing.assert_close(ours(exact_predictor(), batch, Replay(*draws)), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize('attack', [PGD, BIM, FGSM, MIM])
@pytest.mark.parametrize('norm', ['Linf', 'L2'])
def test_a_linear_model_falls_at_the_distance_to_its_plane(attack, norm):
    """That is |w x - b| over the dual norm of w; one percent less must not be enough, one percent more must be."""
    line = predictor(Linear())
    images = make_images(3, seed=5)[0] * .4 + .3  # no pixel reaches black or white
    score = line.logits(images)[:, 1].abs()
    distances = score / torch.linalg.vector_norm(line.model.weight, {'Linf': 1, 'L2': 2}[norm])
    for image, distance in zip(images, distances.tolist(), strict=True):
        one = batch_of(image[None], line.logits(image[None]).argmax(1))
        for share, falls in ((.99, False), (1.01, True)):
            # twice the usual length: 2.5 epsilon of L2 steps bring a random start to .985 epsilon along w
            steps = {'step': distance / 4} if attack is PGD else {}
            found = attacked(attack(ThreatModel(norm, share * distance), **steps), line, one)
            assert fooled(line, found, one).item() is falls


def test_normalisation_inside_leaves_epsilon_in_pixels():
    """A linear model behind (x - mean) / std still falls at its distance in pixels."""
    line = predictor(Linear(), mean=.4, std=.2)
    image = make_images(1, seed=5)[0] * .4 + .3
    one = batch_of(image, line.logits(image).argmax(1))
    distance = (line.logits(image)[:, 1].abs() / (line.model.weight.abs().sum() / .2)).item()
    assert not fooled(line, attacked(FGSM(ThreatModel('Linf', .99 * distance)), line, one), one).item()
    assert fooled(line, attacked(FGSM(ThreatModel('Linf', 1.01 * distance)), line, one), one).item()


def test_adam_is_torchs():
    from pit_downstream.attacks.adam import AdamState
    gradients = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))
    parameter = torch.zeros(2, 3, requires_grad=True)
    optimizer = torch.optim.Adam([parameter], lr=.1)
    point, adam = torch.zeros(2, 3), AdamState.zeros_like(torch.zeros(2, 3))
    for age, gradient in enumerate(gradients):
        parameter.grad = gradient.clone()
        optimizer.step()
        point = point - .1 * adam.step(gradient, torch.tensor([age, age]))
        torch.testing.assert_close(point, parameter.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('make, words', [
    (lambda threat: PGD(threat, steps=0), 'steps is 1 or more, got 0'),
    (lambda threat: PGD(threat, start='normal'), "start is 'random' or 'clean', got 'normal'"),
    (lambda threat: PGD(threat, start='clean', restarts=2), "restarts is 1 or more, and 1 where start is 'clean'"),
    (lambda threat: PGD(threat, optimizer='sgd'), "optimizer is 'steepest' or 'adam', got 'sgd'"),
    (lambda threat: PGD(threat, step=-.1), 'step is 0 or more on the scale of pixels'),
    (lambda threat: PGD(threat, loss='hinge'), "loss is one of ce, margin, dlr for PGD, .*, got 'hinge'"),
    (lambda threat: PGD(threat, loss='dlr_t'), "loss is one of ce, margin, dlr for PGD, .*, got 'dlr_t'"),
    (lambda threat: Square(threat, loss='kl'), "loss is one of ce, margin, dlr for Square, .*, got 'kl'"),
    (lambda threat: TargetedAPGD(threat, loss='dlr'), "is one of dlr_t, ce_t, margin_t for TargetedAPGD, got 'dlr'"),
    (lambda threat: TargetedFAB(threat, loss='margin'), "loss is one of margin_t for TargetedFAB, got 'margin'")])
def test_wrong_arguments_get_one_sentence(make, words):
    with pytest.raises(ValueError, match=words):
        make(ThreatModel('Linf', EPSILON))
