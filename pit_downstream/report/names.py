"""Labels of models and datasets on the page: short if unambiguous, otherwise the full Spec."""

from collections.abc import Iterable
from pathlib import Path

from pit_downstream.results.records import get_model_key, get_weights_label
from pit_downstream.utils.spec import Spec, format_value

VIEW = ('size', 'resize', 'interpolation', 'mode', 'border', 'view')  # arguments of a view (datasets.base)

def get_image_key(dataset: str) -> str:
    """Return the dataset without view arguments, which is equal for the same images."""
    return str(Spec.parse(dataset).without(*VIEW))


def model_labels(models: Iterable[str]) -> dict[str, str]:
    """Return a short label by Spec text: the name if it is unique, otherwise with the arguments that differ."""
    models = list(dict.fromkeys(models))
    keys = {model: Spec.parse(get_model_key(model)) for model in models}
    labels = {}
    for model, spec in keys.items():
        rivals = {other for other in keys.values() if other.name == spec.name and other != spec}
        shown = {key: value for key, value in spec.kwargs if any(other.get(key) != value for other in rivals)}
        if 'weights' in shown:
            shown['weights'] = Spec.parse(model).get('weights')  # with its readable part
        short = _short(spec, list(shown.items())) if rivals else spec.name
        random = get_weights_label(model) == 'random'
        labels[model] = f'{short}, random weights' if random else short
    return labels


def dataset_label(dataset: str) -> str:
    """Return a label such as 'cifar10/test, 100 of 2000 images' from a Spec."""
    spec = Spec.parse(dataset)
    name, root, annotations = spec.name, spec.get('root'), spec.get('annotations')
    if isinstance(root, str):
        name = root if spec.name == 'folder' else f'{spec.name} {root}'
    elif isinstance(annotations, str):
        name = f'{spec.name} {Path(annotations.partition("@")[0]).stem}'
    images, limit = spec.get('images'), spec.get('limit')
    plain = f'{limit or images} image{"s" * ((limit or images) != 1)}'
    count = f'{limit} of {images} images' if limit and images else plain
    return f'{name}, {count}' if images or limit else name


def _short(spec: Spec, differing: list[tuple]) -> str:
    """Return the name with these arguments. A weights file is shown by name and part of its digest."""
    words = []
    for key, value in differing:
        file, at, digest = str(value).rpartition('@')
        words.append(f'{Path(file).stem}@{digest[:4]}' if at else value if isinstance(value, str)
                     else f'{key}={format_value(value)}')
    return f'{spec.name} ({", ".join(map(str, words))})' if words else f'{spec.name} (plain)'
