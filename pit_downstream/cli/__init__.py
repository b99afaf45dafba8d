"""Shared code of the tools: flags, the objects built from them, and one-sentence errors for bad input."""

import warnings

from pit_downstream.utils.slurm import require_one_process
from pit_downstream.cli.attacks import (
    add_attack_flags,
    attack_conditions,
    attack_parser,
    attacked,
    attacked_classifier,
    attacked_preprocessing,
    shown_conditions,
)
from pit_downstream.cli.classifiers import (
    add_preprocess_flags,
    classifier,
    classifier_parser,
    measure_options,
    pictures,
    preprocess_options,
    preprocessing,
    published_images,
)
from pit_downstream.cli.corruptions import (
    add_corruption_flags,
    add_corruption_names,
    chosen_corruptions,
    command_without_corruptions,
    corruption_conditions,
    corruption_names,
    corruption_variant,
)
from pit_downstream.cli.detectors import (
    add_detection_corruption_flags,
    chosen_image,
    detection_conditions,
    detector,
    detector_parser,
    measured_detector_parser,
    save_corrupted,
)
from pit_downstream.cli.export import backbone, export_parser
from pit_downstream.cli.model_cost import facts, facts_parser
from pit_downstream.cli.errors import (
    add_debug_flag,
    report_errors,
    require_folder,
    require_image_to_write,
    require_name,
    require_places,
)
from pit_downstream.cli.shifts import add_shift_flags, shift_places, shifts
from pit_downstream.cli.argument_types import Once, batch_size, int_in_range

warnings.filterwarnings('ignore', message='pkg_resources is deprecated')  # mmengine imports it; setup.py pins it

__all__ = [
    'Once', 'add_attack_flags', 'add_corruption_flags', 'add_corruption_names', 'add_debug_flag',
    'add_detection_corruption_flags',
    'add_preprocess_flags', 'add_shift_flags', 'attack_conditions', 'attack_parser', 'attacked', 'attacked_classifier',
    'attacked_preprocessing', 'backbone', 'batch_size', 'chosen_corruptions', 'chosen_image', 'classifier',
    'classifier_parser', 'command_without_corruptions', 'corruption_conditions', 'corruption_names',
    'corruption_variant',
    'detection_conditions', 'detector', 'detector_parser', 'export_parser', 'facts', 'facts_parser', 'measure_options',
    'measured_detector_parser', 'report_errors', 'pictures', 'preprocess_options', 'preprocessing',
    'published_images', 'require_folder', 'require_image_to_write', 'require_name', 'require_one_process',
    'require_places', 'save_corrupted', 'shift_places', 'shifts', 'shown_conditions', 'int_in_range']
