"""Attacked images on disk, exactly as the model received them, and contact sheets."""

import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from pit_downstream.results.condition import Condition
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.path_checks import replace_atomically, resolve_inside, write_atomic
from pit_downstream.results.records import get_model_key
from pit_downstream.evaluation.attacking import get_attack

SHOWN = 8  # rows of a contact sheet
MARGIN = 16  # pixels for the heading
WIDTH = 112  # minimum column width in pixels
CONTRAST = 10  # gain of the difference images


class Gallery:
    """A folder with one subfolder per condition and one NumPy file per image, float32 (3, H, W) in [0, 1].

    It includes the images without the attack. The folder belongs to one model, dataset and seed, recorded in
    about.json. Raises InputError if the folder belongs to others.
    """

    def __init__(self, folder: str | Path, *, model: str, dataset: str, seed: int):
        self.folder = Path(folder)
        about, path = {'model': get_model_key(model), 'dataset': dataset, 'seed': seed}, self.folder / 'about.json'
        if path.exists() and json.loads(path.read_text()) != about:
            raise InputError(f'expected a folder for the images of {model} on {dataset} with seed {seed}, got '
                             f'{self.folder}, which holds those of others; name another with --save-images DIR')
        write_atomic(path, json.dumps(about) + '\n')  # atomic, as other ranks may read it

    def path(self, condition: Condition, id: str) -> Path:
        """Return the path of a saved image. Raises InputError for an id that leaves the folder of the condition."""
        folder = self._place(condition)
        resolve_inside(self.folder, folder.name)
        return resolve_inside(folder, f'{id}.npy')

    def require(self, done: Mapping[Condition, Sequence[str]]) -> None:
        """Raise InputError unless the images with these ids, which are not attacked again, are saved."""
        for condition, ids in done.items():
            missing = sum(not self.path(condition, id).exists() for id in ids)
            if missing:
                raise InputError(f'expected in {self.folder} the images that were attacked before, found {missing} '
                                 f'missing of {condition}; to attack and save them again, use another --output-dir')

    def keep(self, condition: Condition, images: Tensor, ids: Sequence[str], *, only: Sequence[bool] | None = None
             ) -> None:
        """Save images (B, 3, H, W) atomically, or only those with `only` True."""
        for row, (image, id) in enumerate(zip(images.float().cpu().numpy(), ids, strict=True)):
            if only is None or only[row]:
                path = self.path(condition, id)
                np.save(content := io.BytesIO(), image)
                write_atomic(path, content.getbuffer(), sync=False)

    def copy(self, source: Condition, target: Condition, id: str) -> None:
        """Copy an image from `source`, since an image fooled at one epsilon is fooled at a larger one."""
        if source != target:
            write_atomic(self.path(target, id), self.path(source, id).read_bytes(), sync=False)

    def read(self, condition: Condition, id: str) -> Tensor:
        return torch.from_numpy(np.load(self.path(condition, id)))

    def sheet(self, condition: Condition, ids: Sequence[str]) -> Path:
        """Write a contact sheet of the first images as PNG: clean, attacked, and difference times ten.

        The file is beside the folder of `condition`.
        """
        shown = [id for id in ids if self.path(condition, id).exists()][:SHOWN]
        if not shown:
            raise InputError(f'expected saved images of {condition} in {self.folder}, found none')
        pairs = [(self.read(Condition(condition.corruption), id), self.read(condition, id)) for id in shown]
        rows = [torch.cat([before, after, (.5 + CONTRAST * (after - before)).clamp(0, 1)], 2)
                for before, after in pairs]
        larger = -(-WIDTH // pairs[0][0].shape[-1])  # upscale small images so that the headings fit
        pixels = (torch.cat(rows, 1) * 255).round().byte().permute(1, 2, 0).numpy().repeat(larger, 0).repeat(larger, 1)
        paper = Image.new('RGB', (pixels.shape[1], pixels.shape[0] + MARGIN), 'white')
        paper.paste(Image.fromarray(pixels), (0, MARGIN))
        for column, word in enumerate(('clean' if condition.corruption is None else condition.corruption.name,
                                       get_attack(condition).name, f'difference x{CONTRAST}')):
            ImageDraw.Draw(paper).text((column * pixels.shape[1] // 3 + 2, 2), word, fill='black')
        path = resolve_inside(self.folder, f'{self._place(condition).name}.png')
        with replace_atomically(path) as new:
            paper.save(new)
        return path

    def _place(self, condition: Condition) -> Path:
        return self.folder / re.sub(r'[^0-9A-Za-z.=-]+', '_', str(condition).replace("'", '')).strip('_')
