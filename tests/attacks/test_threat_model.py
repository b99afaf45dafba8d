"""The balls against numpy and scipy: projections, directions and the distribution over them."""

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch

from pit_downstream.attacks.threat_model import NORMS, Patches, ThreatModel
from pit_downstream.utils.rng import BatchRng

pytestmark = pytest.mark.numeric

SHAPE = (6, 3, 5, 7)
VALUES = 3 * 5 * 7
RADII = {'Linf': .3, 'L2': 1.7, 'L1': 9.}


def deltas(seed=0, shape=SHAPE):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def simplex_l1(delta, epsilon):
    """Duchi et al. 2008, figure 1, in numpy for one vector."""
    lengths = np.abs(delta)
    if lengths.sum() <= epsilon:
        return delta
    ordered = np.sort(lengths)[::-1]
    excess = (np.cumsum(ordered) - epsilon) / np.arange(1, len(ordered) + 1)
    threshold = excess[np.nonzero(ordered > excess)[0][-1]]
    return np.sign(delta) * np.maximum(lengths - threshold, 0)


@pytest.mark.parametrize('norm, order', [('Linf', np.inf), ('L2', 2), ('L1', 1)])
def test_sizes_are_numpys(norm, order):
    delta = deltas()
    wanted = [np.linalg.norm(one.numpy().ravel(), order) for one in delta]
    np.testing.assert_allclose(ThreatModel(norm, 1).get_size(delta), wanted, rtol=1e-6)


@pytest.mark.parametrize('epsilon', [.01, 1., 9., 200.])
def test_l1_projection_is_that_onto_the_simplex(epsilon):
    delta = deltas()
    wanted = np.stack([simplex_l1(one.double().numpy().ravel(), epsilon) for one in delta]).reshape(SHAPE)
    np.testing.assert_allclose(ThreatModel('L1', epsilon).project(delta), wanted, atol=1e-6)


@pytest.mark.parametrize('norm', NORMS)
def test_projections_are_the_nearest_points(norm):
    """Against a minimisation of the distance under the constraint by scipy, which knows no projection."""
    delta = deltas(3, (1, 3, 1, 2))
    epsilon = {'Linf': .4, 'L2': .9, 'L1': 1.2}[norm]
    start = delta.double().numpy().ravel()
    # as positive and negative parts the L1 ball is smooth
    size = {'Linf': lambda x: epsilon - np.abs(x), 'L2': lambda x: epsilon ** 2 - x @ x,
            'L1': lambda x: np.array([epsilon - (signs @ x) for signs in np.array(
                np.meshgrid(*[[-1, 1]] * 6)).reshape(6, -1).T])}[norm]
    nearest = scipy.optimize.minimize(lambda x: ((x - start) ** 2).sum(), 0 * start, jac=lambda x: 2 * (x - start),
                                      method='SLSQP', constraints={'type': 'ineq', 'fun': size},
                                      options={'maxiter': 500, 'ftol': 1e-14})
    np.testing.assert_allclose(ThreatModel(norm, epsilon).project(delta).numpy().ravel(), nearest.x, atol=2e-5)


@pytest.mark.parametrize('norm', NORMS)
def test_steepest_directions_reach_the_dual_norm(norm):
    gradient = deltas(1)
    threat = ThreatModel(norm, 1)
    direction = threat.get_steepest(gradient)
    torch.testing.assert_close(threat.get_size(direction), torch.ones(len(gradient)))
    climbed = (gradient * direction).flatten(1).sum(1)
    if norm == 'L1':  # shared by the highest percent: one of 105 values
        torch.testing.assert_close(climbed, gradient.flatten(1).abs().amax(1))
    else:
        torch.testing.assert_close(climbed, torch.linalg.vector_norm(gradient.flatten(1), 1 if norm == 'Linf' else 2,
                                                                     dim=1))
    assert threat.get_steepest(torch.zeros(SHAPE)).abs().sum() == 0


