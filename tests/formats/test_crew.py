"""How many connections pay: links that are played to it."""

from collections.abc import Callable

import pytest

from lpxfer.formats.crew import FIRST, REFUSED, REST, Crew


def play(crew: Crew, link: Callable[[int], float], seconds: float, now: float = 0.0) -> list[int]:
    """Carry as much as the link takes for a while, all busy; return the sizes, each second."""
    carried, sizes = 0.0, []
    crew.idle(now, 0)
    for tick in range(int(seconds * 5)):
        carried += link(crew.size) / 5
        crew.busy(now + (tick + 1) / 5, int(carried))
        sizes.append(crew.size)
    return sizes[::5]


def long(size: int) -> float:
    """Two MiB in each of ten round trips a second, up to 60 MB/s."""
    return min(size * 20e6, 60e6)


def lossy(size: int) -> float:
    """Each connection carries little, and none is in another's way."""
    return size * 1e6


def short(size: int) -> float:
    """Two do best; more share the processor."""
    return [500e6, 800e6][size - 1] if size < 3 else 800e6 - 20e6 * size


def narrow(_: int) -> float:
    """One connection fills it."""
    return 1e6


def test_long_link_is_filled_by_the_first_guess() -> None:
    crew = Crew(16)
    crew.reached(0.1)
    assert long(crew.size) == 60e6


def test_guess_is_made_once_and_within_the_limit() -> None:
    crew = Crew(4)
    crew.reached(0.3)
    assert crew.size == 4
    crew.reached(0.0001)
    assert crew.size == 4


@pytest.mark.parametrize("link", [long, lossy, short, narrow])
@pytest.mark.parametrize("rtt", [0.0001, 0.02, 0.1])
def test_link_of_any_kind_is_filled_after_a_while(link: Callable[[int], float], rtt: float) -> None:
    crew = Crew(16)
    crew.reached(rtt)
    sizes = play(crew, link, 300)
    best = max(link(size) for size in range(1, 17))
    assert sum(link(size) for size in sizes[60:]) / len(sizes[60:]) > 0.85 * best


def test_connections_that_do_not_pay_are_given_up() -> None:
    crew = Crew(16)
    crew.reached(0.1)
    assert crew.size > 4
    play(crew, narrow, 60)
    assert crew.size <= 2


def test_trials_become_rare() -> None:
    crew = Crew(8)
    crew.reached(0.0001)
    sizes = play(crew, narrow, 2000)
    assert sum(size != sizes[-1] for size in sizes[1000:]) < 20


def test_one_connection_stays_one() -> None:
    crew = Crew(1)
    crew.reached(0.2)
    assert set(play(crew, lossy, 3 * REST)) == {1}


def test_what_is_measured_while_some_were_idle_counts_for_nothing() -> None:
    crew = Crew(8)
    for second in range(100):
        crew.idle(second, second * 1000)
        crew.busy(second + 0.5, second * 1000 + 500)
    assert crew.size == FIRST


def test_server_that_takes_no_more_is_left_in_peace_for_a_while() -> None:
    crew = Crew(8)
    crew.reached(0.1)
    crew.refused(now=0.0, others=3)
    assert crew.size == 3
    assert max(play(crew, lossy, REFUSED - 10)) == 3
    assert max(play(crew, lossy, 200, now=REFUSED)) > 3


def test_last_connection_is_not_given_up() -> None:
    crew = Crew(8)
    crew.refused(now=0.0, others=0)
    assert crew.size == 1
