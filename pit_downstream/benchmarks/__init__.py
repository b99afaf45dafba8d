"""Benchmarks: conditions, metrics, published constants with their sources, summary, and the layout of the table."""

from pit_downstream.benchmarks.adversarial import Adversarial
from pit_downstream.benchmarks.attention import Attention
from pit_downstream.benchmarks.base import Benchmark
from pit_downstream.benchmarks.coco_c import CocoC
from pit_downstream.benchmarks.detection_attacks import DetectionAttacks
from pit_downstream.benchmarks.imagenet_c import ImageNetC
from pit_downstream.benchmarks.occlusion import Occlusion
from pit_downstream.benchmarks.shifts import Shifts
from pit_downstream.results.layout import Layout

__all__ = ['Adversarial', 'Attention', 'Benchmark', 'CocoC', 'DetectionAttacks', 'ImageNetC', 'Layout', 'Occlusion',
           'Shifts']