@pytest.mark.parametrize('norm', NORMS)
def test_random_perturbations_are_even_over_the_ball(norm):
    """In D values the D-th power of the relative size is uniform; under Linf every value by itself is."""
    epsilon, count = RADII[norm], 4000
    threat = ThreatModel(norm, epsilon)
    delta = threat.draw((count, 3, 1, 2), BatchRng(0, range(count)))
    assert (threat.get_size(delta) <= epsilon * (1 + 1e-6)).all()
    relative = (threat.get_size(delta) / epsilon).double().numpy() ** 6
    assert scipy.stats.kstest(relative, scipy.stats.uniform.cdf).pvalue > .01
    values = delta.flatten(1).numpy()
    assert scipy.stats.kstest(np.sign(values).ravel() + 1, scipy.stats.bernoulli(.5).rvs(24000, random_state=0) * 2
                              ).pvalue > .01
    share = np.abs(values[:, 0]) / threat.get_size(delta).numpy()
    cdf = {'L2': lambda x: scipy.stats.beta(.5, 2.5).cdf(x ** 2), 'L1': scipy.stats.beta(1, 5).cdf,
           'Linf': None}[norm]  # of the first value on the unit sphere
    if cdf is None:
        cdf, share = scipy.stats.uniform(-epsilon, 2 * epsilon).cdf, values[:, 0]
    assert scipy.stats.kstest(share, cdf).pvalue > .01


@pytest.mark.parametrize('threat', [ThreatModel('Linf', .2), ThreatModel('L2', 1.), ThreatModel('L1', 8.),
                                    Patches(count=2, side=3)], ids=lambda threat: threat.norm)
def test_within_is_in_the_ball_in_the_box_off_the_padding_and_idempotent(threat):
    images = torch.rand(SHAPE, generator=torch.Generator().manual_seed(2))
    valid = torch.ones(6, 1, 5, 7, dtype=torch.bool)
    valid[:, :, :, 5:] = False
    found = threat.project_images(images, images + deltas(5), valid)
    assert threat.is_within(found - images).all() and (threat.get_size(found - images) > 0).all()
    assert found.min() >= 0 and found.max() <= 1
    assert torch.equal(found[..., 5:], images[..., 5:])
    assert torch.equal(threat.project_images(images, found, valid), found)
    assert torch.equal(threat.project_images(images, images), images)


def test_patches_count_the_cells_they_touch():
    """A 5 x 7 image in cells of 3: 2 x 3 of them, those at the edges cut off."""
    threat = Patches(count=2, side=3)
    delta = torch.zeros(3, 3, 5, 7)
    delta[0, 0, 0, 0] = delta[0, 2, 2, 2] = 1e-9  # one cell
    delta[1, :, 2:4, 6] = .5  # two
    delta[2] = 1.
    assert threat.get_size(delta).tolist() == [1, 2, 6] and threat.is_within(delta).tolist() == [True, True, False]
    assert torch.equal(threat.project(delta)[:2], delta[:2])
    best = threat.project(delta)[2, 0]
    wanted = torch.zeros(5, 7)
    wanted[:3, :6] = 1  # the first two of the full cells
    assert torch.equal(best, wanted)


def test_random_patches_are_where_they_may_be():
    threat = Patches(count=1, side=2)
    delta = threat.draw((300, 3, 4, 6), BatchRng(0, range(300)))
    assert threat.get_size(delta).eq(1).all()
    places = threat.sum_cells(delta.abs()).flatten(1).argmax(1)
    assert scipy.stats.chisquare(np.bincount(places, minlength=6)).pvalue > .01


@pytest.mark.parametrize('norm, epsilon, words', [
    ('l2', 1, "norm is one of Linf, L2, L1, got 'l2'"),
    ('Linf', 8, 'epsilon is 0..1 under Linf, got 8; it is on the scale of pixels in .* write 8/255'),
    ('L2', -1, r'epsilon is 0 or more on the scale of pixels in \[0, 1\], such as 8/255, got -1'),
    ('L2', float('nan'), 'got nan'), ('L1', float('inf'), 'got inf')])
def test_what_is_no_ball(norm, epsilon, words):
    with pytest.raises(ValueError, match=words):
        ThreatModel(norm, epsilon)


@pytest.mark.parametrize('given', [{'side': 0}, {'count': 1.5}, {'count': -1}])
def test_what_is_no_patch(given):
    with pytest.raises(ValueError, match='of a patch is a whole number from 1, got'):
        Patches(**given)
