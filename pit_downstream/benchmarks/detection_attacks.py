"""AP of a detector with and without attack, on the same images."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pit_downstream.benchmarks import coco_c
from pit_downstream.benchmarks.adversarial import Adversarial
from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.results.intervals import Estimate
from pit_downstream.results.layout import Layout
from pit_downstream.results.records import Table
from pit_downstream.results.results import format_epsilon, get_epsilon
from pit_downstream.results.tables import Sheet, rate, words
from pit_downstream.utils.registry import BENCHMARKS

if TYPE_CHECKING:
    from pit_downstream.results.results import Results

ATTACKS = ('noise', 'pgd(steps=10)')


@BENCHMARKS.register('detection_attacks')
@dataclass(frozen=True)
class DetectionAttacks(Adversarial):
    """AP under attacks. AP is no rate of images, so it has no worst case and no interval here."""

    name = 'detection_attacks'
    title = 'Attacked detectors'
    about = ('AP of detectors, in percent, on the same images without and with an attack. AP is no rate of images: it '
             'has no interval here.')
    tasks = ('detector',)
    layout = Layout(rows='attack', columns='epsilon', value='AP', mean=False)

    attacks: tuple[str, ...] = field(default=ATTACKS, metadata={
        'help': "names with arguments, such as 'tog(mode=\'vanishing\')'; an attack with an explicit norm or epsilon "
        'keeps it', 'nargs': '*', 'metavar': 'ATTACK'})

    def metric_names(self, task: str) -> tuple[str, ...]:
        return ()

    def required(self) -> tuple[tuple[Condition, str], ...]:
        return tuple((condition, 'AP') for condition in self.conditions())

    def summarize(self, results: 'Results') -> dict[str, Estimate]:
        """Return the main metrics by condition: 'AP(clean)' ... Raises MissingMeasurement without clean AP."""
        results.table.require((CLEAN, metric) for metric in list_main_metrics(results.table))
        return {f'{metric}({condition})': Estimate(results.table[condition, metric])
                for metric in list_main_metrics(results.table) for condition in self.conditions()
                if (condition, metric) in results.table}

    def tabulate(self, results: 'Results') -> list[Sheet]:
        """Return for each AP a row without attack and one per attack, with a column per epsilon."""
        return [self._tabulate_metric(results, metric) for metric in list_main_metrics(results.table)]

    def _tabulate_metric(self, results: 'Results', metric: str) -> Sheet:
        table, conditions = results.table, self.conditions()
        attacks = [condition.attack for condition in conditions if condition.attack]
        epsilons = sorted(dict.fromkeys(map(format_epsilon, attacks)), key=lambda text: next(
            (get_epsilon(attack) or 0. for attack in attacks if format_epsilon(attack) == text), 0.))

        def get_cell(condition: Condition | None):
            if condition is None:
                return words('')
            return rate(table[condition, metric] if (condition, metric) in table else None)
        rows = [(words(str(condition)), get_cell(condition), *[words('')] * len(epsilons))
                for condition in conditions if condition.attack is None]
        for rest in dict.fromkeys(map(drop_epsilon, (one for one in conditions if one.attack))):
            sized = {format_epsilon(one.attack): one for one in conditions if one.attack and drop_epsilon(one) == rest}
            rows.append((words(str(rest)), words(''), *(get_cell(sized.get(epsilon)) for epsilon in epsilons)))
        caption = f'{metric} of {results.subject}, in percent, by attack and epsilon.'
        return Sheet(f'{self.name}_{metric}', caption, (metric, 'no attack', *epsilons), tuple(rows))


def list_main_metrics(table: Table) -> list[str]:
    """Return AP of boxes and of masks, or the first available metric without AP."""
    measured = coco_c.list_measured_metrics(table)
    return [metric for metric in measured if metric in coco_c.MAIN] or list(measured[:1])


def drop_epsilon(condition: Condition) -> Condition:
    """Return a condition without the epsilon of its attack."""
    return Condition(condition.corruption, condition.attack and condition.attack.without('epsilon'))
