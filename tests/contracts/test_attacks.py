"""The contract of every registered attack, custom ones included."""

from copy import deepcopy
from dataclasses import dataclass, fields, replace

import pytest
import torch

import pit_downstream.attacks  # noqa: F401  registers them
from pit_downstream.attacks.base import Attack, build_attack
from pit_downstream.attacks.threat_model import ThreatModel
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.registry import ATTACKS
from pit_downstream.utils.spec import Spec
from tests.attacks.toys import (
    SIDE,
    Double,
    attacked,
    batch_of,
    convolutions,
    fooled,
    make_images,
    predictor,
    streams,
)

MILD = ('noise', 'square', 'occlude_salient')  # follow no gradient to its end; a few steps of them are little
QUICK = {  # arguments for a short search on the tiny models here
    **{name: {'steps': 3} for name in ('pgd', 'bim', 'mim', 'tpgd', 'apgd', 'fab')},
    **{name: {'steps': 3, 'targets': 2} for name in ('apgd_t', 'fab_t')},
    'square': {'steps': 20}, 'cw': {'steps': 8, 'searches': 2, 'rate': .03, 'constant': 5.},
    'autoattack': {'effort': .02}, 'patch': {'side': 4, 'count': 2, 'steps': 5},
    'patch_fool': {'side': 4, 'count': 2, 'steps': 5, 'place': 'salient', 'attention': 0},
    'transfer': {'source': 'tiny', 'attack': 'pgd', 'steps': 3}}
EPSILONS = {'Linf': .04, 'L2': .6, 'L1': 8.}


@ATTACKS.register('toy_sign', source='this file: what adding an attack takes')
@dataclass(frozen=True, kw_only=True)
class ToySign(Attack):
    """One long step along the sign of the loss's gradient."""

    length: float = 2.

    def run(self, predictor, batch, rng):
        with torch.enable_grad():
            images = batch.images.clone().requires_grad_()
            gradient, = torch.autograd.grad(predictor.loss(images, batch).sum(), images)
        return images + self.length * self.threat.epsilon * gradient.sign()


FOR_ALL = [name for name in ATTACKS
           if ATTACKS.get_entry(name).metadata.get('of') != 'detectors']  # tests/det/ has those
CASES = [(name, norm) for name in FOR_ALL for norm in ATTACKS[name].norms]


@pytest.fixture(params=CASES, ids=lambda case: '-'.join(case))
def case(request):
    return request.param


def built(case, classes=4, **more):
    name, norm = case
    arguments = QUICK.get(name, {}) | more
    if norm == 'patch':
        arguments |= {'norm': norm, 'side': 4, 'count': 2} | ({'attack': 'patch'} if name == 'transfer' else {})
    else:
        arguments |= {'norm': norm, 'epsilon': EPSILONS[norm]}
    return build_attack(Spec.of(name, **arguments), predictors=lambda text: predictor(classes=classes))


def scene(count=8, classes=4, padding=0):
    """Images, the second of them with a wrong label, and padding at the right if asked for."""
    images, labels = make_images(count, classes, seed=17)
    labels[1] = (labels[1] + 1) % classes
    valid = torch.ones(count, 1, SIDE, SIDE, dtype=torch.bool)
    valid[..., SIDE - padding:] = False
    return batch_of(images, labels, valid=valid)


def test_every_entry_has_a_source():
    assert all(ATTACKS.get_entry(name).metadata['source'] and ATTACKS[name].__doc__ for name in ATTACKS)
    assert set(ATTACKS) >= {'noise', 'fgsm', 'bim', 'pgd', 'mim', 'tpgd', 'cw', 'patch', 'patch_fool', 'transfer'}


def test_in_the_ball_in_the_box_off_the_padding(case):
    attack, batch = built(case), scene(padding=3)
    before = batch.images.clone()
    found = attacked(attack, predictor(), batch)
    assert torch.equal(batch.images, before)
    assert found.shape == before.shape and found.dtype == before.dtype and not found.requires_grad
    assert attack.threat.is_within(found - before).all()
    assert found.min() >= 0 and found.max() <= 1
    assert torch.equal(found[..., SIDE - 3:], before[..., SIDE - 3:])
    assert not torch.equal(found, before)


