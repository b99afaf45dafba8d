"""Stores, logs, speed results and images made by hand, of which every number is known."""

import json
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pit_downstream.benchmarks.imagenet_c import ALEXNET, ALEXNET_CLEAN, ERROR, make_condition
from pit_downstream.results.condition import CLEAN
from pit_downstream.results.outcomes import Entry, Identity, OutcomeStore
from pit_downstream.results.records import Record, ResultStore

ALEX, HALF = 'alex', "half(weights='half.pth@0123abcd0123abcd')"  # as published; half its errors
DATA = "imagenet_c(files='d1', images=1000, size=224)"
DETECTOR = "retina(config='c1', weights='epoch_1.pth@1234abcd1234abcd')"
COCO = "coco(annotations='val.json@abcd1234', images=8)"
FGSM, PGD = ("clean + {}(epsilon={}, norm='Linf'{})".format(name, '{}', more)
             for name, more in (('fgsm', ''), ('pgd', ', steps=10')))
RIGHT = {  # what stood, image by image; of ten
    (ALEX, FGSM.format('4/255')): '1111100000', (HALF, FGSM.format('4/255')): '1111011000',
    (ALEX, FGSM.format('8/255')): '1100000000', (HALF, FGSM.format('8/255')): '1111000000',
    (ALEX, PGD.format('4/255')): '0111100000', (HALF, PGD.format('4/255')): '1111000000',
    (ALEX, PGD.format('8/255')): '0000000000', (HALF, PGD.format('8/255')): '1100000000'}


def corrupted(model: str, scale: float = 1., *, data: str = DATA, exclude: Iterable[str] = ()) -> list[Record]:
    """AlexNet's table, or a multiple of it, on 1000 images; without the conditions `exclude`."""
    errors = {CLEAN: ALEXNET_CLEAN} | {make_condition(name, severity): error for name, row in ALEXNET.items()
                                       for severity, error in enumerate(row, 1)}
    return [Record(model, data, str(one), ERROR, scale * error, 1000, 0) for one, error in errors.items()
            if str(one) not in exclude]


def attacked(model: str, data: str = DATA) -> list[Record]:
    """The clean error, those of RIGHT, and what a transferred attack does."""
    data = data.replace('size', 'limit=10, size')
    found = [Record(model, data, 'clean', ERROR, .2, 10, 0)]
    for (name, one), right in RIGHT.items():
        if name == model:
            found += [Record(model, data, one, ERROR, right.count('0') / 10, 10, 0),
                      Record(model, data, one, 'forwards', 7.5, 10, 0)]
    other = ALEX if model == HALF else HALF
    transfer = f"clean + transfer(attack='pgd', epsilon=8/255, norm='Linf', source={other!r}, steps=10)"
    return [*found, Record(model, data, transfer, ERROR, .4, 10, 0)]


def shifted(model: str = HALF) -> list[Record]:
    return [Record(model, 'imagenet(images=500, size=224)', 'clean', ERROR, .3, 500, 0),
            Record(model, 'imagenet_v2_matched_frequency(images=200, size=224)', 'clean', ERROR, .45, 200, 0)]


def traced(model: str, blocks: int = 3) -> list[Record]:
    """Measures of a plain transformer of so many blocks."""
    def record(metric, value, layer):
        return Record(model, 'folder(limit=4, root=\'data/val\')', 'clean', metric, value, 4, 0, layer)
    found = [record('softmax_similarity', .5 + .1 * first, f'block{first}:block{second}')
             for first in range(1, blocks + 1) for second in range(first + 1, blocks + 1)]
    found += [record('softmax_entropy', 1. + number, f'block{number}') for number in range(1, blocks + 1)]
    found += [record('token_rank', 2. + number, f'block{number}') for number in range(1, blocks + 1)]
    return [*found, record('softmax_similar_blocks(threshold=0.9)', 1., ''),
            record('softmax_similar_ratio(threshold=0.9)', 1 / blocks, '')]


def detected(scale: float = 1.) -> list[Record]:
    """AP clean, in fog, and under an attack; the rest of COCO-C is missing."""
    values = {'clean': .4, **{f'fog(severity={severity})': .4 - .05 * severity for severity in range(1, 6)},
              "clean + pgd(epsilon=2/255, norm='Linf')": .3, "clean + pgd(epsilon=8/255, norm='Linf')": .1}
    return [Record(DETECTOR, COCO, one, 'AP', scale * value, 8, 0) for one, value in values.items()]


