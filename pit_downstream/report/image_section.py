"""Report section of images: PNG and JPEG files in the given folders."""

from collections.abc import Sequence
from pathlib import Path

from pit_downstream.utils.registry import SECTIONS
from pit_downstream.report.inputs import PICTURES
from pit_downstream.report.measured import Measured
from pit_downstream.report.parts import Gap, Picture, Section

SHOWN = 6  # images per folder
LARGEST = 3 << 20  # bytes of an image; the page embeds all of them
COMMANDS = (('corrupted images', 'pit-downstream show-corruptions PHOTO.jpg --output DIR/corruptions.png'),
            ('found boxes', 'pit-downstream show-detections --model CONFIG --weights CHECKPOINT --output '
                            'DIR/detections.png'))


@SECTIONS.register('pictures')
def build_image_section(measured: Measured) -> Section:
    """Build the section with a few evenly spaced images of every folder."""
    parts = [picture for number, (folder, files) in enumerate(measured.kept.pictures.items(), 1)
             for picture in _some(folder, files, number)]
    gaps = () if parts else tuple(Gap(f'no {what}', command) for what, command in COMMANDS)
    return Section('pictures', 'Pictures', 'From the given folders.', tuple(parts), gaps)


def _some(folder: Path, files: Sequence[Path], number: int) -> list[Picture]:
    """Select evenly spaced images. number: index of the folder, since two folders may share image names."""
    small = [path for path in files if path.stat().st_size <= LARGEST]
    count = min(SHOWN, len(small))
    chosen = [small[index * len(small) // count] for index in range(count)]
    left = f' ({count} of {len(files)} in this folder)' if count < len(files) else ''
    return [Picture(f'picture_{number}_{index}', f'{folder.name}/{path.name}{left}', path.read_bytes(),
                    PICTURES[path.suffix.lower()]) for index, path in enumerate(chosen, 1)]
