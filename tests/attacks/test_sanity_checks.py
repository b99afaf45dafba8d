"""Defences that only hide gradients, and other ways to a wrong result, are named before and after an attack."""

import re

import pytest
import timm
import torch
from torch import nn

import pit_downstream.backbones  # noqa: F401  registers pit_ti
from pit_downstream.attacks.sanity_checks import check_after, check_before, check_cascade
from pit_downstream.attacks.gradient import FGSM, PGD
from pit_downstream.attacks.threat_model import ThreatModel
from pit_downstream.utils.spec import Spec
from pit_downstream.evaluation.classifier import ClassifierPredictor
from tests.attacks.toys import SIDE, Linear, attacked, batch_of, fooled, make_images, predictor, trained
from tests.reference import formula


class Behind(nn.Module):
    """The trained model with something before and after it."""

    def __init__(self, before=None, after=None):
        super().__init__()
        self.inner, self.before, self.after = trained(), before or nn.Identity(), after or nn.Identity()

    def forward(self, images):
        return self.after(self.inner(self.before(images)))


class Does(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.forward = act


@pytest.fixture(scope='module')
def batch():
    return batch_of(*make_images(24, seed=13))


def quantised(images):
    return (images * 15).round() / 15


def test_no_warning_for_a_plain_model(batch):
    assert check_before(predictor(), batch) == ()
    assert check_before(predictor(), batch.part([0])) == ()


@pytest.mark.parametrize('model, words', [
    (Behind(after=Does(lambda logits: 1000 * logits)), 'cross-entropy of 2. of 24 images has no gradient, since the '
     r'logits are too large \(up to .*\)'),
    (Behind(Does(quantised)), 'no gradient reaches 24 of 24 images, as behind rounding'),
    (Behind(Does(lambda images: (images * 255).to(torch.uint8) / 255)), 'no gradient reaches 24 of 24 images'),
    (Behind(after=nn.Softmax(1)), 'the model gives probabilities, not logits'),
    (Behind(Does(lambda images: images + .01 * torch.randn_like(images))), 'output changes from pass to pass'),
    (Behind(after=Does(lambda logits: logits - logits.mean(0))), 'the output for an image depends on the others'),
    (Behind(after=Does(lambda logits: logits.roll(1, 1))),
     '0 of 24 clean images are right, no more than by chance among 4')])
def test_what_is_wrong_before_is_named(model, words, batch):
    with torch.random.fork_rng():
        found = check_before(predictor(model.eval()), batch)
    assert any(re.search(words, sentence) for sentence in found), found


class Rounded(nn.Module):
    """The trained model, with logits as two passes in a lower precision give them: `away` eps apart, by batch size."""

    def __init__(self, away, eps):
        super().__init__()
        self.inner, self.away, self.eps = trained(), away, eps

    def forward(self, images):
        logits = self.inner(images)
        return logits + (len(images) == 1) * self.away * self.eps * logits.detach().abs().max()


@pytest.mark.parametrize('amp', ['bf16', 'fp16'])
@pytest.mark.parametrize('how', ['amp', 'search'])
def test_the_tolerance_of_equal_outputs_is_that_of_the_precision(amp, how, batch):
    """Measured on PiT in bfloat16: 0.84 eps between an image alone and in a batch."""
    eps = torch.finfo({'bf16': torch.bfloat16, 'fp16': torch.float16}[amp]).eps

    def found(model, **options):
        half = ClassifierPredictor(model.eval(), predictor().preparation, name='half', **options)
        return [sentence for sentence in check_before(half, batch) if 'depends on the others' in sentence]
    assert found(Rounded(1, eps), **{how: amp}) == []
    assert len(found(Rounded(1, eps))) == 1  # in float32 that is no rounding
    assert len(found(Behind(after=Does(lambda logits: logits - logits.mean(0))), **{how: amp})) == 1
    assert len(found(Rounded(20, eps), **{how: amp})) == 1


def test_pit_in_bfloat16_passes_the_checks():
    torch.manual_seed(0)
    model = timm.create_model('pit_ti', img_size=64, num_classes=4).eval()
    model.load_state_dict(formula.weights({name: value.shape for name, value in model.state_dict().items()}))
    images = torch.rand(8, 3, 64, 64)
    half = ClassifierPredictor(model, predictor(mean=.5, std=.25).preparation, name='pit', search='bf16')
    batch = batch_of(images, half.logits(images).argmax(1))
    assert not [sentence for sentence in check_before(half, batch) if 'output' in sentence]


def test_inference_mode_is_left_for_the_checks(batch):
    model = predictor()  # weights made in the mode have no gradient
    with torch.inference_mode():
        inside = batch_of(batch.images * 1, [sample.target for sample in batch.samples])
        assert check_before(model, inside) == ()


def test_training_mode_is_named_and_left_as_it_was(batch):
    model = predictor(Behind().eval())
    model.model.inner.train()
    modes = [module.training for module in model.model.modules()]
    found = check_before(model, batch)
    assert len(found) == 1 and 'modules are in training mode, the first of which is inner' in found[0]
    assert [module.training for module in model.model.modules()] == modes


@pytest.mark.parametrize('images, model, words', [
    (lambda images: 2 * images - 1, None, r'expected images in \[0, 1\], got -.* normalize inside the model'),
    (lambda images: images * 255, None, r'expected images in \[0, 1\], got .* 2..;'),
    (None, Behind(after=Does(lambda logits: logits / 0)), r'finite logits \(24, classes\), .* NaN or infinity'),
    (None, Behind(after=Does(lambda logits: logits[:, 0])), r'expected finite logits \(24, classes\), got \(24,\)')])
def test_unattackable_models_are_refused(images, model, words, batch):
    batch = batch_of(batch.images if images is None else images(batch.images), [s.target for s in batch.samples])
    with pytest.raises(ValueError, match=words):
        check_before(predictor(model and model.eval()), batch)


def robust(attack, model, batch):
    return 1 - fooled(model, attacked(attack, model, batch), batch).float().mean().item()


@pytest.mark.parametrize('model', [Behind(after=Does(lambda logits: 1000 * logits)), Behind(Does(quantised))],
                         ids=['large logits', 'quantised'])
def test_masked_gradients_do_not_pass_for_robustness(model, batch):
    """PGD on cross-entropy leaves most images right that plain PGD fools; the checks must not let that stand."""
    masked = predictor(model.eval())
    attack = PGD(ThreatModel('Linf', .08), steps=10, start='clean')
    assert robust(attack, predictor(), batch) == 0 and robust(attack, masked, batch) > .8
    sentences = check_before(masked, batch)
    assert any('which is no robustness' in sentence for sentence in sentences)
    found = {}
    for epsilon in (.04, .08):
        for name, kind in (('pgd', PGD), ('fgsm', FGSM)):
            found[Spec.of(name, epsilon=epsilon)] = robust(kind(ThreatModel('Linf', epsilon)), masked, batch)
    # a plain model's adversarial images, transferred, need no gradient of the masked one
    strong = attacked(PGD(ThreatModel('Linf', .08), run_to_end=True), predictor(), batch)
    found[Spec.of('transfer', epsilon=.08)] = 1 - fooled(masked, strong, batch).float().mean().item()
    assert any('uses no gradient and beats pgd' in sentence for sentence in check_after(found, 24))


@pytest.mark.parametrize('accuracies, words', [
    ({'pgd(epsilon=8/255)': .4, 'fgsm(epsilon=8/255)': .3},
     r'one step, fgsm\(epsilon=8/255\) \(30.0% right\), beats many'),
    ({'pgd(epsilon=8/255)': .4, 'square(epsilon=8/255)': .3}, 'uses no gradient and beats'),
    ({'pgd(epsilon=4/255)': .4, 'pgd(epsilon=8/255)': .5}, 'fools fewer images at epsilon 0.03137 than at 0.01569'),
    ({'pgd(epsilon=4/255)': .4, 'pgd(epsilon=8/255)': .4}, 'leaves 40.0% right at epsilon 0.03137, as at 0.01569')])
def test_signs_of_masking(accuracies, words):
    found = check_after({Spec.parse(text): value for text, value in accuracies.items()}, 100)
    assert len(found) == 1 and re.search(words, found[0])


def test_no_sign_where_all_is_in_order():
    sound = {'pgd(epsilon=2/255)': .6, 'pgd(epsilon=4/255)': .3, 'pgd(epsilon=8/255)': 0., 'pgd(epsilon=16/255)': 0.,
             'fgsm(epsilon=4/255)': .4, 'square(epsilon=4/255)': .45, "pgd(epsilon=1/2, norm='L2')": .9,
             'noise(epsilon=4/255)': .9, 'noise(epsilon=8/255)': .9, 'cw(epsilon=1)': .2,
             "transfer(epsilon=1/255, source='m')": .9, "transfer(epsilon=2/255, source='m')": .9}
    assert check_after({Spec.parse(text): value for text, value in sound.items()}, 100) == ()
    assert check_after({Spec.parse('pgd(epsilon=8/255)'): .41, Spec.parse('fgsm(epsilon=8/255)'): .40}, 100) == ()


def test_what_square_adds_to_a_cascade_is_a_sign():
    sound = [('apgd', 50), ('apgd_t', 45), ('fab_t', 45), ('square', 44)]
    assert check_cascade(sound) == ()
    found = check_cascade([*sound[:3], ('square', 43)])
    assert len(found) == 1 and found[0].startswith('square uses no gradient and fools images')


def test_tiny_gradients_are_followed_all_the_same():
    """A confident model's cross-entropy falls off as exp(-score): its L2 norm would count as zero in float32."""
    class Symmetric(Linear):
        def forward(self, images):
            return super().forward(images) - super().forward(images).mean(1, keepdim=True)

    line = predictor(Symmetric())
    direction = (line.model.weight / line.model.weight.norm()).detach().view(3, SIDE, SIDE).float()
    images = .5 + 2 * direction[None]  # two away from the plane
    batch = batch_of(images, torch.ones(1))
    assert line.loss(images, batch) < 1e-12
    for distance, falls in ((1.99, False), (2.01, True)):
        found = attacked(FGSM(ThreatModel('L2', distance)), line, batch)
        assert fooled(line, found, batch).item() is falls
