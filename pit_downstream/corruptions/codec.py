"""JPEG through Pillow's codec: on a CPU nothing is faster, and several images are worked on at a time."""

import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor


def through_codec(images: Tensor, qualities: Sequence[int]) -> Iterator[Tensor]:
    """For each quality (1..100) the images compressed and decompressed. uint8 (B, 3, H, W) in RGB on the CPU.

    As many threads as torch uses share the work; Pillow lets go of Python's lock.
    """
    pictures = [Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy())) for image in images]
    jobs = [(picture, quality) for quality in qualities for picture in pictures]
    threads = min(torch.get_num_threads(), len(jobs))
    done = iter(_pool(os.getpid(), threads).map(_round_trip, jobs) if threads > 1 else map(_round_trip, jobs))
    for _ in qualities:
        out = torch.empty_like(images, memory_format=torch.contiguous_format)
        for place in out:
            place.numpy()[:] = next(done).transpose(1, 0, 2)
        yield out


def _round_trip(job: tuple[Image.Image, int]) -> np.ndarray:
    """uint8 (H, 3, W): Pillow hands the colours of a line one after the other faster than those of a pixel."""
    picture, quality = job
    file = io.BytesIO()
    picture.save(file, 'JPEG', quality=quality)
    file.seek(0)
    lines = JpegImageFile(file).tobytes('raw', 'RGB;L')
    return np.frombuffer(lines, np.uint8).reshape(picture.height, 3, picture.width)


@lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Of this process: threads do not live on in a fork of it."""
    return ThreadPoolExecutor(threads, thread_name_prefix='jpeg')
