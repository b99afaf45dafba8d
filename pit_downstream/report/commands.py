"""Commands that fill missing measurements, derived from the recorded commands."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from pit_downstream.benchmarks.base import format_model_flag
from pit_downstream.results.records import get_weights_label
from pit_downstream.utils.spec import Spec
from pit_downstream.report.inputs import Kept, Run

PREPROCESS = ('--preprocess', '--img-size', '--mean', '--std')
# Flags with one meaning in every tool: they apply to another tool on the same model and images, too.
SHARED = ('--model', '--weights', '--cfg-options', *PREPROCESS, '--data', '--images', '--bundled', '--labels',
          '--classes', '--limit', '--allow-missing', '--batch-size', '--workers', '--device', '--seed', '--output-dir')
# Flags that apply to another run of the same tool
CONDITIONS = ('--jpeg-quality', '--variant', '--corrupted-data', '--corrupted-name', '--bgr', '--precision', '--import')

Flags = dict[str, list[str]]


def flags(argv: Sequence[str]) -> Flags:
    """Return the values of a command by flag."""
    found: Flags = {}
    values: list[str] = []
    for word in argv:
        if word.startswith('--'):
            flag, equals, value = word.partition('=')
            values = found[flag] = [value] if equals else []
        else:
            values.append(word)
    return found


def classifier_command(kept: Kept, tool: str, model: str, *more: str) -> str:
    """Return the command for `tool` on a classifier, based on the last known run on it. more: further words."""
    run = _last(kept, tool, lambda given: _is_classifier(given, model))
    if run is None:
        return f'{_program(tool)} {format_model_flag(model)} {shlex.join([*_weights(model, {}), *more])}'.strip()
    return f'{_program(tool)} {shlex.join([*_kept(run, tool, more), *more])}'


def detector_command(kept: Kept, tool: str, model: str, *more: str) -> str:
    """Return the command for `tool` on a detector, as in classifier_command."""
    run = _last(kept, tool, lambda given: _is_detector(given, model))
    named = ['--model', f'configs/{Spec.parse(model).name}.py', '--weights', 'CHECKPOINT']
    return f'{_program(tool)} {shlex.join([*(_kept(run, tool, more) if run else named), *more])}'


def attention_command(kept: Kept, model: str) -> str:
    """Return the command that analyzes attention, with the weights and images of the last run on the classifier."""
    run, spec = _last(kept, '', lambda given: _is_classifier(given, model)), Spec.parse(model)
    given = flags(run.argv[1:]) if run else {}
    size = [] if spec.get('img_size') is None or '--img-size' in given else ['--img-size', str(spec.get('img_size'))]
    seen = [word for flag in PREPROCESS if flag in given for word in (flag, *given[flag])]
    images = ['--bundled'] if '--bundled' in given else ['--data', *(given.get('--data') or ['DIR'])[:1]]
    words = [*_weights(model, given), *images, *size, *seen, '--output-dir', 'DIR']
    return (f'pit-downstream analyze-attention {format_model_flag(str(spec.without("img_size", "num_classes")))} '
            f'{shlex.join(words)}')


def as_source(kept: Kept, model: str) -> str:
    """Return the value of --source for a recorded model. Records name its weights without their folder."""
    run = _last(kept, '', lambda given: _is_classifier(given, model))
    given = flags(run.argv[1:]) if run else {}
    spec = Spec.parse(given['--model'][-1] if run else model)
    weights = _weights(model, given)
    named = {'weights': weights[-1]} if weights else {}
    return str(Spec.of(spec.name, **{**dict(spec.without('amp', 'search', 'mean', 'std', 'weights').kwargs), **named}))


def _weights(model: str, given: Flags) -> list[str]:
    """Return --weights with its value, from the flags of a run or else from the model's name."""
    if given.get('--weights'):
        return ['--weights', given['--weights'][-1]]
    label = get_weights_label(model)
    return [] if not label or _is_published(label) else ['--weights', 'random' if label == 'random' else 'FILE']


def _is_published(label: str) -> bool:
    """Return whether weights come with the model: labels of timm and torchvision, of a folder, of a function."""
    return label in ('custom', 'pretrained') or '/' in label or ':' in label or '_Weights.' in label


def _last(kept: Kept, tool: str, fits: Callable[[Flags], bool]) -> Run | None:
    """Return the last matching run, with preference for runs of the same tool."""
    runs = [run for run in kept.runs if run.argv and fits(flags(run.argv[1:]))]
    return max([run for run in runs if _is(run, tool)] or runs, key=lambda run: run.started, default=None)


def _kept(run: Run, tool: str, more: Sequence[str]) -> list[str]:
    """Return the flags of a run that also apply to `tool` and are not in `more`."""
    wanted = (*SHARED, *CONDITIONS) if _is(run, tool) else SHARED
    return [word for flag, values in flags(run.argv[1:]).items() if flag in wanted and flag not in more
            for word in (flag, *values)]


def _is(run: Run, tool: str) -> bool:
    return tool_name(run.argv[0]) == Path(tool).stem


def _is_classifier(given: Flags, model: str) -> bool:
    """Return whether a run with these flags measured `model`, as far as its recorded name shows."""
    spec, asked = Spec.parse(model), (given.get('--model') or [''])[-1]
    try:
        known = Spec.parse(asked)
    except ValueError:
        return False
    label = get_weights_label(model)
    weights = (given.get('--weights') or [str(known.get('weights') or 'pretrained')])[-1]
    fits = _is_published(label) or not label if weights == 'pretrained' else Path(weights).name == label
    return (known.name in (spec.name, label) and fits
            and all(spec.get(key) == value for key, value in known.kwargs if key != 'weights'))


def _is_detector(given: Flags, model: str) -> bool:
    return Path((given.get('--model') or [''])[-1]).stem == Spec.parse(model).name


def _program(tool: str) -> str:
    return f'pit-downstream {Path(tool).stem.replace("_", "-")}'


def tool_name(program: str) -> str:
    """Return the name of a tool from argv[0], such as 'tools/eval_coco_c.py' or 'pit-downstream eval-coco-c'."""
    return Path(program.rpartition(' ')[2]).stem.replace('-', '_')