def write_store(folder: Path, records: Iterable[Record], *argv: str, model: str = '', dataset: str = '',
                benchmark: str = '') -> Path:
    """Write a store as the tools do, with per-image outcomes where the records are those of RIGHT, and runs.jsonl.

    model, dataset: of the run, by default those of the last record.
    """
    records = list(records)
    ResultStore(folder / 'results.jsonl').add(*records)
    for record in records:
        if (record.model, record.condition) in RIGHT and record.metric == ERROR:
            wrong = [letter == '0' for letter in RIGHT[record.model, record.condition]]
            add_outcomes(folder, record, ERROR, np.array(wrong))
    if argv:
        run = {'started': '2026-01-02T03:04:05+00:00', 'argv': argv, 'device': 'cpu', 'seed': 0, 'commit': 'abc1234',
               'versions': {'torch': '2.14.1'}, 'benchmark': benchmark, 'model': model or records[-1].model,
               'dataset': dataset or records[-1].dataset}
        with (folder / 'runs.jsonl').open('a') as file:
            file.write(json.dumps(run) + '\n')
    return folder / 'results.jsonl'


def add_outcomes(folder: Path, record: Record, name: str, values: np.ndarray) -> None:
    """Append per-image values of a record, in the order of the dataset."""
    identity = Identity(record.model, record.dataset, record.seed, len(values))
    OutcomeStore(folder).append(identity, [Entry(record.condition, np.arange(len(values)), {name: values})])


def write_log(work_dir: Path, steps: Iterable[int], *, started: str = '20260102_030405', loss: float = 10.) -> Path:
    """scalars.json of a run that logs every step, two a epoch, and an AP after each epoch."""
    lines = []
    for step in steps:
        lines.append({'loss': loss / step, 'lr': .1, 'time': .5, 'epoch': (step + 1) // 2, 'iter': step, 'step': step})
        if step % 2 == 0:
            lines.append({'coco/bbox_mAP': step / 100, 'data_time': .1, 'step': step // 2})
    path = work_dir / started / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return path


def png(side: int = 8) -> bytes:
    """A gray square."""
    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    rows = b''.join(b'\0' + b'\x80' * side for _ in range(side))
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', side, side, 8, 0, 0, 0, 0))
            + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b''))


def write_everything(folder: Path) -> Path:
    """One of each kind: every section of a report has something to show."""
    data = ('--data', 'data/val', '--output-dir', str(folder / 'imagenet_c'))
    write_store(folder / 'imagenet_c', [*corrupted(ALEX), *corrupted(HALF, .5)], 'tools/eval_imagenet_c.py', '--model',
                'half', '--weights', 'weights/half.pth', *data, benchmark='imagenet_c')
    write_store(folder / 'attacks', [*attacked(ALEX), *attacked(HALF)])
    write_store(folder / 'shifts', shifted())
    write_store(folder / 'attention', [*traced(ALEX), *traced(HALF, 2)])
    write_store(folder / 'detection', detected(), 'tools/eval_coco_c.py', '--model', 'configs/retina.py',
                '--weights', 'work_dirs/retina',
                '--bundled', '--output-dir', str(folder / 'detection'), '--corruptions', 'fog', benchmark='coco_c')
    occluded = [Record(HALF, DATA, f'occlusion(share={share})', ERROR, .3 + share, 1000, 0) for share in (.25, .5)]
    write_store(folder / 'occlusion', occluded)
    write_log(folder / 'work_dirs' / 'retina', range(1, 7))
    (folder / 'benchmarks').mkdir()
    (folder / 'benchmarks' / 'results.csv').write_text(
        'benchmark,case,setting,metric,unit,ours_median,peer,peer_median,ratio,bound,commit,machine,threads\n'
        'fast,eval,small,time,s,0.002,other,0.005,2.5,,abc1234,m1,2\nfast,eval,small,accuracy,,1,other,1,,,abc1234,m1,2\n')
    (folder / 'benchmarks' / 'machines.json').write_text('{"m1": {"device": "x86_64"}}')
    (folder / 'images').mkdir()
    (folder / 'images' / 'gray.png').write_bytes(png())
    return folder
