"""Ball and box, plane and box: against general-purpose optimizers."""

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, linprog, minimize

from pit_downstream.attacks.projections import project_into_box, project_to_plane

pytestmark = pytest.mark.numeric


def draw(seed, count, values):
    random = np.random.default_rng(seed)
    return random.random((count, values)), random.standard_normal((count, values))


def shrunk(image, delta, epsilon):
    """The optimality conditions: a common threshold, found by bisection."""
    room = np.where(delta > 0, 1 - image, image)

    def lengths(threshold):
        return np.clip(np.abs(delta) - threshold, 0, room)
    if lengths(0).sum() <= epsilon:
        return np.sign(delta) * lengths(0)
    return np.sign(delta) * lengths(brentq(lambda at: lengths(at).sum() - epsilon, 0, np.abs(delta).max(), xtol=1e-14))


@pytest.mark.parametrize('epsilon', [.3, 2., 9., 50.])
def test_l1_ball_and_box_against_bisection(epsilon):
    images, deltas = draw(0, 20, 48)
    found = project_into_box(torch.tensor(images), torch.tensor(deltas), epsilon).numpy()
    wanted = [shrunk(*pair, epsilon) for pair in zip(images, deltas, strict=True)]
    np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_l1_ball_and_box_against_a_quadratic_programme():
    """The positive and the negative part of each value are variables of their own, so that the size is linear."""
    images, deltas = draw(1, 4, 6)
    for image, delta in zip(images, deltas, strict=True):
        solved = minimize(lambda parts, delta=delta: ((parts[:6] - parts[6:] - delta) ** 2).sum(), np.zeros(12),
                          bounds=[(0, room) for room in [*(1 - image), *image]], method='SLSQP',
                          constraints={'type': 'ineq', 'fun': lambda parts: 1 - parts.sum()},
                          options={'maxiter': 300, 'ftol': 1e-14})
        found = project_into_box(torch.tensor(image[None]), torch.tensor(delta[None]), 1.)[0].numpy()
        np.testing.assert_allclose(found, solved.x[:6] - solved.x[6:], atol=1e-5)


def test_a_radius_per_image():
    images, deltas = map(torch.tensor, draw(2, 3, 30))
    found = project_into_box(images, deltas, torch.tensor([1., 2., 3.]))
    torch.testing.assert_close(found.abs().sum(1), torch.tensor([1., 2., 3.], dtype=torch.float64))


def reachable(points, normals):
    """Heights on both sides of the plane, up to nine tenths of what the box has room for."""
    shares = np.linspace(-.9, .9, len(points))
    room = np.where(normals * shares[:, None] > 0, points, 1 - points)
    return shares * (np.abs(normals) * room).sum(1)


@pytest.mark.parametrize('norm', ['Linf', 'L1'])
def test_shortest_way_to_a_plane_against_a_linear_programme(norm):
    """Variables: the way d, and what bounds it: one number under Linf, one per value under L1."""
    points, normals = draw(3, 12, 8)
    normals[:, 2] = 0
    heights = reachable(points, normals)
    found = project_to_plane(torch.tensor(points), torch.tensor(normals), torch.tensor(heights), norm).numpy()
    for point, normal, height, way in zip(points, normals, heights, found, strict=True):
        bounds = np.ones((8, 1)) if norm == 'Linf' else np.eye(8)
        extra = bounds.shape[1]
        solved = linprog(np.r_[np.zeros(8), np.ones(extra)], A_eq=[np.r_[normal, np.zeros(extra)]], b_eq=[-height],
                         A_ub=np.block([[np.eye(8), -bounds], [-np.eye(8), -bounds]]), b_ub=np.zeros(16),
                         bounds=[(-at, 1 - at) for at in point] + [(0, None)] * extra)
        assert solved.success
        size = np.abs(way).max() if norm == 'Linf' else np.abs(way).sum()
        assert size == pytest.approx(solved.fun, abs=1e-6) and normal @ way == pytest.approx(-height, abs=1e-6)
        assert (0 <= point + way + 1e-12).all() and (point + way <= 1 + 1e-12).all()


def test_shortest_way_to_a_plane_under_l2():
    points, normals = draw(4, 12, 8)
    heights = reachable(points, normals)
    found = project_to_plane(torch.tensor(points), torch.tensor(normals), torch.tensor(heights), 'L2').numpy()
    for point, normal, height, way in zip(points, normals, heights, found, strict=True):
        def clipped(level, point=point, normal=normal):
            return np.clip(point + level * normal, 0, 1) - point
        level = brentq(lambda at, normal=normal, height=height: normal @ clipped(at) + height, -1e3, 1e3, xtol=1e-13)
        np.testing.assert_allclose(way, clipped(level), atol=1e-6)


@pytest.mark.parametrize('norm', ['Linf', 'L2', 'L1'])
def test_a_plane_out_of_reach_leads_to_the_corner(norm):
    points, normals = map(torch.tensor, draw(5, 3, 8))
    found = project_to_plane(points, normals, torch.full((3,), 100., dtype=torch.float64), norm)
    torch.testing.assert_close(points + found, (normals < 0).double())


@pytest.mark.parametrize('norm', ['Linf', 'L2', 'L1'])
def test_no_gradient_no_way(norm):
    points = torch.rand(2, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(project_to_plane(points, torch.zeros(2, 8), torch.tensor([0., 1.]), norm), torch.zeros(2, 8))
