"""Package metadata. The version is in pit_downstream/__init__.py, settings of pytest and mypy are in setup.cfg."""
from pathlib import Path

from setuptools import find_packages, setup

# Requirements of `pip install .`, which measures any timm classifier.
CORE = [
    'torch>=2.6',  # the first release whose weights_only loading has an allowlist, which safe loading needs
    'torchvision',
    'timm>=1.0.9',
    'safetensors',
    'numpy',
    'pillow',
    'pandas>=2.2',
    'tabulate',  # tables in Markdown
    'jinja2',  # tables in LaTeX
    'tqdm',
    'filelock',  # for results that several processes append to
    'pycocotools',  # for masks of the bundled dataset
    'imagecorruptions',  # for the frost images: the package itself is not imported
]

TRAIN = [
    'mmengine>=0.10.7',  # the first release that imports with torch>=2.5 (Adafactor was registered twice)
    'setuptools<81',  # mmengine imports pkg_resources, which later releases do not contain
]

# The stock mm packages, with mmcv built without compiled operators: pit_downstream.det has these operators. A compiled
# mmcv or the onedl forks (onedl-mmengine, onedl-mmdetection, onedl-mmcv) have the same import names under other
# distribution names. pip would install the stock files over theirs: with such a build, omit `det` and `train`.
DET = [
    *TRAIN,
    'mmdet>=3.3,<4',
    'mmcv-lite>=2.1,<2.2',  # mmdet 3.3.0 refuses 2.2
    'faster-coco-eval',  # the numbers of pycocotools, from compiled code
]

REPORT = ['matplotlib']
HF = ['transformers']  # detectors of Hugging Face
EXPORT = ['onnx', 'onnxscript', 'onnxruntime']  # onnxruntime compares the file with the backbone
DOCS = [*REPORT, 'pyyaml']  # figures and generated pages: `python -m speed.zoo`
TEST = [
    *DET, *REPORT, *EXPORT, *DOCS,
    'pytest', 'pytest-timeout', 'pytest-xdist', 'foolbox', 'ruff', 'mypy', 'import-linter',
    # `make install` adds torchattacks without its requirements, which pin requests 2.25. Its tests skip without it.
]

setup(
    name='pit_downstream',
    description='PiT and DeepViT backbones for mmdet, and robustness evaluation of classifiers and detectors',
    long_description=Path(__file__).with_name('README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author='The pit_downstream authors',
    license='Apache-2.0',
    license_files=['LICENSE'],
    keywords=['vision transformer', 'object detection', 'mmdetection', 'robustness', 'ImageNet-C', 'COCO-C',
              'adversarial attacks', 'distribution shift', 'attention'],
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'License :: OSI Approved :: Apache Software License',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Topic :: Scientific/Engineering :: Image Recognition',
        'Typing :: Typed',
    ],
    python_requires='>=3.10',
    packages=find_packages(include=['pit_downstream', 'pit_downstream.*']),
    # pit_downstream/configs and model-index.yml are links in a checkout. The wheel and the sdist contain the files.
    package_data={
        'pit_downstream': ['py.typed', 'model-index.yml', 'configs/*.py', 'configs/**/*.py'],
        'pit_downstream.report': ['page_files/*'],
    },
    install_requires=CORE,
    extras_require={'det': DET, 'train': TRAIN, 'report': REPORT, 'hf': HF, 'export': EXPORT, 'docs': DOCS,
                    'test': TEST},
    entry_points={'console_scripts': ['pit-downstream = pit_downstream.cli.main:main']},
)
