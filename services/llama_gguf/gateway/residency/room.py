"""Whether models fit the budget together, and which of them have to leave so that they do. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llama_gguf.gateway.residency.model_state import Budget, ModelState, Need


def fits(budget: Budget, needs: Iterable[Need]) -> bool:
    """Return whether these needs together are within the budget."""
    device = host = 0
    for need in needs:
        device += need.device
        host += need.host
    return (budget.device is None or device <= budget.device) and (budget.host is None or host <= budget.host)


def choose_victims(budget: Budget, staying: Sequence[Need], by_preference: Sequence[ModelState]) -> list[ModelState]:
    """Return who must leave so that `staying` fit with the others: as few of the last in the order as possible.

    If even all of them are not enough, they are all returned.
    """
    victims: list[ModelState] = []
    for model in by_preference:
        if _fit_without(budget, staying, by_preference, victims):
            break
        victims.append(model)
    # Small ones that came first in the order have left in vain if a large one had to leave after them.
    for model in reversed(victims.copy()):
        fewer = [victim for victim in victims if victim is not model]
        if _fit_without(budget, staying, by_preference, fewer):
            victims = fewer
    return victims


def _fit_without(
    budget: Budget, staying: Sequence[Need], models: Sequence[ModelState], victims: Sequence[ModelState]
) -> bool:
    gone = {victim.name for victim in victims}
    return fits(budget, [*staying, *(model.need for model in models if model.name not in gone)])
