"""Kill evaluations at random times, resume them, and compare the records with those of uninterrupted runs.

python -m tests.kill_runs [--kills 91] [--cases NAME ...] [--seed 0]    about 40 minutes on two cores

Half of the kills (SIGKILL to every process of a run) come at a random time, half right after a file has changed. A run
is killed up to four times, then completed, and its last command is repeated, which must add nothing. Exits with 1 if a
record is missing, additional, repeated or different by any bit.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SMALL = ['--model', 'pit_ti(img_size=64,num_classes=4)', '--weights', 'random', '--bundled']
DETECTOR = ['--model', 'retinanet_pit_ti', '--weights', 'random', '--bundled']
SEVERITIES = ['--severities', '1', '3', '5']
ATTACKS = ['--attacks', 'noise', 'fgsm', 'pgd(steps=10)', 'apgd(steps=10)', '--epsilons', '1/255', '4/255']
CASES = {  # name: (processes, tool, arguments)
    'imagenet_c': (1, 'eval_imagenet_c', [*SMALL, *SEVERITIES]),
    'imagenet_c_two_processes': (2, 'eval_imagenet_c', [*SMALL, *SEVERITIES]),
    'adversarial': (1, 'eval_adversarial', [*SMALL, *ATTACKS]),
    'adversarial_two_processes': (2, 'eval_adversarial', [*SMALL, *ATTACKS, '--corruptions', 'fog(severity=3)']),
    'attention': (1, 'analyze_attention', [*SMALL]),
    'coco_c': (1, 'eval_coco_c', [*DETECTOR, '--limit', '40', '--corruptions', 'fog', 'contrast', *SEVERITIES]),
    'coco_c_two_processes': (2, 'eval_coco_c', [*DETECTOR, '--limit', '60', '--corruptions', 'fog', *SEVERITIES]),
    'detection_attacks': (1, 'eval_adversarial', [*DETECTOR, '--limit', '8', '--attacks', 'noise', 'pgd(steps=3)',
                                                  '--epsilons', '4/255', '8/255'])}


class Run:
    """Processes of one command with its outputs in `folder`."""

    def __init__(self, case: str, folder: Path):
        processes, tool, arguments = CASES[case]
        launcher = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', str(processes)]
        command = [sys.executable, *(launcher if processes > 1 else []), str(ROOT / 'tools' / f'{tool}.py'), *arguments,
                   '--batch-size', '16', '--workers', '1', '--device', 'cpu', '--output-dir', str(folder / 'out')]
        self.marker = f'KILL_RUNS={os.getpid()}-{time.monotonic_ns()}'
        name, _, value = self.marker.partition('=')
        with (folder / 'log').open('a') as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=ROOT, start_new_session=True,
                env=os.environ | {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', name: value})

    def list_processes(self) -> list[int]:
        """Return the processes that inherited the marker: torchrun gives its workers sessions of their own."""
        found = []
        for entry in filter(str.isdigit, os.listdir('/proc')):
            try:
                if self.marker.encode() in Path('/proc', entry, 'environ').read_bytes().split(b'\0'):
                    found.append(int(entry))
            except OSError:  # ended, or of another user
                continue
        return found

    def kill(self) -> None:
        while processes := self.list_processes():
            for process in processes:
                try:
                    os.kill(process, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self.process.wait()
            time.sleep(.02)


def complete(case: str, folder: Path) -> list[str]:
    """Run a command to its end, and return the sorted lines of its records."""
    if Run(case, folder).process.wait():
        raise SystemExit(f'{case} failed:\n{(folder / "log").read_text()[-4000:]}')
    return sorted((folder / 'out/results.jsonl').read_text().splitlines())


def stamp(folder: Path) -> list[tuple[str, int]]:
    return [(name, os.stat(os.path.join(parent, name)).st_size) for parent, _, names in os.walk(folder)
            for name in names if name.endswith('.jsonl')]


def kill_once(case: str, folder: Path, rng: random.Random, seconds: float) -> bool:
    """Start a command and kill it. Return False if it ended before."""
    run, start, before = Run(case, folder), time.monotonic(), stamp(folder)
    changes = rng.randint(1, 6) if rng.random() < .5 else 0
    delay = rng.uniform(.2, 1) * seconds
    while run.process.poll() is None:
        if changes and (now := stamp(folder)) != before:
            before, changes = now, changes - 1
            if not changes:
                break
        elif not changes and time.monotonic() - start > delay:
            break
        time.sleep(.002)
    is_killed = run.process.poll() is None
    run.kill()
    return is_killed


def compare(lines: list[str], expected: list[str]) -> int:
    """Print and count the differences of two sorted lists of records."""
    differences = [line for line in {*lines, *expected} if lines.count(line) != 1 or expected.count(line) != 1]
    for line in differences:
        print('different:', json.loads(line))
    return len(differences)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kills', type=int, default=91)
    parser.add_argument('--cases', nargs='+', default=list(CASES), choices=CASES)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    rng, kills, differences, references = random.Random(args.seed), 0, 0, {}
    with tempfile.TemporaryDirectory() as root:
        for number in range(10 ** 6):
            case = args.cases[number % len(args.cases)]
            if case not in references:
                (reference := Path(root, case)).mkdir()
                start = time.monotonic()
                references[case] = complete(case, reference), time.monotonic() - start
            expected, seconds = references[case]
            (folder := Path(root, f'{case}_{number}')).mkdir()
            planned = min(rng.randint(1, 4), args.kills - kills)
            done = 0
            while done < planned and kill_once(case, folder, rng, seconds):
                done += 1
            kills += done
            found = compare(complete(case, folder), expected) + compare(complete(case, folder), expected)
            differences += found
            print(f'{kills} kills, {case}: {done} kills, {found} differences', flush=True)
            if kills >= args.kills:
                break
    print(f'{kills} kills, {differences} differences')
    raise SystemExit(bool(differences))


if __name__ == '__main__':
    main()
