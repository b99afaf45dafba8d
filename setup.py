"""Package metadata; the version stands in pit_downstream/__init__.py, pytest's settings in setup.cfg."""
from setuptools import find_packages, setup

# What every floor below det/ needs. The mm stack (mmengine, mmdet, mmcv) is not here on purpose: a compiled mmcv or the
# onedl forks (onedl-mmengine, onedl-mmdetection, onedl-mmcv) install the same import names under other distribution
# names, pip would not see them and would write the stock files over theirs. With such a stack: `pip install -e .`;
# without any: `pip install -e '.[lite]'`.
CORE = [
    'torch>=2.6',  # the first whose weights_only loading takes stand-ins, on which safe checkpoints rest
    'torchvision',
    'timm>=1.0.9',
    'numpy',
    'pillow',
    'tqdm',
    'filelock',  # of results that several processes append to; torch needs it, too
    'pycocotools',
    'imagecorruptions',
    'setuptools<81',  # mmengine and imagecorruptions import pkg_resources, which asks for this bound itself
]

# The stock mm stack, with mmcv in its build without compiled operators: pit_downstream.det brings the operators.
LITE = [
    'mmengine>=0.10.7',  # the first that imports with torch>=2.5 (Adafactor was registered twice)
    'mmdet>=3.3,<4',
    'mmcv-lite>=2.1,<2.2',  # mmdet 3.3.0 refuses 2.2
]

EXPORT = ['onnx', 'onnxscript', 'onnxruntime']  # the last only compares the file with the backbone

setup(
    name='pit_downstream',
    description='PiT and DeepViT backbones in mmdet, and measuring their robustness',
    author='The pit_downstream authors',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['pit_downstream', 'pit_downstream.*']),
    include_package_data=True,
    package_data={'pit_downstream.report': ['page_files/*']},
    install_requires=CORE,
    extras_require={
        'lite': LITE,
        'report': ['jinja2', 'matplotlib'],
        'export': EXPORT,
        # torchattacks, too, but it pins requests 2.25: `make install` adds it without its requirements; its tests skip
        'test': ['pytest', 'pytest-timeout', 'pytest-xdist', 'foolbox', 'ruff', 'mypy', 'import-linter', *EXPORT],
    },
)
