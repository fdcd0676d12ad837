"""Whether models fit together, and who has to leave so that they do."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
from hypothesis import given

from llama_gguf.gateway.residency.model_state import Budget, ModelState, Need
from llama_gguf.gateway.residency.room import choose_victims, fits
from llama_gguf.states import Residency

needs = st.builds(Need, st.integers(0, 5), st.integers(0, 5))


def test_both_memories_count_and_an_unknown_one_does_not() -> None:
    assert fits(Budget(3, 3), [Need(1, 0), Need(2, 3)])
    assert not fits(Budget(3, 3), [Need(4, 0)])
    assert not fits(Budget(3, 3), [Need(0, 2), Need(0, 2)])
    assert fits(Budget(None, 3), [Need(99, 3)])
    assert fits(Budget(3, None), [Need(3, 99)])


@given(st.builds(Budget, st.integers(0, 12), st.integers(0, 12)), st.lists(needs, max_size=2), st.lists(needs))
def test_enough_leave_where_enough_can_and_none_of_them_in_vain(
    budget: Budget, staying: list[Need], others: list[Need]
) -> None:
    models = [ModelState(str(number), need, Residency.LOADED) for number, need in enumerate(others[:6])]
    victims = choose_victims(budget, staying, models)

    def fit_without(leaving: list[ModelState]) -> bool:
        return fits(budget, [*staying, *(model.need for model in models if model not in leaving)])

    if not fits(budget, staying):
        assert victims == models, "as much as can be given back"
        return
    assert fit_without(victims)
    for fewer in itertools.combinations(victims, max(0, len(victims) - 1)):
        assert not victims or not fit_without(list(fewer))


def test_the_first_in_the_order_leave_first() -> None:
    models = [ModelState(name, Need(2, 0), Residency.LOADED) for name in "abc"]
    assert [model.name for model in choose_victims(Budget(6, None), [Need(2, 0)], models)] == ["a"]
    assert [model.name for model in choose_victims(Budget(6, None), [Need(3, 0)], models)] == ["a", "b"]