def test_an_image_is_attacked_by_its_seed_and_id_alone(case):
    """Not by the batch it is in, nor its place there. With several searches per image the first to fool may differ."""
    attack, batch = built(case), scene()
    found = attacked(attack, predictor(), batch, seed=3)
    assert torch.equal(found, attacked(attack, predictor(), batch, seed=3))
    wrong = fooled(predictor(), found, batch)
    for rows in ([5], [6, 0, 7]):
        part = batch.part(rows)
        alone = attacked(attack, predictor(), part, seed=3)
        assert torch.equal(fooled(predictor(), alone, part), wrong[rows])
        if getattr(attack, 'restarts', 1) == 1 and not hasattr(attack, 'targets'):
            torch.testing.assert_close(alone, found[rows], rtol=0, atol=1e-6)


def test_the_global_state_of_random_numbers_is_left_alone(case):
    before = torch.get_rng_state()
    attacked(built(case), predictor(), scene(2))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_model_is_untouched(case):
    attack, model = built(case), predictor()
    module, inner = model.model, model.model.inner
    inner[1].train()  # a mode, a frozen weight and a gradient that must all be as they were
    inner[0].weight.requires_grad_(False)
    inner[0].bias.grad = torch.ones_like(inner[0].bias)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    modes = [part.training for part in module.modules()]
    try:
        attacked(attack, model, scene())
        assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
        assert [part.training for part in module.modules()] == modes
        assert [name for name, weight in module.named_parameters() if not weight.requires_grad] == ['inner.0.weight']
        graded = {name: weight.grad for name, weight in module.named_parameters() if weight.grad is not None}
        assert list(graded) == ['inner.0.bias'] and (graded['inner.0.bias'] == 1).all()
    finally:
        module.eval()
        inner[0].weight.requires_grad_(True)
        inner[0].bias.grad = None


def test_not_weaker_than_noise(case):
    batch = scene(16)
    found = fooled(predictor(), attacked(built(case), predictor(), batch), batch).sum()
    control = fooled(predictor(), attacked(built(('noise', case[1])), predictor(), batch), batch).sum()
    assert found >= control, (int(found), int(control))
    if case[1] in ('Linf', 'L2') and case[0] not in MILD:
        assert found > control + 2, (int(found), int(control))


@pytest.mark.parametrize('classes', [2, 3])
def test_few_classes(case, classes):
    batch, attack = scene(3, classes), built(case, classes)
    found = attacked(attack, predictor(classes=classes), batch)
    assert attack.threat.is_within(found - batch.images).all() and found.isfinite().all()


def test_what_is_misclassified_stays_misclassified(case):
    batch = scene(2)
    if not getattr(built(case), 'run_to_end', case[0] in ('noise', 'transfer', 'toy_sign')):
        assert fooled(predictor(), attacked(built(case), predictor(), batch), batch)[1]


def test_no_room_no_change(case):
    if case[1] == 'patch':
        pytest.skip('a patch has no epsilon')
    batch, name = scene(4), case[0]
    spec = Spec.of(name, norm=case[1], epsilon=0, **QUICK.get(name, {}))
    attack = build_attack(spec, predictors=lambda text: predictor())
    assert torch.equal(attacked(attack, predictor(), batch), batch.images)


def test_no_images(case):
    batch = scene().part([])
    assert built(case)(predictor(), batch, streams(batch)).shape == (0, 3, SIDE, SIDE)


@pytest.mark.parametrize('epsilon, wrong', [(.5, False), (1e-6, False), (.5, True)],
                         ids=['all fooled', 'none fooled', 'all misclassified'])
def test_a_model_never_gets_an_empty_batch(case, epsilon, wrong):
    name, norm = case
    model, sizes = predictor(deepcopy(predictor().model)), []
    model.model.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    images, labels = make_images(4, seed=17)
    batch = batch_of(images, (labels + wrong) % 4)
    known = {field.name for field in fields(ATTACKS[name]) if field.init}
    if getattr(ATTACKS[name], 'start', '') == 'clean':
        known -= {'restarts'}
    options = {'run_to_end': True}, {'restarts': 2}, {'version': 'rand'}, {'version': 'plus'}
    for more in ({}, *(one for one in options if known.issuperset(one))):
        attack = built(case, **more)
        if norm != 'patch':
            threat = ThreatModel(norm, epsilon * {'Linf': 1, 'L2': 10, 'L1': 100}[norm])
            inner = {'attack': replace(attack.attack, threat=threat)} if name == 'transfer' else {}
            attack = replace(attack, threat=threat, **inner)
        assert attacked(attack, model, batch).shape == images.shape and 0 not in sizes, more


