"""Labels of models and datasets in tables and figures: short if unambiguous, otherwise with what differs."""

from collections.abc import Iterable
from pathlib import Path

from pit_downstream.results.records import get_model_key, get_weights_label
from pit_downstream.utils.spec import Spec, format_value


def label_models(models: Iterable[str]) -> dict[str, str]:
    """Return a short label by Spec text: the name if it is unique, otherwise with the arguments that differ."""
    models = list(dict.fromkeys(models))
    keys = {model: Spec.parse(get_model_key(model)) for model in models}
    labels = {}
    for model, spec in keys.items():
        rivals = {other for other in keys.values() if other.name == spec.name and other != spec}
        differing = {key: value for key, value in spec.kwargs if any(other.get(key) != value for other in rivals)}
        if 'weights' in differing:
            differing['weights'] = Spec.parse(model).get('weights')  # with its readable part
        short = _add_arguments(spec, list(differing.items())) if rivals else spec.name
        labels[model] = f'{short}, random weights' if get_weights_label(model) == 'random' else short
    return labels


def label_model(model: str) -> str:
    """Return the label of a single model."""
    return label_models([model])[model]


def label_dataset(dataset: str) -> str:
    """Return a label such as 'cifar10/test, 100 of 2000 images' from a Spec."""
    spec = Spec.parse(dataset)
    name, root, annotations = spec.name, spec.get('root'), spec.get('annotations')
    if isinstance(root, str):
        name = root if spec.name in ('folder', 'dataset') else f'{spec.name} {root}'
    elif isinstance(annotations, str):
        name = f'{spec.name} {Path(annotations.partition("@")[0]).stem}'
    images, limit = spec.get('images'), spec.get('limit')
    plain = f'{limit or images} image{"s" * ((limit or images) != 1)}'
    count = f'{limit} of {images} images' if limit and images else plain
    return f'{name}, {count}' if images or limit else name


def _add_arguments(spec: Spec, differing: list[tuple]) -> str:
    """Return the name with these arguments. A weights file is shown by name and part of its digest."""
    words = []
    for key, value in differing:
        file, at, digest = str(value).rpartition('@')
        words.append(f'{Path(file).stem}@{digest[:4]}' if at else value if isinstance(value, str)
                     else f'{key}={format_value(value)}')
    return f'{spec.name} ({", ".join(map(str, words))})' if words else f'{spec.name} (plain)'
