"""Python API: evaluate a model in a benchmark, attack images, compare results.

Keywords have the names of the tools' flags.
"""

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pit_downstream.benchmarks.attention import Attention
from pit_downstream.benchmarks.base import Benchmark, require_counts
from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.results.records import Table
from pit_downstream.results.results import Results, compare
from pit_downstream.utils.config_paths import is_config
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.extras import require_extra
from pit_downstream.utils.registry import BENCHMARKS, METRICS
from pit_downstream.utils.spec import Spec

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from pit_downstream.evaluation.classifier import ClassifierPredictor
    from pit_downstream.evaluation.evaluator import EvaluationOptions, Evaluator, Store
    from pit_downstream.utils.protocols import Metric, Predictor

__all__ = ['attack', 'classifier', 'compare', 'detector', 'evaluate', 'list_models']

TASKS = ('classifier', 'detector')
DETECTOR_BENCHMARKS = {'adversarial': 'detection_attacks'}  # by the name that applies to both tasks


@dataclass(frozen=True)
class DetectorModel:
    """A detector of mmdet, to be built when its data are known.

    Attributes:
        config: Path, bundled name, or PACKAGE::FILE.
        weights: Checkpoint file, work dir for its latest checkpoint, or 'random'.
        cfg_options: Settings that override those of the config.
    """

    config: str
    weights: str
    cfg_options: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class AttackOutcomes:
    """Outcomes of an attack on N images.

    Attributes:
        was_correct, is_correct: Whether each image is classified correctly before and after the attack, bool (N,).
        forwards, backwards: Images in forward and backward passes, for the search and the verdict.
    """

    was_correct: 'np.ndarray'
    is_correct: 'np.ndarray'
    forwards: int
    backwards: int

    @property
    def robust_accuracy(self) -> float:
        """Fraction of images that are classified correctly after the attack."""
        return float(self.is_correct.mean())


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Arguments of `evaluate` that select the model."""

    weights: str | None
    preprocess: str
    img_size: int | None
    mean: 'Sequence[float] | None'
    std: 'Sequence[float] | None'
    resolution: str
    cfg_options: Mapping[str, Any] | None
    device: str
    precision: str
    compile: bool
    seed: int


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Arguments of `evaluate` that select the images."""

    data: Any
    images: str | None
    bundled: bool
    labels: str | None
    classes: str | None
    cache: str | None
    limit: int | None
    corrupted_data: str | None
    corrupted_name: str | None


@dataclass(frozen=True)
class Subject:
    """Predictor, samples and metrics of an evaluation. header: lines above the tables."""

    predictor: 'Predictor'
    samples: Any
    metrics: 'Sequence[Metric]'
    batch_size: int | str = 'auto'
    header: tuple[str, ...] = ()


def classifier(module: 'nn.Module | str', *, mean: 'Sequence[float] | float | None' = None,
               std: 'Sequence[float] | float | None' = None, img_size: int | None = None,
               class_names: 'Sequence[str] | None' = None, name: str | None = None, weights: str | None = None,
               preprocess: str = 'model', precision: str = 'float32', compile: bool = False, device: str = 'auto',
               seed: int = 0) -> 'ClassifierPredictor':
    """Return a classifier for `evaluate` and `attack`, from a module or by name.

    Args:
        module: Module that maps normalized images (B, 3, H, W) to logits (B, K), which stays on its device; or a name,
            see models.build_classifier.
        mean, std: For images in [0, 1], one number or three. Use 0 and 1 for a module that normalizes its inputs.
        img_size: Input size of the network. Without it, a module gets images as they are.
        class_names: Class names in the order of the outputs, to which class folders are matched.
        name: Name of a module in records. Required to store results.
        weights, preprocess, device, seed: Of a model by name: 'pretrained', 'random' or a checkpoint file; 'model',
            'imagenet' or 'none'; 'cpu', 'cuda', 'cuda:1' or 'auto'; the seed of random weights.
        precision: 'float32', 'bf16' or 'fp16'.
        compile: Run the model through torch.compile.

    Raises:
        InputError: The model or its weights are not available, or the normalization of a module is not known.
    """
    from pit_downstream.evaluation import inputs
    if isinstance(module, str):
        predictor = inputs.load_classifier(module, weights=weights, precision=precision, compile=compile, device=device,
                                           seed=seed, preprocess=preprocess, img_size=img_size, mean=_as_tuple(mean),
                                           std=_as_tuple(std))
        if class_names is not None:
            inputs.set_class_names(predictor, class_names)
        return predictor
    return inputs.wrap_module(module, mean=mean, std=std, img_size=img_size, class_names=class_names, name=name,
                              precision=precision, compile=compile)


