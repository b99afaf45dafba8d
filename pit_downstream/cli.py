"""What the tools share: flags, what is built from them, and one sentence for bad input."""

import argparse
import contextlib
import difflib
import importlib
import os
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

PACKAGE = Path(__file__).parent
VALIDATION = 'data/imagenet/val'  # where data/README.md puts ImageNet's pictures
CHOOSING = ('--corruptions', '--severities')
warnings.filterwarnings('ignore', message='pkg_resources is deprecated')  # mmengine imports it; setup.py pins it


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
    """End the tool with exit code 2 and the sentence alone where a `raise` in this package refused an input.

    Any other error is a bug, ours or a library's: its traceback is shown.
    """
    try:
        yield
    except (ValueError, LookupError, OSError, ImportError, RuntimeError) as error:
        innermost = traceback.extract_tb(error.__traceback__)[-1]
        if PACKAGE not in Path(innermost.filename).parents or not innermost.line.startswith('raise '):
            raise
        if os.environ.get('RANK', '0') == '0':  # of torchrun's processes one speaks
            print(error.args[0], file=sys.stderr)
        sys.exit(2)


def detector_parser(description: str) -> argparse.ArgumentParser:
    """The flags that training and testing a detector share, as mmdet's users know them."""
    parser = _config_parser(description)
    parser.add_argument('--work-dir', help='where logs and checkpoints go (default: work_dirs/<config name>)')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser


def measured_detector_parser(description: str) -> argparse.ArgumentParser:
    """The flags that all tools share which measure a detector."""
    parser = _config_parser(description)
    parser.set_defaults(launcher='none', local_rank=0, work_dir=None)
    add = parser.add_argument
    add('checkpoint', help='checkpoint file, a work dir for its latest, or random')
    add('--ann', metavar='FILE', help='measure on the images of this annotation file in COCO format, with --images')
    add('--images', metavar='DIR', help='where the images of --ann lie')
    add('--limit', type=int, help='use this many of the images, evenly spread; the records say so')
    add('--store', default='work_dirs/records', metavar='DIR', help='where records are kept (default: %(default)s)')
    add('--allow-missing', type=whole(0), default=0, metavar='N', help='go on with up to N unreadable images')
    add('--batch-size', type=batch_size, help="a number; or auto, which begins large and halves when memory runs out "
        "(default: the config's)")
    add('--workers', type=whole(0), help='processes that decode (default: 1 on a CPU, up to 16 for a GPU)')
    add('--device', default='auto', help='cpu, cuda, cuda:1 ... (default: a GPU where there is one)')
    add('--seed', type=whole(0), default=0, help='of the corruptions, and of random weights')
    return parser


def _config_parser(description: str) -> argparse.ArgumentParser:
    from mmengine.config import DictAction
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('config', help="config file; mmdet's own are mmdet::FOLDER/FILE.py")
    add('--bundled', action='store_true', help='use the data set that comes with the project')
    add('--data', metavar='DIR', help='where the data set lies, in place of the data_root of the config')
    add('--cfg-options', nargs='+', action=DictAction, default={}, metavar='KEY=VALUE',
        help='override settings of the config, e.g. train_dataloader.batch_size=4')
    return parser


def whole(low: int, high: int = 2 ** 63 - 1) -> Callable[[str], int]:
    """For argparse: a whole number in low..high."""
    def number(text: str) -> int:
        if not (text.isdecimal() and low <= int(text) <= high):
            raise argparse.ArgumentTypeError(f'expected a whole number from {low} up, got {text!r}')
        return int(text)
    return number


def require_places(args: argparse.Namespace) -> None:
    """Raise ValueError, before any work, where results, images or records could not be written."""
    from .core.outputs import require_file_to_write, require_folder_to_write
    for names, require in ((('store', 'cache', 'save', 'save_images'), require_folder_to_write),
                           (('csv', 'json'), require_file_to_write)):
        for name in names:
            if place := getattr(args, name, None):
                require(place, f'--{name.replace("_", "-")}')
    if (Path(args.store) / 'results.jsonl').is_dir():
        raise ValueError(f'expected records in {args.store}/results.jsonl, got a folder of that name; name another '
                         '--store')