def test_inference_mode_changes_nothing(case):
    """In that mode a loss has no gradient, and every image would pass for robust."""
    batch, attack = scene(), built(case)
    wanted = attacked(attack, predictor(), batch)
    with torch.inference_mode():
        inside = batch_of(batch.images * 1, [sample.target for sample in batch.samples], valid=batch.valid & True)
        assert inside.images.is_inference()
        found = attacked(attack, predictor(), inside)
        assert torch.is_inference_mode_enabled()
        verdicts = fooled(predictor(), found, inside).tolist()
    assert torch.equal(found, wanted) and verdicts == fooled(predictor(), wanted, batch).tolist()


def test_weights_made_in_inference_mode_are_refused(case):
    with torch.inference_mode():
        model = predictor(Double(convolutions()).eval())
    with pytest.raises(ValueError, match='inference_mode.* inner.0.weight'):
        attacked(built(case), model, scene())


def test_unknown_arguments_get_one_sentence(case):
    with pytest.raises(ValueError, match='color; leave it out') as caught:
        built(case, color=3)
    assert '\n' not in str(caught.value)


def test_wrong_types_get_one_sentence(case):
    kind, quick = ATTACKS[case[0]], QUICK.get(case[0], {})
    wrong = {int: 'many', float: 'much', bool: 'yes', str: 3}
    for field in fields(kind):
        if field.init and field.type in wrong and field.name not in quick:
            with pytest.raises(ValueError, match=f'expected {field.type.__name__} as {field.name} of {case[0]}, got'):
                built(case, **{field.name: wrong[field.type]})


@pytest.mark.parametrize('text, words', [
    ('pgd', 'expected a number as epsilon of pgd, got none; write pgd'),
    ("pgd(epsilon='8')", "expected a number as epsilon of pgd, got '8'"),
    ('pgd(epsilon=True)', 'expected a number as epsilon of pgd, got True'),
    ('pgd(epsilon=8)', 'epsilon is 0..1 under Linf, got 8.0; it is on the scale of pixels'),
    ("pgd(epsilon=1, norm='L3')", "norm is one of Linf, L2, L1 for pgd, got 'L3'"),
    ("cw(epsilon=1, norm='Linf')", "norm is one of L2 for cw, got 'Linf'"),
    ('fgsm(epsilon=8/255, steps=3)', 'as arguments of fgsm, got steps; leave it out'),
    ('pgd(epsilon=8/255, steps=2.5)', 'expected int as steps of pgd, got 2.5'),
    ('pgd(epsilon=8/255, steps=0)', 'steps is 1 or more, got 0'),
    ('patch(epsilon=8/255)', 'expected count, side, .* as arguments of patch, got epsilon'),
    ('patch(side=0)', 'side of a patch is a whole number from 1, got 0'),
    ("transfer(attack='mim', epsilon=8/255)", 'expected a model and another attack as texts'),
    ("transfer(source='a', attack='transfer', epsilon=8/255)", 'expected a model and another attack as texts')])
def test_wrong_specs_get_one_sentence(text, words):
    with pytest.raises(ValueError, match=words):
        build_attack(Spec.parse(text))


def test_unknown_names_are_corrected():
    with pytest.raises(InputError, match="no attack named 'pdg'; did you mean pgd"):
        build_attack(Spec.parse('pdg(epsilon=8/255)'))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_device_follows_the_images(case):
    model, batch = predictor(deepcopy(predictor().model).cuda()), scene()
    on_gpu = batch_of(batch.images.cuda(), [sample.target for sample in batch.samples], valid=batch.valid.cuda())
    attack = built(case)
    if case[0] == 'transfer':
        attack = type(attack)(attack.threat, source=model, attack=attack.attack)
    found = attacked(attack, model, on_gpu)
    assert found.device.type == 'cuda' and attack.threat.is_within(found - on_gpu.images).all()