def detector(config: str, weights: str, *, cfg_options: Mapping[str, Any] | None = None) -> DetectorModel:
    """Return a detector of mmdet for `evaluate`, which builds it with its data.

    Args:
        config: Path, name of a bundled config such as 'retinanet_pit_s', or PACKAGE::FILE.
        weights: Checkpoint file, work dir for its latest checkpoint, or 'random'.
        cfg_options: Settings that override those of the config.
    """
    return DetectorModel(str(config), str(weights), cfg_options)


def list_models(filter: str = '', *, pretrained: bool = False) -> list[str]:
    """Return the names of classifiers that `evaluate` accepts: those of this project, then those of timm.

    Args:
        filter: Shell pattern, such as 'pit_*'.
        pretrained: Only models with published weights.
    """
    import timm

    from pit_downstream import backbones
    names = timm.list_models(filter, pretrained=pretrained)
    ours = [name for name in names if timm.model_entrypoint(name).__module__.startswith(backbones.__name__)]
    return [*ours, *(name for name in names if name not in set(ours))]


def _in_evaluation_mode(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function of a model to set its module to evaluation mode, and to restore the mode at the end."""
    @wraps(function)
    def call(model: Any, *args: Any, **options: Any) -> Any:
        module = getattr(model, 'model', model)
        if not hasattr(module, 'modules'):
            return function(model, *args, **options)
        from pit_downstream.evaluation.classifier import evaluation_mode
        with evaluation_mode(module):
            return function(model, *args, **options)
    return call


@_in_evaluation_mode
def attack(model: 'str | nn.Module | ClassifierPredictor', images: 'Tensor', labels: 'Tensor',
           attack: str = 'pgd(steps=20)', *, epsilon: float | None = None, norm: str | None = None, seed: int = 0,
           batch_size: int = 64) -> 'tuple[Tensor, AttackOutcomes]':
    """Attack images of a classifier.

    Args:
        model: A name, a module with `pretrained_cfg`, or the result of `classifier`. It gets the images normalized.
        images: (N, 3, H, W), float in [0, 1], of the model's input size.
        labels: Class indices (N,), int.
        attack: Name with arguments, such as 'autoattack' or 'pgd(steps=20, restarts=5)'.
        epsilon: Size of the perturbation on the scale of the images, such as 8/255. A patch has none.
        norm: 'Linf', 'L2' or 'L1' (default: that of the attack).
        seed: The random draws of image i depend on (seed, i) alone.
        batch_size: Images per forward pass.

    Returns:
        The adversarial images (N, 3, H, W), on the device of `images`. Images that are misclassified without an attack
        are not changed. And the outcomes.

    Raises:
        InputError: Images or labels are not as described, or an argument contradicts one of `attack`.
    """
    import numpy as np
    import torch

    from pit_downstream.evaluation.attacking import attack_curve, complete_attack
    from pit_downstream.utils.protocols import Batch, Sample
    predictor = _as_classifier(model)
    if images.ndim != 4 or images.shape[1] != 3 or labels.shape != images.shape[:1] or not images.is_floating_point():
        raise InputError(f'images must be float (N, 3, H, W) and labels (N,), got {images.dtype} '
                         f'{tuple(images.shape)} and {tuple(labels.shape)}. Convert them.')
    if not len(images) or not (0 <= float(images.min()) and float(images.max()) <= 1):
        raise InputError('images must be a non-empty batch in [0, 1]. Leave the normalization to the model.')
    if not 0 <= int(labels.min()) <= int(labels.max()) < predictor.classes():
        raise InputError(f'labels must be in 0..{predictor.classes() - 1}, the classes of the model, got '
                         f'{int(labels.min())}..{int(labels.max())}. Pass the class indices of the model.')
    spec = Spec.parse(attack)
    given = {name: value for name, value in (('epsilon', epsilon), ('norm', norm)) if value is not None}
    for name, value in given.items():
        before = spec.get(name, value)
        if before != value and (not isinstance(before, (int, float, Fraction)) or float(before) != value):
            raise InputError(f'{name} is {before} in {attack} and {value} as an argument. Pass one of them.')
    spec = complete_attack(str(Spec.of(spec.name, **{**given, **dict(spec.kwargs)})))
    if spec.get('norm', 'Linf') != 'patch' and spec.get('epsilon') is None:
        raise InputError(f'the attack {attack} has no epsilon. Pass epsilon=8/255, or another size.')
    adversarial, was_correct, is_correct, costs = [], [], [], np.zeros(2, int)
    for start in range(0, len(images), batch_size):
        part = images[start:start + batch_size].to(predictor.device).float()
        samples = tuple(Sample(str(start + row), image, int(label)) for row, (image, label) in enumerate(
            zip(part, labels[start:start + batch_size], strict=True)))
        valid = torch.ones((), dtype=torch.bool, device=part.device).expand(len(part), 1, *part.shape[-2:])
        batch = Batch(part, valid, samples)
        clean = predictor.predict(part, batch).predictions.argmax(1) == predictor.labels(batch)
        result = next(attack_curve(predictor, batch, [spec], seed))
        assert result.wrong is not None  # known for classifiers
        adversarial.append(result.images.to(images.device, images.dtype))
        was_correct.append(clean.cpu().numpy())
        is_correct.append((~result.wrong).cpu().numpy())
        costs += (result.forwards, result.backwards)
    outcomes = AttackOutcomes(np.concatenate(was_correct), np.concatenate(is_correct), *map(int, costs))
    return torch.cat(adversarial), outcomes


@_in_evaluation_mode
def evaluate(model: 'str | nn.Module | ClassifierPredictor | DetectorModel', benchmark: str | Benchmark = 'imagenet_c',
             *, data: Any = None, weights: str | None = None, output_dir: str | Path | None = None,
             images: str | None = None, bundled: bool = False, labels: str | None = None, classes: str | None = None,
             cache: str | None = None, limit: int | None = None, allow_missing: int = 0,
             corrupted_data: str | None = None, corrupted_name: str | None = None, preprocess: str = 'model',
             img_size: int | None = None, mean: 'Sequence[float] | None' = None, std: 'Sequence[float] | None' = None,
             resolution: str = 'network', cfg_options: Mapping[str, Any] | None = None,
             save_images: str | None = None, batch_size: int | str | None = None, workers: int | None = None,
             device: str = 'auto', precision: str = 'float32', compile: bool = False, seed: int = 0,
             progress: bool = True, dry_run: bool = False, argv: Sequence[str] = ()) -> Results:
    """Evaluate a model in a benchmark.

    Works in a notebook, under torchrun and Slurm, on a CPU and a GPU. With `output_dir`, per-image outcomes and results
    are stored as they are computed, and a killed call resumes.

    Args:
        model: Name of a classifier ('pit_s', 'resnet50', 'torchvision:resnet50', 'local-dir:FOLDER',
            'module:function'), a config with `weights`, a module with `pretrained_cfg`, or the result of `classifier`
            or `detector`.
        benchmark: Name, with arguments if needed ('imagenet_c(severities=(1, 3))'), or a Benchmark.
        data: Folder, annotation file with `images`, or dataset object with pairs (image, label). Default: ImageNet's
            validation images in data/imagenet/val, or the dataset of the detector's config.
        output_dir: Folder for results, None to keep them in memory.
        limit: Number of evenly spaced images to use.
        allow_missing: Number of unreadable images allowed.
        progress: Show the progress.
        dry_run: Print conditions, images, and estimated time and disk space, and evaluate nothing.
        argv: Command to record (default: that which repeats the call, or sys.argv if a module or dataset has none).

    Other arguments are those of the tools (docs/evaluation.md).

    Returns:
        The results: frame, summary, tables, gaps.

    Raises:
        InputError: An argument is invalid, before any work; or an image or output of the model is.
    """
    from pit_downstream.evaluation.evaluator import EvaluationOptions, Store
    from pit_downstream.evaluation.inputs import choose_workers
    from pit_downstream.utils.path_checks import require_writable_folder
    for folder, flag in ((output_dir, '--output-dir'), (save_images, '--save-images'), (cache, '--cache')):
        if folder:
            require_writable_folder(folder, flag)
    tasks = benchmark.tasks if isinstance(benchmark, Benchmark) else TASKS
    task, model, weights = _identify(model, weights, tasks)
    benchmark = find_benchmark(benchmark, task)
    model_options = ModelOptions(weights=weights, preprocess=preprocess, img_size=img_size, mean=mean, std=std,
                                 resolution=resolution, cfg_options=cfg_options, device=device, precision=precision,
                                 compile=compile, seed=seed)
    data_options = DataOptions(data=data, images=images, bundled=bundled, labels=labels, classes=classes, cache=cache,
                               limit=limit, corrupted_data=corrupted_data, corrupted_name=corrupted_name)
    store = Store(output_dir)
    argv = tuple(argv) or _make_command(benchmark, model, model_options, data_options, {
        'output_dir': output_dir, 'allow_missing': allow_missing}) or tuple(sys.argv)
    _check_data(task, data_options, is_optional=benchmark.name == 'shifts')
    if benchmark.name == 'shifts':
        folders = _choose_shifts(benchmark, data_options)
        predictor = _open_classifier(model, model_options, data_options)
        _require_names(predictor, None, output_dir)
        options = EvaluationOptions(seed=seed, batch_size=batch_size or 'auto', allow_missing=allow_missing, argv=argv,
                                    workers=choose_workers(workers, predictor.device), progress=progress)
        return _evaluate_shifts(benchmark, folders, predictor, data_options, store, options, dry_run=dry_run)
    benchmark, sources = _complete_attacks(benchmark, task, model_options)
    open_subject = _open_detector_subject if task == 'detector' else _open_classifier_subject
    subject = open_subject(model, benchmark, model_options, data_options, sources, output_dir)
    _require_names(subject.predictor, subject.samples, output_dir)
    options = EvaluationOptions(
        seed=seed, batch_size=batch_size or subject.batch_size, allow_missing=allow_missing, progress=progress,
        workers=choose_workers(workers, subject.predictor.device), save_images=save_images, predictors=sources,
        argv=argv)
    return _evaluate_conditions(benchmark, subject, store, options, dry_run=dry_run)


def _make_command(benchmark: Benchmark, model: Any, model_options: ModelOptions, data_options: DataOptions,
                  others: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the command that repeats a call of `evaluate`, () for a module, a dataset object or a notebook's class."""
    module = type(benchmark).__module__
    is_file = data_options.data is None or isinstance(data_options.data, (str, Path))
    if not isinstance(model, (str, DetectorModel)) or not is_file or module == '__main__':
        return ()
    values = {**vars(model_options), **vars(data_options), **others}
    name = model
    if isinstance(model, DetectorModel):
        name, values['weights'] = model.config, model.weights
        values['cfg_options'] = model.cfg_options or values['cfg_options']
    words = [f'pit-downstream {benchmark.tool.split()[0]}', *benchmark.tool.split()[1:], '--model', str(name)]
    words += [] if module.startswith('pit_downstream.') else ['--import', module]
    defaults = inspect.signature(evaluate).parameters
    for name, value in values.items():
        if value != defaults[name].default:
            if isinstance(value, Mapping):
                value = [f'{key}={item}' for key, item in value.items()]
            texts = [] if value is True else value if isinstance(value, (tuple, list)) else [value]
            words += [f'--{name.replace("_", "-")}', *map(str, texts)]
    return (*words, *(word for flag, texts in benchmark.list_flags().items() for word in (flag, *texts)))


def _identify(model: Any, weights: str | None, tasks: Sequence[str]) -> tuple[str, Any, str | None]:
    """Return the task, the model and its weights. A config is read to know its task."""
    if isinstance(model, DetectorModel):
        return 'detector', model, model.weights
    if isinstance(model, str):
        task, name, weights = choose_model(model, weights, *tasks)
        return task, DetectorModel(name, str(weights)) if task == 'detector' else name, weights
    return 'classifier', model, weights


def choose_model(model: str, weights: str | None, *tasks: str) -> tuple[str, str, str | None]:
    """Return the task of a model, the name of a classifier or the config of a detector, and the weights.

    Args:
        model, weights: Values of --model and --weights.
        tasks: Tasks that are accepted: 'classifier', 'detector' or both.

    Raises:
        InputError: There is no such config, its model is for another task, or a config is without weights.
    """
    if not is_config(model):
        if 'classifier' in tasks:
            return 'classifier', model, weights
        import difflib

        from pit_downstream.utils.config_paths import bundled_configs
        from pit_downstream.utils.spec import quote
        near = difflib.get_close_matches(model, [path.stem for path in bundled_configs()], n=3)
        raise InputError(f'--model must be the config of a detector, got {quote(model)}. '
                         f'{"Did you mean " + ", ".join(near) + "?" if near else "Pass a path or a name in configs/."}')
    require_extra('train' if 'classifier' in tasks else 'det')
    from pit_downstream.training.launch import load_config
    config = load_config(model).get('model') or {}
    task = 'classifier' if config.get('type') == 'ImageClassifier' else 'detector'
    if task not in tasks:
        raise InputError(f'--model must be a {tasks[0]}, got the config of a {task}: {model}. Pass the config of a '
                         f'{tasks[0]}, or use the tool for a {task}.')
    if weights is None:
        raise InputError(f'--weights is missing for the config {model}. Pass a checkpoint file or random.')
    if task == 'detector':
        return task, model, weights
    if Path(weights).is_dir():
        weights = str(Path(weights, 'weights.pth'))  # written by training
    kept = {key: value for key, value in config['network'].items() if not key.startswith(('pretrained', 'drop'))}
    return task, str(Spec.of(kept.pop('name'), **kept)), weights


def find_benchmark(benchmark: str | Benchmark, task: str) -> Benchmark:
    """Return the benchmark of a name, checked for the task."""
    chosen = _build_benchmark(benchmark, task) if isinstance(benchmark, str) else benchmark
    if task not in chosen.tasks:
        raise InputError(f'the benchmark {chosen.name} is for a {chosen.tasks[0]}, got a {task}. Choose one of '
                         f'{", ".join(name for name in BENCHMARKS if task in BENCHMARKS[name].tasks)}.')
    return chosen


def _build_benchmark(text: str, task: str) -> Benchmark:
    spec = Spec.parse(text)
    name = DETECTOR_BENCHMARKS.get(spec.name, spec.name) if task == 'detector' else spec.name
    try:
        return BENCHMARKS[name](**dict(spec.kwargs))
    except TypeError as error:
        raise InputError(f'no such argument of the benchmark {spec}: {error}. Leave it out.') from error


def _check_data(task: str, data: DataOptions, *, is_optional: bool) -> None:
    """Raise InputError for a missing folder of images, before a model is built or downloaded.

    is_optional: the default folder may be missing, as the clean images of shifts.
    """
    from pit_downstream.evaluation.inputs import require_folder
    if data.corrupted_data is not None and not Path(data.corrupted_data).is_dir():
        raise InputError(f'no folder of corrupted images: {data.corrupted_data}. Pass another --corrupted-data DIR.')
    is_needed = data.data is None and data.corrupted_data is None and not is_optional
    if task == 'classifier' and (is_needed or isinstance(data.data, (str, Path))):
        require_folder(data.data, bundled=data.bundled)


def _complete_attacks(benchmark: Benchmark, task: str, model: ModelOptions) -> 'tuple[Benchmark, Any]':
    """Return the benchmark with complete attacks, and the function that builds the models of transfer attacks."""
    from pit_downstream.evaluation.attacking import check_attack, complete_attack
    from pit_downstream.evaluation.corrupting import check_corruption
    sources = None
    if hasattr(benchmark, 'attacks'):
        if task == 'classifier':
            from pit_downstream.evaluation.distributed import init_distributed
            from pit_downstream.evaluation.models import classifiers
            sources = classifiers(preprocess=model.preprocess, img_size=model.img_size, seed=model.seed,
                                  device=init_distributed(model.device))
        else:
            require_extra('det')
            from pit_downstream import det  # noqa: F401  registers the attacks on detectors
        source = getattr(benchmark, 'source', None)
        attacks = tuple(str(complete_attack(text, source=source, predictors=sources)) for text in benchmark.attacks)
        benchmark = replace(benchmark, attacks=attacks)  # type: ignore[type-var]
    for condition in benchmark.conditions():
        check_corruption(condition.corruption)
        check_attack(condition.attack, sources)
    return benchmark, sources


def _as_classifier(model: Any) -> 'ClassifierPredictor':
    """Return the classifier of a name, a module or an adapter."""
    from pit_downstream.evaluation.classifier import ClassifierPredictor
    return model if isinstance(model, ClassifierPredictor) else classifier(model)


def _open_classifier(model: Any, options: ModelOptions, data: DataOptions, *, is_attacked: bool = False,
                     build: Callable | None = None) -> 'ClassifierPredictor':
    from pit_downstream.evaluation import inputs, models
    from pit_downstream.evaluation.classifier import ClassifierPredictor
    if isinstance(model, str):
        return inputs.load_classifier(
            model, weights=options.weights, classes=data.classes, precision=options.precision, compile=options.compile,
            device=options.device, seed=options.seed, is_attacked=is_attacked, build=build or models.build_classifier,
            preprocess=options.preprocess, img_size=options.img_size, mean=_as_tuple(options.mean),
            std=_as_tuple(options.std))
    if options.weights is not None:
        raise InputError(f'weights is for a model by name, got {options.weights} with a {type(model).__name__}. Load '
                         'them into the module.')
    if isinstance(model, ClassifierPredictor):
        given = {'mean': options.mean, 'std': options.std, 'img_size': options.img_size}
        wrong = [name for name, value in given.items() if value is not None]
        wrong += ['precision'] if options.precision != 'float32' else []
        if wrong:
            raise InputError(f'{wrong[0]} is an argument of the adapter: pass it to pit.classifier(...).')
        if model.is_module:  # its weights may have changed
            inputs.identify_module(model)
        return model
    return inputs.wrap_module(model, mean=options.mean, std=options.std, img_size=options.img_size,
                              precision=options.precision, compile=options.compile)


def _open_classifier_subject(model: Any, benchmark: Benchmark, options: ModelOptions, data: DataOptions, sources: Any,
                             output_dir: str | Path | None) -> Subject:
    """Open a classifier with the images of a benchmark. Folders are checked before the model is built."""
    from pit_downstream.evaluation import inputs
    needs_labels = not isinstance(benchmark, Attention)
    build: Callable | None = None
    if not needs_labels:
        from pit_downstream.evaluation.attention_analysis import build_model
        build = build_model
    conditions = benchmark.conditions()
    is_attacked = any(condition.attack for condition in conditions)
    predictor = _open_classifier(model, options, data, is_attacked=is_attacked, build=build)
    metrics = [_make_metric(name) for name in benchmark.metric_names('classifier')]
    header = [inputs.describe_preprocessing(predictor, is_published=data.corrupted_data is not None)]
    if not needs_labels:
        samples = inputs.open_unlabeled_images(predictor, data.data, bundled=data.bundled, limit=data.limit,
                                               exclude=output_dir)
    elif data.corrupted_data is not None:
        corruptions = [condition.corruption for condition in conditions if condition.corruption]
        names = dict.fromkeys(corruption.name for corruption in corruptions)
        severities = dict.fromkeys(corruption.get('severity') for corruption in corruptions)
        samples = inputs.open_corrupted_images(
            predictor, data.corrupted_data, list(names), list(severities),  # type: ignore[arg-type]
            name=data.corrupted_name, limit=data.limit, data=data.data, bundled=data.bundled, labels=data.labels)
    else:
        samples = inputs.open_images(predictor, data.data, bundled=data.bundled, labels=data.labels, limit=data.limit,
                                     cache=data.cache)
    for name in sorted({str(condition.attack.get('source')) for condition in conditions
                        if condition.attack and condition.attack.name == 'transfer'}):
        source = sources(name)
        inputs.require_classes(samples, source)
        if source.class_names and predictor.class_names and source.class_names != predictor.class_names:
            raise InputError(f'the classes of --source differ from those of --model: '
                             f'{", ".join(source.class_names[:4])} and {", ".join(predictor.class_names[:4])}. Use a '
                             'source of the same classes and order.')
        header.append(f'source {source.name}: the same images, {source.preparation.normalization}')
    return Subject(predictor, samples, metrics, 'auto', tuple(header))


def _open_detector_subject(model: Any, benchmark: Benchmark, options: ModelOptions, data: DataOptions, sources: Any,
                           output_dir: str | Path | None) -> Subject:
    """Open a detector with the images and the metric of its config."""
    require_extra('det')
    from pit_downstream.det.inputs import load_detector
    if data.data is not None and not isinstance(data.data, (str, Path)):
        raise InputError(f'the data of a detector are a folder or an annotation file, got {type(data.data).__name__}. '
                         'Pass a path.')
    opened = load_detector(model.config, model.weights, data=None if data.data is None else str(data.data),
                           images=data.images, bundled=data.bundled,
                           cfg_options={**(model.cfg_options or {}), **(options.cfg_options or {})}, limit=data.limit,
                           resolution=options.resolution, device=options.device, seed=options.seed)
    metric = opened.metric
    return Subject(opened.predictor, opened.samples, [metric], opened.batch_size, (f'AP by {metric.source}',))


def _make_metric(text: str) -> 'Metric':
    """Return a metric by its name, with arguments."""
    from pit_downstream.metrics import attention, classification, label_sets  # noqa: F401  register metrics
    spec = Spec.parse(text)
    return METRICS[spec.name](**dict(spec.kwargs))


def _require_names(predictor: Any, samples: Any, output_dir: str | Path | None) -> None:
    """Raise InputError if results of an object without a name would be stored."""
    for value, what in ((predictor, 'module'), (samples, 'dataset')):
        if output_dir and not getattr(value, 'has_given_name', True):
            how = "pit.classifier(module, name='my_net', ...)" if what == 'module' else 'its attribute `name`'
            raise InputError(f'a {what} object needs a name to store its results in {output_dir}. Set {how}.')


def _evaluate_conditions(benchmark: Benchmark, subject: Subject, store: 'Store', options: 'EvaluationOptions', *,
                         dry_run: bool) -> Results:
    """Evaluate the conditions of a benchmark on one dataset."""
    from pit_downstream.evaluation import robustness_checks
    from pit_downstream.evaluation.distributed import broadcast, rank
    from pit_downstream.evaluation.evaluator import Evaluator
    predictor, samples = subject.predictor, subject.samples
    conditions = [condition for condition in benchmark.conditions() if condition != CLEAN or _has_clean_images(samples)]
    attacked = [condition for condition in conditions if condition.attack is not None]
    evaluator = Evaluator(predictor, samples, subject.metrics, conditions, store=store, options=options,
                          benchmark=benchmark.text)
    if dry_run:
        _print_plan([evaluator])
        return _make_results(benchmark, {'data': evaluator.read_table()}, store, subject, options)
    warnings: tuple[str, ...] = ()
    is_classifier = hasattr(predictor, 'logits')
    if attacked and is_classifier:
        warnings = robustness_checks.check_classifier(predictor, samples)  # type: ignore[arg-type]
    elif attacked:
        if options.save_images:
            raise InputError('--save-images applies to a classifier, got a detector. pit-downstream show-detections '
                             'draws attacked images.')
        pending = [condition for condition in evaluator.list_pending() if condition.attack is not None]
        robustness_checks.try_attacks(predictor, samples, pending, options.seed)
    table = evaluator.run()
    if attacked and is_classifier:
        after = robustness_checks.check_accuracies(table, attacked) if rank() == 0 else None
        warnings = (*warnings, *broadcast(after))
    wanted = {str(condition) for condition in (*conditions, *(condition for condition, _ in benchmark.required()))}
    table = Table(table.model, table.dataset, [record for record in table.records if record.condition in wanted])
    require_counts(table, len(samples), allow_missing=options.allow_missing)
    return _make_results(benchmark, {'data': table}, store, subject, options, warnings)


def _print_plan(evaluators: 'Iterable[Evaluator]') -> None:
    from pit_downstream.evaluation.distributed import rank
    from pit_downstream.evaluation.dry_run import describe_plan
    for evaluator in evaluators:
        lines = list(describe_plan(evaluator))
        if rank() == 0:
            print(*lines, sep='\n')  # noqa: T201


def _has_clean_images(samples: Any) -> bool:
    conditions: Iterable[Condition] | None = getattr(samples, 'conditions', None)
    return conditions is None or CLEAN in conditions


def _choose_shifts(benchmark: Benchmark, data: DataOptions) -> dict[str, str | None]:
    """Return the folders of the selected shifts by name."""
    from pit_downstream.datasets.shifts import check_folders, is_custom, select_shifts
    from pit_downstream.evaluation.inputs import IMAGENET_VAL
    folders = select_shifts(benchmark.shifts, data.data or IMAGENET_VAL)  # type: ignore[attr-defined]
    if not folders:
        raise InputError('no shifted dataset in data/. Put one where data/README.md describes, or pass its folder: '
                         '--shifts imagenet_a=DIR.')
    check_folders(folders)
    custom = [name for name in folders if is_custom(name)]
    if custom and data.labels:
        raise InputError(f'--labels does not apply to {custom[0]}, whose clean images are in class folders. Leave it '
                         'out, and pass their folder with --data DIR.')
    return folders


def _evaluate_shifts(benchmark: Benchmark, folders: Mapping[str, str | None], predictor: 'ClassifierPredictor',
                     data: DataOptions, store: 'Store', options: 'EvaluationOptions', *, dry_run: bool) -> Results:
    """Evaluate a classifier on shifted datasets, which have different images."""
    from pit_downstream.datasets.cache import CachedSamples
    from pit_downstream.datasets.shifts import CleanReference, is_custom, load_shifts
    from pit_downstream.evaluation import inputs
    from pit_downstream.evaluation.shifts import make_evaluators, run_evaluators
    clean = inputs.open_clean_images(predictor, data.data, bundled=data.bundled, labels=data.labels, limit=data.limit,
                                     cache=data.cache, of_imagenet=not all(map(is_custom, folders)))
    reference = None if clean is None else CleanReference(
        Path(inputs.find_folder(data.data, bundled=data.bundled)), clean.name, inputs.get_classes(predictor))
    shifts = load_shifts(folders, view=predictor.view, limit=data.limit, clean=reference)
    for name, shift in shifts.items() if data.cache else ():
        if shift.samples is not None:  # the cache has the methods of the samples
            shifts[name] = replace(shift, samples=CachedSamples(shift.samples, data.cache))  # type: ignore[arg-type]
    evaluators = make_evaluators(predictor, shifts, clean, store=store, options=options)
    if dry_run:
        _print_plan(dict.fromkeys(evaluators.values()))
        tables = {name: evaluator.read_table() for name, evaluator in evaluators.items()}
    else:
        tables = run_evaluators(evaluators)
    subject = Subject(predictor, clean, (), header=(inputs.describe_preprocessing(predictor),))
    chosen = replace(benchmark, shifts=tuple(shifts))  # type: ignore[type-var]
    return _make_results(chosen, tables, store, subject, options)


def _make_results(benchmark: Benchmark, tables: Mapping[str, Table], store: 'Store', subject: Subject,
                  options: 'EvaluationOptions', warnings: Sequence[str] = ()) -> Results:
    """Return results that read per-image outcomes from the store when they are needed."""
    from pit_downstream.results.outcomes import Identity, make_reader
    readers = {}
    for table in tables.values():
        count = max((record.count + record.unreadable for record in table.records), default=0)
        readers[table.dataset] = make_reader([(store.outcomes, Identity(table.model, table.dataset, options.seed,
                                                                        count))])

    def read_outcomes(dataset: str, condition: Condition, metric: str) -> 'np.ndarray | None':
        return readers[dataset](condition, metric)
    return Results(benchmark, tables, read_outcomes=read_outcomes, argv=options.argv, header=subject.header,
                   warnings=warnings)


def _as_tuple(values: 'Sequence[float] | float | None') -> tuple[float, ...] | None:
    if values is None:
        return None
    return (values,) if isinstance(values, (int, float)) else tuple(values)