def require_name(name: str, names: Sequence[str], noun: str) -> None:
    """Raise LookupError with the nearest names unless `name` is one of `names`."""
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names
        raise LookupError(f'no {noun} named {name!r}; did you mean {", ".join(near)}?')


def classifier_parser(description: str) -> argparse.ArgumentParser:
    """The flags that all tools share which measure a classifier."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('--model', required=True, help="a name of timm's or ours, torchvision:NAME or package.module:function; "
        "arguments in brackets: 'pit_s(num_classes=10)', which needs --weights FILE")
    add('--weights', help="a checkpoint file; or pretrained (timm's and torchvision's default), random, own")
    add('--protocol', default='model', help='how pictures are prepared: model (as its configuration says), '
        'hendrycks (resize 256, crop 224, ImageNet mean and std), native (as they are)')
    add('--data', default=VALIDATION, help='folder of class folders, or of pictures with --labels (default: '
        '%(default)s)')
    add('--labels', metavar='FILE', help="lines 'picture class' for a flat folder")
    add('--limit', type=int, help='use this many of the images, evenly spread; the records say so')
    add('--store', default='work_dirs/records', metavar='DIR', help='where records are kept (default: %(default)s)')
    add('--cache', metavar='DIR', help='keep decoded images in a memory map here, for this and later runs')
    add('--allow-missing', type=whole(0), default=0, metavar='N', help='go on with up to N unreadable images')
    add('--batch-size', type=batch_size, default='auto', help='a number; or auto, which begins large and halves when '
        'memory runs out')
    add('--workers', type=whole(0), help='processes that decode (default: 1 on a CPU, up to 16 for a GPU)')
    add('--device', default='auto', help='cpu, cuda, cuda:1 ... (default: a GPU where there is one)')
    add('--amp', choices=['bf16', 'fp16'], help='run the model in half precision; the records say so')
    add('--compile', action='store_true', help='run the model through torch.compile')
    add('--seed', type=whole(0), default=0)
    return parser


def add_corruption_flags(parser: argparse.ArgumentParser) -> None:
    add_corruption_names(parser)
    add = parser.add_argument
    add('--as-published', action='store_true', help='save every corrupted image as JPEG of quality 85 and read it '
        'back, as the published files were; the records say so')
    add('--variant', choices=['hendrycks'], help="take ImageNet-C's own elastic_transform, pixelate and frost where "
        'imagecorruptions differs; the records say so')
    add('--published', metavar='DIR', help='measure on corrupted pictures from here, DIR/[GROUP/]CORRUPTION/SEVERITY/'
        'CLASS (ImageNet-C, -C-bar, 3DCC); --data has the clean ones')
    add('--set', metavar='NAME', help='what the published set is called in records (default: imagenet_c)')


def add_corruption_names(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add('--corruptions', nargs='+', default=['benchmark'], metavar='NAME', help='names; or benchmark (the 15, the '
        'default), extra (the 4 hold-outs), all')
    add('--severities', nargs='+', type=int, action=Once, default=[1, 2, 3, 4, 5], metavar='1..5')
    add('--import', dest='imports', nargs='+', default=[], metavar='MODULE', help='modules that register '
        'corruptions of your own')


def attack_parser(description: str) -> argparse.ArgumentParser:
    """The flags of attacks on a classifier; with --config those of attacks on a detector."""
    if '--config' not in sys.argv[1:]:
        parser = classifier_parser(description)
        parser.add_argument('--config', dest='detector', action='store_false', default=False, help='--config CONFIG '
                            'CHECKPOINT attacks a detector of mmdet; --config --help says how')
        add_attack_flags(parser)
        return parser
    parser = measured_detector_parser(description)
    add_attack_flags(parser)
    add = parser.add_argument
    add('--config', dest='detector', action='store_true', help='CONFIG and CHECKPOINT name a detector')
    add('--at', choices=['network', 'original'], default='network', help='the size of image that is perturbed '
        '(default: %(default)s)')
    parser.set_defaults(attacks=['noise', 'pgd(steps=10)'])
    return parser


def add_attack_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add('--attacks', nargs='*', default=['noise', 'fgsm', 'pgd(steps=20)', 'autoattack'], metavar='ATTACK',
        help="names with arguments: 'pgd(steps=20, restarts=5)'; an attack that says its own norm or epsilon keeps it "
        '(default: %(default)s)')
    add('--norm', default='Linf', help='Linf, L2 or L1 (default: %(default)s)')
    add('--epsilons', nargs='+', metavar='N/255', help='sizes on the scale of pixels in [0, 1] (default for Linf: '
        '1/255 2/255 4/255 8/255)')
    add('--source', metavar='MODEL', help="make the images on this model and show them to --model: transfer; with "
        "weights of its own: \"pit_s(weights='FILE')\"")
    add('--corruptions', nargs='+', default=[], metavar='CORRUPTION', help="also attack images under these: "
        "'fog(severity=3)' 'occlusion(share=0.5)'; without --attacks the corruptions alone are measured")
    add('--import', dest='imports', nargs='+', default=[], metavar='MODULE', help='modules that register attacks or '
        'corruptions of your own')
    add('--save', metavar='DIR', help='keep every attacked image, and the one before the attack, as '
        'DIR/CONDITION/ID.npy (NumPy, float32, 3 x H x W in [0, 1], exactly what the model saw), and a sheet '
        'DIR/CONDITION.png')


def attack_conditions(args: argparse.Namespace) -> tuple:
    """The conditions that the flags mean. Raises LookupError or ValueError for those that cannot be."""
    from .benchmarks import adversarial
    from .core.spec import Spec
    for module in args.imports:
        _import(module)
    if args.detector:
        from . import det  # noqa: F401  registers the attacks on detectors
    from .evaluation.attacking import check_attack
    from .evaluation.corrupting import check_corruption
    if args.epsilons is None and args.norm != 'Linf':
        raise ValueError(f'expected --epsilons with --norm {args.norm}, got none; write --epsilons 0.5')
    epsilons = adversarial.LEVELS if args.epsilons is None else [_number(text) for text in args.epsilons]
    every = adversarial.conditions([_attack(text, args.source) for text in args.attacks], epsilons, norms=[args.norm],
                                   corruptions=[None, *map(Spec.parse, args.corruptions)])
    if args.detector and args.source:
        raise ValueError('expected --source with a classifier, got it with a detector; leave it out')
    args.predictors = None if args.detector else _sources(args)
    for condition in every:
        check_corruption(condition.corruption)
        check_attack(condition.attack, args.predictors)
    return every


def shown_conditions(texts: Sequence[str]) -> list:
    """Each 'clean', the name of a corruption or of an attack, with its arguments. Raises LookupError or ValueError for
    one that does not exist."""
    from . import corruptions, det  # noqa: F401  register corruptions and attacks
    from .core.condition import CLEAN, Condition
    from .core.registry import CORRUPTIONS
    from .core.spec import Spec
    from .evaluation.attacking import check_attack
    from .evaluation.corrupting import check_corruption
    found = []
    for spec in map(Spec.parse, texts):
        corrupts = spec.name in CORRUPTIONS
        (check_corruption if corrupts else check_attack)(None if spec.name == 'clean' else spec)
        found.append(CLEAN if spec.name == 'clean' else Condition(spec) if corrupts else Condition(None, spec))
    return found


def chosen_image(samples, index: int):
    if not 0 <= index < len(samples):
        raise ValueError(f'expected an image of 0..{len(samples) - 1}, got {index}; give another --image N')
    return samples[index]


def _attack(text: str, source: str | None):
    """The attack; on a source where one is given, as far as it asks a model. A patch says that its norm is patch."""
    from .core.registry import ATTACKS
    from .core.spec import Spec
    spec = Spec.parse(text)
    if ATTACKS[spec.name].norms == ('patch',):
        spec = Spec.of(spec.name, **{'norm': 'patch', **dict(spec.kwargs)})
    if source is None or spec.name in ('noise', 'transfer'):
        return spec
    return Spec.of('transfer', **{**dict(spec.kwargs), 'attack': spec.name, 'source': source})


def _sources(args: argparse.Namespace):
    """What builds the model that an attack is made on."""
    from .evaluation.models import classifiers
    from .evaluation.ranks import start_ranks
    _look_here()
    return classifiers(protocol=args.protocol, device=start_ranks(args.device), seed=args.seed)


def _number(text: str):
    from fractions import Fraction

    from .core.spec import Spec
    value = Spec.parse(f'size(epsilon={text})').get('epsilon')
    if isinstance(value, bool) or not isinstance(value, (int, float, Fraction)):
        raise ValueError(f'expected a number like 8/255 or 0.5 as epsilon, got {text!r}')
    return value


def chosen_corruptions(args: argparse.Namespace) -> list[str]:
    """The names that --corruptions means. Raises LookupError for one that does not exist."""
    other = {'--as-published': args.as_published, '--variant': args.variant, '--cache': args.cache}
    unfit = [flag for flag, given in other.items() if given]
    if args.published and unfit:
        raise ValueError(f'expected --published without {unfit[0]}, got both; published files are taken as they are, '
                         'each read once')
    if args.set and not args.published:
        raise ValueError(f'expected --published DIR with --set {args.set}, got none; say where the set lies')
    return corruption_names(args, registered=not args.published)


def corruption_names(args: argparse.Namespace, *, registered: bool = True) -> list[str]:
    """The names that --corruptions means. Raises LookupError for one that is not `registered` where it should be."""
    from .benchmarks import imagenet_c
    from .core.registry import CORRUPTIONS
    for module in args.imports:
        _import(module)
    wrong = [severity for severity in args.severities if severity not in imagenet_c.SEVERITIES]
    if wrong:
        raise ValueError(f'severity is 1..5, got {wrong[0]}; the clean images are measured anyway')
    groups = {'benchmark': imagenet_c.CORRUPTIONS, 'extra': imagenet_c.HOLD_OUT,
              'all': imagenet_c.CORRUPTIONS + imagenet_c.HOLD_OUT}
    names = dict.fromkeys(name for given in args.corruptions for name in groups.get(given, (given,)))
    for name in names if registered else ():
        from . import corruptions  # noqa: F401  registers them
        CORRUPTIONS.entry(name)
    return list(names)


def add_detection_corruption_flags(parser: argparse.ArgumentParser) -> None:
    add_corruption_names(parser)
    add = parser.add_argument
    add('--bgr', action='store_true', help="corrupt with red and blue exchanged, as mmdet's robustness tool does; the "
        'records say so')
    add('--save-images', metavar='DIR', help='also write the corrupted images there, with one annotation file for all')
    add('--image-format', choices=['png', 'jpg'], default='png', help='of these (default: %(default)s)')


def detection_conditions(args: argparse.Namespace) -> tuple[list[str], dict, tuple]:
    """The corruptions that the flags mean ('none' is none), what their conditions say besides, and all conditions."""
    from .benchmarks import coco_c
    names = [] if args.corruptions == ['none'] else corruption_names(args)
    variant = {'order': 'bgr'} if args.bgr else {}
    return names, variant, coco_c.conditions(names, args.severities, **variant)


def detector(args: argparse.Namespace):
    """The predictor, the samples and the config that the flags name, on this rank's device; joins torchrun's ranks."""
    require_places(args)
    from .evaluation.ranks import start_ranks
    device = start_ranks(args.device)
    from .det import runs
    from .det.predictor import build_detector
    from .det.samples import detection_samples
    if bool(args.ann) != bool(args.images):
        raise ValueError('expected --ann FILE and --images DIR together, got one of them')
    if args.ann:
        runs.set_annotations(args)
    cfg = runs.read_config(args, loaders=('test_dataloader',))
    checkpoint = args.checkpoint if args.checkpoint == 'random' else runs.checkpoint_file(args.checkpoint)
    samples = detection_samples(cfg, limit=args.limit)
    predictor = build_detector(cfg, checkpoint, config=Path(args.config).stem, device=device, seed=args.seed)
    args.batch_size = args.batch_size or cfg.test_dataloader.get('batch_size', 1)
    return predictor, samples, cfg


def save_corrupted(args: argparse.Namespace, samples, cfg, conditions: Sequence) -> None:
    """Write the corrupted images that --save-images asks for."""
    if args.save_images:
        from .det.metric import config_truth
        from .det.saving import save_images
        save_images(samples, config_truth(cfg, samples), conditions, args.save_images, format=args.image_format,
                    seed=args.seed, workers=args.workers or 0)


def classifier(args: argparse.Namespace):
    """The predictor that the flags name, on this rank's device; joins torchrun's ranks."""
    return _classifier(args, amp=args.amp)


def attacked_classifier(args: argparse.Namespace):
    """As `classifier`, but --amp is for the search of attacks alone: results are in float32."""
    if args.amp == 'fp16':
        raise ValueError('expected --amp bf16 for attacks, got fp16, which loses small gradients; results are in '
                         'float32 anyway')
    return _classifier(args, search=args.amp)


def attacked(args: argparse.Namespace) -> tuple:
    """What keeps the robustness, the predictor and the samples that the flags name: of a classifier or a detector."""
    from functools import partial
    if not args.detector:
        require_folder(args.data, '--data')
        from .evaluation.robustness import keep_robustness
        predictor = attacked_classifier(args)
        return keep_robustness, predictor, pictures(args, predictor)
    predictor, samples, cfg = detector(args)
    from .det import robustness
    from .det.metric import config_metrics
    from .det.original import OriginalSizePredictor
    seen = OriginalSizePredictor(predictor) if args.at == 'original' else predictor
    return partial(robustness.keep_robustness, metrics=config_metrics(cfg, samples)), seen, samples


def _classifier(args: argparse.Namespace, **precision: str | None):
    require_places(args)
    from .evaluation.models import build_classifier
    from .evaluation.ranks import start_ranks
    _look_here()
    return build_classifier(args.model, weights=args.weights, protocol=args.protocol, device=start_ranks(args.device),
                            compiled=args.compile, seed=args.seed, **precision)


def require_folder(folder: str, flag: str) -> None:
    if not Path(folder).is_dir():
        raise FileNotFoundError(f'expected pictures in {folder}, found no such folder; name another with {flag} DIR '
                                '(data/README.md says how they lie there)')


def pictures(args: argparse.Namespace, predictor):
    """The samples of --data as `predictor` views them; refuses classes that it does not know."""
    from .datasets.cache import CachedSamples
    from .datasets.imagenet import class_folders, flat_folder
    view = predictor.view
    samples = flat_folder(args.data, args.labels, view=view) if args.labels else class_folders(args.data, view=view)
    if max(samples.targets) >= predictor.classes():
        raise ValueError(f'expected data of the {predictor.classes()} classes that {predictor.name} knows, got class '
                         f'{max(samples.targets)} in {samples.name}; give another --model or other --data')
    if args.limit is not None:
        samples = samples.limited(args.limit)
    return CachedSamples(samples, args.cache) if args.cache else samples


def published_pictures(args: argparse.Namespace, predictor, corruptions: Sequence[str]):
    """The samples of --published, with the clean ones of --data where that folder is there."""
    from .datasets.imagenet import published_corruptions
    from .datasets.shift import as_published
    if args.data != VALIDATION:
        require_folder(args.data, '--data')  # what was asked for is not left out without a word
    clean = pictures(args, predictor) if Path(args.data).is_dir() else None
    return published_corruptions(args.published, corruptions, args.severities, view=as_published(predictor.view),
                                 name=args.set or 'imagenet_c', clean=clean, limit=args.limit)


def corruption_conditions(args: argparse.Namespace, corruptions: Sequence[str]) -> tuple:
    """The clean condition, where there are clean pictures, and every corruption at every severity."""
    from .benchmarks import imagenet_c
    every = imagenet_c.conditions(corruptions, args.severities, **corruption_variant(args))
    return every if Path(args.data).is_dir() else every[1:]


def command_without_corruptions() -> str:
    """The command of this run but for the flags that choose corruptions, to which others can be added."""
    kept, dropping = ['python'], False
    for word in sys.argv:
        dropping = word.split('=')[0] in CHOOSING if word.startswith('--') else dropping
        if not dropping:
            kept.append(word)
    return shlex.join(kept)


def add_shift_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--shifts', nargs='+', default=[], metavar='NAME[=DIR]', help='which data sets, and where they '
                        'lie; in9 stands for every variation of the Backgrounds Challenge (default: all that lie where '
                        'data/README.md says)')


def shifts(args: argparse.Namespace, predictor) -> dict:
    """The data sets that --shifts names, opened, by name."""
    from dataclasses import replace

    from .datasets.cache import CachedSamples
    from .datasets.shifts import chosen_places, open_shifts
    places = chosen_places(args.shifts, args.data)
    if not places:
        raise FileNotFoundError('expected a shifted data set in data/, found none; put one where data/README.md says, '
                                'or name it: --shifts imagenet_a=DIR')
    opened = open_shifts(places, view=predictor.view, limit=args.limit)
    if not args.cache:
        return opened
    return {name: replace(shift, samples=shift.samples and CachedSamples(shift.samples, args.cache))
            for name, shift in opened.items()}


def clean_pictures(args: argparse.Namespace, predictor):
    """ImageNet's validation pictures in --data, None where there is no such folder."""
    from .datasets.shift import require_imagenet
    if not Path(args.data).is_dir():
        return None
    if not args.labels:
        require_imagenet(Path(args.data))
    return pictures(args, predictor)


