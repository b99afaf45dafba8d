"""Per-image values of metrics, collected over batches as the evaluator does."""

import numpy as np

from pit_downstream.results.outcomes import Entry, Outcomes


def collect(metrics, batches, size):
    """Return the outcomes of metrics. batches: (outputs, batch, dataset indices)."""
    outcomes = Outcomes(size)
    for outputs, batch, indices in batches:
        values = {}
        for metric in metrics:
            values |= metric.measure(outputs, batch)
        order = np.argsort(indices)
        outcomes.add(Entry('clean', np.asarray(indices)[order],
                           {name: value.numpy()[order] for name, value in values.items()}))
    return outcomes


def compute(metric, outcomes):
    """Return the numbers of a metric by name, 'metric@layer' for layers."""
    return {f'{value.metric}@{value.layer}' if value.layer or '_similar_' in value.metric else value.metric: value.value
            for value in metric.compute(outcomes, None)}
