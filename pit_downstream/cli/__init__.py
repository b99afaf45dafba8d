"""What the tools share: flags, what is built from them, and one sentence for bad input."""

import warnings

from ..evaluation.slurm import require_one_process
from .attacks import (
    add_attack_flags,
    attack_conditions,
    attack_parser,
    attacked,
    attacked_classifier,
    attacked_preprocessing,
    shown_conditions,
)
from .classifiers import (
    add_preprocess_flags,
    classifier,
    classifier_parser,
    measure_options,
    pictures,
    preprocess_options,
    preprocessing,
    published_pictures,
)
from .corruptions import (
    add_corruption_flags,
    add_corruption_names,
    chosen_corruptions,
    command_without_corruptions,
    corruption_conditions,
    corruption_names,
    corruption_variant,
)
from .detectors import (
    add_detection_corruption_flags,
    chosen_image,
    detection_conditions,
    detector,
    detector_parser,
    measured_detector_parser,
    save_corrupted,
)
from .export import backbone, export_parser
from .facts import facts, facts_parser
from .sentences import (
    one_sentence,
    require_folder,
    require_image_to_write,
    require_name,
    require_places,
)
from .shifts import add_shift_flags, shift_places, shifts
from .values import Once, batch_size, whole

warnings.filterwarnings('ignore', message='pkg_resources is deprecated')  # mmengine imports it; setup.py pins it

__all__ = [
    'Once', 'add_attack_flags', 'add_corruption_flags', 'add_corruption_names', 'add_detection_corruption_flags',
    'add_preprocess_flags', 'add_shift_flags', 'attack_conditions', 'attack_parser', 'attacked', 'attacked_classifier',
    'attacked_preprocessing', 'backbone', 'batch_size', 'chosen_corruptions', 'chosen_image', 'classifier',
    'classifier_parser', 'command_without_corruptions', 'corruption_conditions', 'corruption_names',
    'corruption_variant',
    'detection_conditions', 'detector', 'detector_parser', 'export_parser', 'facts', 'facts_parser', 'measure_options',
    'measured_detector_parser', 'one_sentence', 'pictures', 'preprocess_options', 'preprocessing',
    'published_pictures', 'require_folder', 'require_image_to_write', 'require_name', 'require_one_process',
    'require_places', 'save_corrupted', 'shift_places', 'shifts', 'shown_conditions', 'whole']
