"""Which pending job goes next."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpxfer.formats.schedule import Schedule, Want

NOW = datetime(2026, 11, 20, 4, 0, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)


class Pending:
    """What stands in pending/: stamps and wants by id."""

    def __init__(self, **wants: Want) -> None:
        self.wants = {f"archive-{name[1:]}": want for name, want in wants.items()}
        self.stamps = dict.fromkeys(self.wants, 1)
        self.schedule = Schedule()
        self.asked: list[str] = []
        self.update()

    def update(self) -> None:
        self.schedule.update(self.stamps.items(), self.want)

    def want(self, job_id: str) -> Want:
        self.asked.append(job_id)
        return self.wants[job_id]

    def change(self, job_id: str, want: Want) -> None:
        self.stamps[job_id] += 1
        self.wants[job_id] = want
        self.update()

    def remove(self, job_id: str) -> None:
        del self.stamps[job_id]
        self.update()

    def pop_all(self, now: datetime = NOW) -> list[str]:
        popped = []
        while job_id := self.schedule.pop(now):
            popped.append(job_id)
        return popped


def test_higher_priority_goes_first_then_the_lower_number():
    pending = Pending(j10=(50, None), j9=(50, None), j2=(1, None), j30=(100, None))
    assert pending.pop_all() == ["archive-30", "archive-9", "archive-10", "archive-2"]


def test_job_is_given_out_once():
    pending = Pending(j1=(50, None))
    pending.update()
    assert pending.pop_all() == ["archive-1"]


def test_job_that_came_back_is_given_out_again():
    pending = Pending(j1=(50, None))
    assert pending.schedule.pop(NOW) == "archive-1"
    pending.update()
    assert pending.schedule.pop(NOW) == "archive-1"


def test_deferred_job_waits_for_its_time_and_then_goes_by_its_priority():
    pending = Pending(j1=(50, None), j2=(70, LATER))
    assert not Pending(j2=(70, LATER)).schedule.has_ready(NOW)
    assert pending.schedule.has_ready(NOW)
    assert pending.pop_all() == ["archive-1"]
    assert not pending.schedule.has_ready(NOW)
    pending.update()
    assert pending.schedule.has_ready(LATER)
    assert pending.pop_all(LATER) == ["archive-2", "archive-1"]


def test_routing_is_read_again_only_where_it_changed():
    pending = Pending(j1=(50, None), j2=(50, None))
    pending.update()
    assert pending.asked == ["archive-1", "archive-2"]
    pending.change("archive-2", (60, None))
    assert pending.asked == ["archive-1", "archive-2", "archive-2"]
    assert pending.pop_all() == ["archive-2", "archive-1"]


def test_deferral_that_was_lifted_or_added_counts():
    pending = Pending(j1=(50, LATER), j2=(50, None))
    pending.change("archive-1", (50, None))
    pending.change("archive-2", (50, LATER))
    assert pending.pop_all() == ["archive-1"]
    assert pending.pop_all(LATER) == ["archive-2"]


def test_job_that_is_gone_is_not_given_out():
    pending = Pending(j1=(50, None), j2=(50, LATER))
    pending.remove("archive-1")
    pending.remove("archive-2")
    assert len(pending.schedule) == 0
    assert pending.pop_all(LATER) == []


def test_job_put_last_goes_behind_its_priority_and_before_the_lower():
    pending = Pending(j1=(50, None), j2=(50, None), j3=(40, None))
    assert pending.schedule.pop(NOW) == "archive-1"
    pending.schedule.put_last("archive-1")
    pending.update()
    assert pending.pop_all() == ["archive-2", "archive-1", "archive-3"]


def test_look_at_pending_while_the_job_is_active_does_not_put_it_first_again():
    pending = Pending(j1=(50, None), j2=(50, None))
    assert pending.schedule.pop(NOW) == "archive-1"
    pending.schedule.put_last("archive-1")
    pending.schedule.update([("archive-2", 1)], pending.want)
    pending.update()
    assert pending.pop_all() == ["archive-2", "archive-1"]


def test_job_that_had_its_turn_is_not_last_for_ever():
    pending = Pending(j1=(50, None), j2=(50, None))
    assert pending.schedule.pop(NOW) == "archive-1"
    pending.schedule.put_last("archive-1")
    pending.update()
    assert pending.pop_all() == ["archive-2", "archive-1"]
    pending.update()
    assert pending.pop_all() == ["archive-1", "archive-2"]


def test_jobs_put_last_take_turns():
    pending = Pending(j1=(50, None), j2=(50, None))
    order = []
    for _ in range(6):
        job_id = pending.schedule.pop(NOW)
        order.append(job_id)
        pending.schedule.put_last(job_id)
        pending.update()
    assert order == ["archive-1", "archive-2"] * 3


@given(
    st.dictionaries(
        st.integers(1, 50).map(lambda number: f"archive-{number}"),
        st.tuples(st.integers(1, 100), st.sampled_from([None, NOW, LATER])),
    )
)
def test_every_job_goes_once_and_none_before_its_time(wants):
    schedule = Schedule()
    schedule.update([(job_id, 1) for job_id in wants], wants.__getitem__)
    popped = []
    while job_id := schedule.pop(NOW):
        popped.append(job_id)
    assert set(popped) == {job_id for job_id, (_, time) in wants.items() if time != LATER}
    assert len(popped) == len(set(popped))
    priorities = [wants[job_id][0] for job_id in popped]
    assert priorities == sorted(priorities, reverse=True)
    assert len(schedule) == len(wants) - len(popped)


@pytest.mark.parametrize("now, ready", [(NOW, False), (LATER, True)])
def test_ready_is_what_would_be_given_out(now, ready):
    assert Pending(j1=(50, LATER)).schedule.has_ready(now) is ready
