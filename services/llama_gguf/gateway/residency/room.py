"""Whether models fit the budget together, and which of them have to leave so that they do. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llama_gguf.gateway.residency.model_state import Budget, ModelState, Need


def fits(budget: Budget, needs: Iterable[Need]) -> bool:
    """Return whether these needs together are within the budget."""
    device, host = _excess(budget, needs)
    return device <= 0 and host <= 0


def choose_victims(budget: Budget, staying: Sequence[Need], by_preference: Sequence[ModelState]) -> list[ModelState]:
    """Return who must leave so that `staying` fit with the others: as few of the last in the order as possible.

    If even all of them are not enough, they are all returned.
    """
    device, host = _excess(budget, [*staying, *(model.need for model in by_preference)])
    victims: list[ModelState] = []
    for model in by_preference:
        if device <= 0 and host <= 0:
            break
        victims.append(model)
        device -= model.need.device
        host -= model.need.host
    # Small ones that came first in the order have left in vain if a large one had to leave after them.
    needed: list[ModelState] = []
    for model in reversed(victims):
        if device + model.need.device <= 0 and host + model.need.host <= 0:
            device += model.need.device
            host += model.need.host
        else:
            needed.append(model)
    return needed[::-1]


def _excess(budget: Budget, needs: Iterable[Need]) -> tuple[float, float]:
    """Return by how much these needs exceed each limit; not above zero where they do not."""
    device: float = -float("inf") if budget.device is None else -budget.device
    host: float = -float("inf") if budget.host is None else -budget.host
    for need in needs:
        device += need.device
        host += need.host
    return device, host
