"""How the console shows the search over workflows."""

from __future__ import annotations

import math
from collections.abc import Mapping

from aiotrain.app.console import charts
from aiotrain.app.console.lines import Line, field, flow
from aiotrain.cage2.search.status import TrainingStatus, WorkflowStatus
from aiotrain.cage2.workflows import order_words
from aiotrain.domains import Panel

__all__ = ["SearchPanel"]


class SearchPanel(Panel):
    """Shows the orders in training, whether the agent follows them, and the best orders so far."""

    title = "workflow search"

    def headline(self, status: WorkflowStatus) -> Line:
        """See Panel."""
        complied = field("complied", f"{status.complied:,}")
        return [*field("trainings ended", f"{status.trainings:,}"), (", ", "label"), *complied]

    def lines(self, status: WorkflowStatus, width: int, height: int) -> list[Line]:
        """See Panel."""
        running = status.running[: max(1, height // 2)]
        lines = []
        for place, training in enumerate(running):
            label = "now" if len(status.running) == 1 else f"{place + 1}/{len(status.running)}"
            lines.append(flow(_of_training(label, training, status.threshold), width, gap=2)[0])
        left = height - len(lines)
        for place, estimate in enumerate(status.best[:left]):
            lines.append(
                [
                    ("best " if place == 0 else "     ", "label"),
                    (f"{order_words(estimate.workflow)}  ", "value" if place == 0 else "label"),
                    (f"{charts.mean_and_deviation(estimate.mean, estimate.std):<14}", "value"),
                    ("" if estimate.complied else "  missed", "warn"),
                ]
            )
        if not status.best and left > 0:
            lines.append([("best ", "label"), ("none yet", "label")])
        return lines

    def log(self, status: WorkflowStatus) -> Mapping[str, str]:
        """See Panel."""
        running = status.running
        return {"workflow": running[0].workflow if len(running) == 1 else f"{len(running)}-orders"}

    def summary(self, status: WorkflowStatus) -> Mapping[str, str]:
        """See Panel."""
        return {"workflow": _best_order(status)}


def _of_training(label: str, training: TrainingStatus, threshold: float) -> list[Line]:
    """Return the parts of a training's line, the most important first."""
    known = math.isfinite(training.compliance)  # rounded down, so that the threshold is shown when it is reached
    share = charts.percent(math.floor(100 * training.compliance) / 100 if known else math.nan)
    return [
        [(f"{label:<4} ", "label"), (order_words(training.workflow), "value")],
        [
            ("compliance ", "label"),
            (share.strip(), "good" if training.compliance >= threshold else "value"),
            (f" of {100 * threshold:g}%", "label"),
        ],
        field("training", f"{training.iteration:,}"),
        field("episodes", f"{training.episodes:,}"),
    ]


def _best_order(status: WorkflowStatus) -> str:
    """Say which order is the best, and how far to trust that."""
    if not status.trainings:
        return "no training of an order has ended"
    share = charts.percent(status.complied / status.trainings).strip()
    trainings = f"{charts.counted(status.trainings, 'training')}, {share} complied"
    if not status.best:
        return trainings
    best = status.best[0]
    estimate = charts.mean_and_deviation(best.mean, best.std) + ("" if best.complied else ", without having complied")
    return f"best {order_words(best.workflow)}: {estimate}\nafter {trainings}"