def corruption_variant(args: argparse.Namespace) -> dict:
    """What the conditions of this run say beside name and severity."""
    jpeg = {'jpeg': 85} if args.as_published else {}  # hendrycks/robustness saved the published files at quality 85
    return jpeg | ({'variant': args.variant} if args.variant else {})


def measure_options(args: argparse.Namespace, device) -> dict:
    """What the flags say about how `measure` goes about its work."""
    workers = args.workers
    if workers is None:
        workers = 1 if device.type == 'cpu' else min(16, os.cpu_count() or 1)
    return {'seed': args.seed, 'batch_size': args.batch_size, 'workers': workers, 'allow_missing': args.allow_missing,
            'show': True}


class Once(argparse.Action):
    """Keeps the values of a flag without repetitions."""

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, list(dict.fromkeys(values)))


def batch_size(text: str) -> int | str:
    """For argparse: 'auto' or a whole number from 1 up."""
    if text != 'auto' and not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f'expected auto or a number from 1 up, got {text!r}')
    return text if text == 'auto' else int(text)


def _look_here() -> None:
    """Let Python find modules in the current folder, where `python -m` would find them."""
    if '' not in sys.path:
        sys.path.insert(0, '')


def _import(module: str) -> None:
    _look_here()
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not module.startswith(error.name):
            raise
        raise LookupError(f'no module {module!r} for --import; run where Python finds it, or set PYTHONPATH') from error
