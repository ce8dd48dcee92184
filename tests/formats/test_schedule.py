"""Which pending job goes next."""

import tracemalloc
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpxfer.formats.schedule import LEVEL, OLDEST, REMEMBERED, SHARE, Schedule, Want

NOW = datetime(2026, 11, 20, 4, 0, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
PERIOD = timedelta(seconds=LEVEL)


def stamp(time: datetime) -> int:
    return int(time.timestamp()) * 1_000_000_000


class Pending:
    """What stands in pending/: stamps and wants by id."""

    def __init__(self, **wants: Want) -> None:
        self.wants: dict[str, Want] = {}
        self.stamps: dict[str, int] = {}
        self.schedule = Schedule()
        self.asked: list[str] = []
        self.came(NOW, **wants)

    def came(self, time: datetime, **wants: Want) -> None:
        """Let jobs come at a time; they are seen at once."""
        for name, want in wants.items():
            self.wants[f"archive-{name[1:]}"] = want
            self.stamps[f"archive-{name[1:]}"] = stamp(time)
        self.update(time)

    def update(self, now: datetime = NOW) -> None:
        self.schedule.update(self.stamps.items(), self.want, now)

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

    def numbers(self, now: datetime = NOW) -> list[int]:
        """Take all jobs that may go now; return their numbers."""
        return [int(job_id.partition("-")[2]) for job_id in self.pop_all(now)]


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


def test_job_put_last_goes_before_those_that_come_later():
    pending = Pending(j1=(50, None), j2=(50, None))
    assert pending.schedule.pop(NOW) == "archive-1"
    pending.schedule.put_last("archive-1")
    pending.came(NOW + PERIOD, j3=(50, None))
    assert pending.numbers(NOW + PERIOD) == [2, 1, 3]


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
    schedule.update([(job_id, stamp(NOW)) for job_id in wants], wants.__getitem__, NOW)
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


# --- age ----------------------------------------------------------------------------------


def test_jobs_that_came_in_another_order_than_their_numbers_go_by_age():
    pending = Pending()
    pending.came(NOW, j9=(50, None), j10=(50, None))
    pending.came(NOW + PERIOD, j1=(50, None))
    assert pending.numbers(NOW + PERIOD) == [9, 10, 1]


def test_job_that_waited_long_enough_has_its_turn_after_a_few_of_higher_priority():
    pending = Pending()
    pending.came(NOW, j1=(50, None))
    later = NOW + 11 * PERIOD  # a period for each of ten levels, and one more
    pending.came(later, **{f"j{number}": (60, None) for number in range(2, 2 + SHARE + 2)})
    assert pending.numbers(later) == [2, 3, 4, 5, 1, 6, 7]


def test_job_that_did_not_wait_as_long_goes_after_all_of_higher_priority():
    pending = Pending()
    pending.came(NOW, j1=(50, None))
    later = NOW + 9 * PERIOD
    pending.came(later, **{f"j{number}": (60, None) for number in range(2, 10)})
    assert pending.numbers(later) == [2, 3, 4, 5, 6, 7, 8, 9, 1]


def test_target_of_opportunity_goes_first_however_old_the_backlog_is():
    pending = Pending()
    pending.came(NOW, **{f"j{number}": (50, None) for number in range(1, 6)})
    later = NOW + timedelta(days=3)
    pending.came(later, j9=(100, None))
    assert pending.numbers(later) == [9, 1, 2, 3, 4, 5]


def test_lowest_priority_is_not_starved_by_a_stream_of_the_highest():
    pending = Pending()
    pending.came(NOW, j1=(1, None), j2=(100, None))
    now, number, popped = NOW, 2, ""
    while popped != "archive-1":
        now += timedelta(minutes=5)
        number += 1
        assert now - NOW < timedelta(days=1)
        pending.came(now, **{f"j{number}": (100, None)})  # as fast as they go
        popped = pending.schedule.pop(now) or ""
        pending.remove(popped)
    assert now - NOW >= 99 * PERIOD


def test_age_survives_a_change_a_deferral_and_a_failed_attempt():
    pending = Pending()
    pending.came(NOW, j1=(49, None), j2=(49, None), j3=(49, None), j4=(49, None))
    assert pending.schedule.pop(NOW) == "archive-1"
    later = NOW + 5 * PERIOD
    pending.wants["archive-2"] = (50, None)
    pending.wants["archive-3"] = (50, later + PERIOD / 2)
    pending.wants["archive-1"] = (50, None)
    for job_id in ("archive-1", "archive-2", "archive-3"):
        pending.stamps[job_id] = stamp(later)
    pending.came(later, j0=(50, None))
    assert pending.numbers(later + PERIOD / 2) == [1, 2, 3, 0, 4]


def test_sender_that_starts_takes_the_age_from_the_stamps():
    pending = Pending()
    pending.wants = {"archive-1": (50, None), "archive-2": (50, None)}
    pending.stamps = {"archive-1": stamp(NOW), "archive-2": stamp(NOW - PERIOD)}
    pending.update()
    assert pending.numbers() == [2, 1]


def test_stamp_of_a_clock_that_ran_ahead_counts_as_now():
    pending = Pending()
    pending.wants, pending.stamps = {"archive-1": (50, None)}, {"archive-1": stamp(LATER)}
    pending.update()
    pending.came(NOW + PERIOD, j2=(50, None))
    assert pending.numbers(NOW + PERIOD) == [1, 2]


def test_stamp_of_a_clock_that_was_reset_is_as_old_as_age_counts_and_no_older():
    pending = Pending()
    pending.wants = {f"archive-{number}": (50, None) for number in (1, 2, 3)}
    pending.stamps = {
        "archive-3": 0,
        "archive-2": stamp(NOW - (OLDEST + 5) * PERIOD),
        "archive-1": stamp(NOW - (OLDEST - 1) * PERIOD),
    }
    pending.update()
    assert pending.numbers() == [2, 3, 1]


def test_job_that_was_wished_for_later_does_not_grow_older_until_then():
    pending = Pending(j1=(50, LATER))
    pending.came(NOW + PERIOD, j2=(50, None))
    assert pending.numbers(LATER) == [2, 1]


def test_priority_can_be_changed_while_the_job_waits():
    pending = Pending(j1=(50, None), j2=(50, None), j3=(50, None))
    pending.change("archive-3", (51, None))
    pending.change("archive-1", (49, None))
    assert pending.numbers() == [3, 2, 1]


def test_head_is_the_highest_priority_and_the_longest_wait_of_what_may_go():
    pending = Pending()
    pending.came(NOW, j1=(50, None), j2=(90, LATER))
    pending.came(NOW + timedelta(seconds=5), j3=(60, None))
    assert pending.schedule.head(NOW + timedelta(seconds=7)) == (60, 7.0)
    assert pending.schedule.head(LATER) == (90, 3600.0)
    assert Pending(j1=(50, LATER)).schedule.head(NOW) is None
    assert Pending(j1=(50, None)).schedule.head(NOW - timedelta(seconds=1)) == (50, 0.0)


# --- giving way ---------------------------------------------------------------------------


def test_only_a_higher_priority_that_may_go_is_above():
    pending = Pending(j1=(50, None), j2=(70, LATER))
    above = pending.schedule.waiting_above
    assert [above(rank, NOW) for rank in (49, 50, 70)] == [True, False, False]
    assert [above(rank, LATER) for rank in (50, 69, 70)] == [True, True, False]
    pending.remove("archive-2")
    assert not above(50, LATER)


def test_what_changed_its_priority_or_was_taken_is_above_no_more():
    pending = Pending(j1=(60, None), j2=(60, None))
    assert pending.schedule.take(NOW) == ("archive-1", 60)
    assert pending.schedule.waiting_above(50, NOW)
    pending.change("archive-2", (40, None))
    del pending.stamps["archive-1"]
    pending.update()
    assert not pending.schedule.waiting_above(50, NOW)
    assert pending.schedule.waiting_above(39, NOW)


def test_job_that_goes_for_its_age_gives_way_only_to_what_it_did_not_go_before():
    pending = Pending()
    pending.came(NOW, j1=(50, None))
    later = NOW + 20 * PERIOD
    pending.came(later, **{f"j{number}": (60, None) for number in range(2, 10)})
    taken = [pending.schedule.take(later) for _ in range(SHARE + 1)]
    assert taken[-1] == ("archive-1", 60)
    assert not pending.schedule.waiting_above(60, later)
    pending.came(later, j99=(61, None))
    assert pending.schedule.waiting_above(60, later)


def test_job_that_gave_way_keeps_its_place():
    pending = Pending(j1=(50, None), j2=(50, None))
    assert pending.schedule.take(NOW) == ("archive-1", 50)
    pending.came(LATER, j3=(90, None))
    del pending.stamps["archive-2"]  # it comes anew
    pending.stamps["archive-1"] = stamp(LATER)
    pending.came(LATER, j2=(50, None))
    assert pending.numbers(LATER) == [3, 1, 2]


jobs = st.lists(st.tuples(st.integers(1, 100), st.integers(0, 200)), min_size=1, max_size=20)


@given(jobs, st.integers(0, SHARE))
def test_no_two_jobs_give_way_to_each_other(jobs, passed):
    pending = Pending()
    for number, (priority, periods) in enumerate(jobs, 1):
        pending.wants[f"archive-{number}"] = (priority, None)
        pending.stamps[f"archive-{number}"] = stamp(NOW - periods * PERIOD)
    pending.update()
    for _ in range(passed):  # whatever went before
        if taken := pending.schedule.take(NOW):
            pending.remove(taken[0])
    rank = 0
    while pending.schedule.waiting_above(rank, NOW):
        before = rank
        taken = pending.schedule.take(NOW)
        assert taken
        rank = taken[1]
        assert rank > before
        pending.update()  # it gave way, and is pending again


# --- a million jobs -----------------------------------------------------------------------


def test_job_takes_less_than_250_bytes():
    count = 20_000
    tracemalloc.start()
    schedule = Schedule()
    entries = ((f"archive-{10**6 + number}", stamp(NOW) + number) for number in range(count))
    schedule.update(entries, lambda job_id: (50, None), NOW)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(schedule) == count
    assert size / count < 250


def test_places_of_jobs_that_never_come_back_are_forgotten_in_time():
    schedule = Schedule()
    entries = [(f"archive-{number}", stamp(NOW)) for number in range(1, REMEMBERED + 100)]
    schedule.update(entries, lambda job_id: (50, None), NOW)
    while schedule.pop(NOW):
        pass
    assert len(schedule._places) == REMEMBERED
