"""A corrupted dataset on disk, for other tools: FOLDER/<corruption>/<severity>/<file>, and FOLDER/annotations.json."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from pit_downstream.results.condition import Condition
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.path_checks import replace_atomically, resolve_inside, write_atomic
from pit_downstream.evaluation.corrupting import apply_corruption
from pit_downstream.evaluation.data_loading import RawBatch, load_blocks
from pit_downstream.evaluation.evaluator import BLOCK, ConditionGroup, group_conditions
from pit_downstream.evaluation.distributed import shard_indices, rank
from pit_downstream.det.samples import DetectionSamples
from pit_downstream.det.ground_truth import GroundTruth

# JPEG is itself a corruption; 95 is the maximum that Pillow advises
FORMATS: dict[str, dict[str, Any]] = {'png': {}, 'jpg': {'quality': 95}}


def save_images(samples: DetectionSamples, truth: GroundTruth, conditions: Iterable[Condition], folder: str | Path, *,
                format: str = 'png', seed: int = 0, batch_size: int = 8, workers: int = 0) -> int:
    """Write the missing images of every corrupted condition and return their number.

    The pixels are those that `measure` passes to a detector with the same seed. Under torch.distributed each rank
    writes its share. Files are written atomically.
    """
    if format not in FORMATS:
        raise InputError(f'format is one of {", ".join(FORMATS)}, got {format!r}')
    folder = Path(folder)
    plan = [group for group in group_conditions(samples, conditions)[1] if group.work[0][1].corruption]
    ids = [samples.info(index)['img_id'] for index in range(len(samples))]
    names = _assign_names(truth, set(ids), format)
    places = [[_build_paths(folder, group, names[id]) for id in ids] for group in plan]
    _require_same_source(folder, {'dataset': samples.name, 'seed': seed})
    if rank() == 0:
        _write_annotations(folder, truth, names, set(ids))
    missing = [[index for index in shard_indices(len(ids)) if not all(path.exists() for path in paths[index])]
               for paths in places]
    wanted = sorted(set().union(*missing))
    blocks = [(0, wanted[start:start + BLOCK]) for start in range(0, len(wanted), BLOCK)]
    for block in load_blocks([samples], blocks, batch_size=batch_size, workers=workers):
        if block.unreadable:
            raise InputError(f'unreadable image: {next(iter(block.unreadable.values()))}. Fix it.')
        for group in plan:
            for batch in block.batches:
                _save_batch(batch, group, folder, names, seed)
    return sum(len(chosen) * len(group.work) for group, chosen in zip(plan, missing, strict=True))


def _assign_names(truth: GroundTruth, ids: set, format: str) -> dict[Any, str]:
    """Return the file name of each copy by image id.

    It is that of the original. If two of these are equal or one would leave the folder, all are named by their ids.
    """
    names = {image['id']: Path(image['file_name']).with_suffix(f'.{format}') for image in truth.content['images']
             if image['id'] in ids}
    fit = len(set(names.values())) == len(names) and not any(
        name.is_absolute() or '..' in name.parts for name in names.values())
    return {id: str(name) if fit else f'{id}.{format}' for id, name in names.items()}


def _save_batch(batch: RawBatch, group: ConditionGroup, folder: Path, names: Mapping[Any, str], seed: int) -> None:
    """Write the missing images of a batch under the conditions of a pass."""
    files = [_build_paths(folder, group, names[target['img_id']]) for target in batch.targets]
    rows = [row for row, paths in enumerate(files) if not all(path.exists() for path in paths)]
    if not rows:
        return
    files, batch = [files[row] for row in rows], batch.select(rows)
    for place, images in enumerate(apply_corruption(batch, [rest for _, rest in group.work], seed)):
        for image, paths in zip(images, files, strict=True):
            _write(image, paths[place])


def _build_paths(folder: Path, group: ConditionGroup, name: str) -> list[Path]:
    """Return the paths of an image under each condition of a pass."""
    specs = [rest.corruption for _, rest in group.work if rest.corruption is not None]
    assert len(specs) == len(group.work)  # save_images selects corrupted groups
    return [resolve_inside(folder, f'{_format_folder(spec)}/{spec.get("severity")}/{name}') for spec in specs]


def _require_same_source(folder: Path, source: Mapping[str, Any]) -> None:
    """Write FOLDER/source.json. Raise InputError if it describes other images, which would be mixed with these."""
    path = folder / 'source.json'
    if not path.exists() and rank() == 0:
        write_atomic(path, json.dumps(source, indent=1) + '\n')
    if path.exists() and json.loads(path.read_text()) != source:
        raise InputError(f'The folder of --save-images has corrupted images of another dataset, limit or seed: '
                         f'{folder}. Name another folder.')


def _format_folder(spec) -> str:
    """Return the folder name of a corruption: 'fog', or with its other settings 'fog,order=bgr'."""
    words = [f'{key}={value}' for key, value in spec.kwargs if key != 'severity']
    return ','.join([spec.name, *words])


def _write(image: Tensor, path: Path) -> None:
    with replace_atomically(path, sync=False) as new:
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(new, **FORMATS[path.suffix[1:]])


def _write_annotations(folder: Path, truth: GroundTruth, names: Mapping[Any, str], ids: set) -> None:
    """Write the annotation file of the images `ids`, one for all conditions, with the file names of the copies."""
    content = {**truth.content,
               'images': [{**image, 'file_name': names[image['id']]} for image in truth.content['images']
                          if image['id'] in ids],
               'annotations': [annotation for annotation in truth.content['annotations']
                               if annotation['image_id'] in ids]}
    write_atomic(folder / 'annotations.json', json.dumps(content))
