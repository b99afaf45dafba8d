"""Commands on a model that was measured, based on the flags of its recorded runs."""

import shlex
from collections.abc import Iterable, Sequence

from pit_downstream.benchmarks.base import format_model_flag
from pit_downstream.results.commands import Flags, get_tool, parse_flags
from pit_downstream.results.records import get_model_key, get_weights_label
from pit_downstream.utils.spec import Spec
from pit_downstream.report.inputs import Run
from pit_downstream.report.models import ModelResults

# Flags with one meaning in every tool: they apply to another tool on the same model and images, too.
SHARED = ('--model', '--weights', '--cfg-options', '--preprocess', '--img-size', '--mean', '--std', '--data',
          '--images', '--bundled', '--labels', '--classes', '--limit', '--allow-missing', '--batch-size', '--workers',
          '--device', '--seed', '--output-dir')
# Flags that apply to another run of the same tool
CONDITIONS = ('--jpeg-quality', '--variant', '--corrupted-data', '--corrupted-name', '--bgr', '--precision', '--import')
NOT_IN = {'analyze-attention': ('--images', '--labels', '--classes', '--cfg-options', '--batch-size')}  # by tool
OUTPUTS = ('--csv', '--json', '--latex', '--markdown', '--save-images', '--dry-run', '--debug')


def choose_argv(runs: Iterable[Run], entry: ModelResults, tool: str) -> list[str]:
    """Return a command of `tool` on a model, with the flags of the last known run on it.

    Runs on the same dataset come first, then those of the same tool.

    Args:
        tool: Name of a tool, with the flag of a benchmark if it has one: 'eval-shifts', 'evaluate --benchmark NAME'.
    """
    program, *rest = tool.split()
    run = _find_run(runs, entry, program, rest)
    flags = parse_flags(_make_model_flags(entry)) if run is None else {
        flag: values for flag, values in parse_flags(run.argv[1:]).items() if flag in SHARED or _is_run_of(
            run, program, rest) and (flag in CONDITIONS or bool(rest) and flag not in OUTPUTS)}
    flags = {flag: values for flag, values in flags.items() if flag not in NOT_IN.get(program, ())}
    if program == 'analyze-attention':
        flags |= {} if {'--data', '--bundled'} & flags.keys() else {'--data': ['DIR']}
        flags |= {} if '--output-dir' in flags else {'--output-dir': ['DIR']}
    if rest:
        flags = {rest[0]: rest[1:], **flags}
    return [f'pit-downstream {program}', *(word for flag, values in flags.items() for word in (flag, *values))]


def name_source(runs: Iterable[Run], entry: ModelResults | None, model: str) -> str:
    """Return the value of --source for a recorded model. Records name its weights without their folder."""
    run = _find_run(runs, entry, '', []) if entry else None
    flags: Flags = parse_flags(run.argv[1:] if run else _make_weights_flags(model))
    spec = Spec.parse(flags['--model'][-1] if '--model' in flags else model)
    weights = {'weights': flags['--weights'][-1]} if '--weights' in flags else {}
    kwargs = dict(spec.without('amp', 'search', 'mean', 'std', 'weights').kwargs)
    return str(Spec.of(spec.name, **{**kwargs, **weights}))


def _find_run(runs: Iterable[Run], entry: ModelResults, program: str, rest: Sequence[str]) -> Run | None:
    def rank(run: Run) -> tuple[bool, bool, str]:
        return run.dataset == entry.dataset, _is_run_of(run, program, rest), run.started
    return max((run for run in runs if run.argv and run.model and get_model_key(run.model) == entry.key[0]),
               default=None, key=rank)


def _is_run_of(run: Run, program: str, rest: Sequence[str]) -> bool:
    return get_tool(run.argv[0]) == program and (not rest or run.benchmark.partition('(')[0] == rest[-1])


def _make_model_flags(entry: ModelResults) -> list[str]:
    """Return --model and --weights from the recorded name."""
    if entry.task == 'detector':
        return ['--model', f'configs/{Spec.parse(entry.model).name}.py', '--weights', 'CHECKPOINT']
    return [*shlex.split(format_model_flag(entry.model)), *_make_weights_flags(entry.model)]


def _make_weights_flags(model: str) -> list[str]:
    """Return --weights, [] for weights that come with the model: those of timm, torchvision, a folder or a function."""
    label = get_weights_label(model)
    is_published = label in ('', 'custom', 'pretrained') or '/' in label or ':' in label or '_Weights.' in label
    return [] if is_published else ['--weights', 'random' if label == 'random' else 'FILE']
