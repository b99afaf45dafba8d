import random
from fractions import Fraction

import pytest

from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.utils.spec import Spec


@pytest.mark.parametrize('text, canonical', [
    ('fog', 'fog'),
    ('fog()', 'fog'),
    ('fog(severity=3)', 'fog(severity=3)'),
    (" pgd( norm = 'Linf',epsilon=8 / 255 ) ", "pgd(epsilon=8/255, norm='Linf')"),
    ('pgd(epsilon=16/255)', 'pgd(epsilon=16/255)'),
    ('pgd(epsilon=10/255)', 'pgd(epsilon=10/255)'),
    ('a(x=2/51, y=2/6)', 'a(x=10/255, y=1/3)'),
    ('pgd(epsilon=0.5/255)', 'pgd(epsilon=1/510)'),
    ('a(x=0.1/255, y=2.0/255, z=-1.5/255)', 'a(x=1/2550, y=2/255, z=-1/170)'),
    ('a(x=4/2, y=1.0, z=-0.5)', 'a(x=2, y=1, z=-0.5)'),
    ('a(x=-8/255)', 'a(x=-8/255)'),
    ('a(x=[1, 2], y=("u",), z=())', "a(x=(1, 2), y=('u',), z=())"),
    ('a(x=True, y=None)', 'a(x=True, y=None)'),
    ("a(x='it\\'s (b)')", 'a(x="it\'s (b)")'),
    ('torchvision:resnet50', 'torchvision:resnet50'),
    ('pit_s_224.in1k(num_classes=10)', 'pit_s_224.in1k(num_classes=10)'),
    ('hf-hub:timm/pit_s_224.in1k', 'hf-hub:timm/pit_s_224.in1k'),
])
def test_there_is_one_spelling(text, canonical):
    spec = Spec.parse(text)
    assert str(spec) == canonical
    assert Spec.parse(canonical) == spec and hash(Spec.parse(canonical)) == hash(spec)


def test_arguments_keep_their_type():
    assert Spec.parse("pgd(epsilon=8/255, steps=10, norm='L2')").kwargs == (
        ('epsilon', Fraction(8, 255)), ('norm', 'L2'), ('steps', 10))
    assert Spec.parse("pgd(norm='L2')") == Spec.of('pgd', norm='L2')
    assert Spec.of('a', x=True) != Spec.of('a', x=1)  # spelled differently
    assert Spec.of('fog', severity=3).get('severity') == 3 and Spec.of('fog').get('severity', 7) == 7
    assert Spec.of('fog', severity=3, variant='x').without('severity') == Spec.of('fog', variant='x')


@pytest.mark.parametrize('text, words', [
    ('', "got the name ''"),
    ('3d', "got the name '3d'"),
    ('fog(3)', r"got 'fog\(3\)'"),
    ('fog(severity=3', r"got 'fog\(severity=3'"),
    ('fog(severity=3) and more', 'and more'),
    ('fog(severity=3)(x=1)', 'expected a name with arguments'),
    ('fog(**{})', r'got \*\* in'),
    ('fog(severity=1, severity=2)', 'expected a name with arguments'),
    ('fog(severity=max(1, 2))', r'got max\(1, 2\) in'),
    ('fog(x=__import__("os"))', 'got __import__'),
    ('fog(x=2**100)', r'got 2 \*\* 100'),
    ('fog(x=1/0)', 'got 1 / 0'),
    ('fog(x=0.5/0.0)', 'got 0.5 / 0.0'),
    ('fog(x=1e999/2)', r'got inf|got 1e309 / 2'),
    ('fog(x=True/2)', 'got True / 2'),
    ('fog(x=1e999)', 'got inf'),
    ('fog(x=b"a")', "got b'a'"),
    ('fog(x=[y for y in z])', 'expected literals'),
    ('fog(x=' + '(' * 500, 'expected a name with arguments'),
])
def test_anything_else_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        Spec.parse(text)


def test_specs_sort_by_name_and_by_size_of_numbers():
    specs = [Spec.of('fog'), Spec.of('fog', severity=2), Spec.of('fog', severity=10), Spec.of('fog', severity='x'),
             Spec.of('frost', severity=1), Spec.of('pgd', epsilon=Fraction(1, 255)), Spec.of('pgd', epsilon=None, x=1)]
    shuffled = random.Random(0).sample(specs, len(specs))
    assert sorted(shuffled)[:5] == specs[:5]


@pytest.mark.parametrize('condition, text', [
    (CLEAN, 'clean'),
    (Condition(Spec.of('fog', severity=3)), 'fog(severity=3)'),
    (Condition(attack=Spec.of('pgd', epsilon=Fraction(8, 255))), 'clean + pgd(epsilon=8/255)'),
    (Condition(Spec.of('a', x=' + '), Spec.of('b', y=(1,), z='\\')), "a(x=' + ') + b(y=(1,), z='\\\\')"),
])
def test_a_condition_is_its_spelling(condition, text):
    assert str(condition) == text
    assert Condition.parse(text) == condition


def test_conditions_sort_with_the_clean_one_first():
    fog, pgd = Spec.of('fog', severity=1), Spec.of('pgd')
    ordered = [CLEAN, Condition(fog), Condition(None, pgd), Condition(fog, pgd)]
    assert sorted(reversed(ordered)) == ordered


def test_a_condition_holds_one_of_each():
    with pytest.raises(ValueError, match='one corruption and one attack at most'):
        Condition.parse('fog + pgd + fgsm')
