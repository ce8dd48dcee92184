"""A job's states and its routing file."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpxfer.errors import FormatError
from lpxfer.formats import job, keyvalue
from lpxfer.formats.job import NOT_COMPLETED, Routing, State

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

values = st.none() | st.binary(max_size=60).map(keyvalue.from_bytes)
routings = st.builds(
    Routing,
    remhost=values,
    rempath=values,
    remuser=values,
    rempw=values,
    priority=st.integers(1, 100),
    not_before=st.none()
    | st.integers(0, 10**14).map(lambda ms: EPOCH + timedelta(milliseconds=ms)),
    reason=values,
    stalls=st.integers(0, 10**9 - 1),
    mismatches=st.integers(0, 10**9 - 1),
    outcome=st.none() | st.sampled_from(State),
)


def test_every_state_has_a_directory_and_the_two_ends_share_one():
    directories = {state.value: state.directory for state in State}
    assert directories == {
        "pending": "pending", "held": "held", "active": "active", "sent": "sent",
        "failed": "failed", "quarantined": "quarantine", "completed": "done", "canceled": "done",
    }  # fmt: skip


def test_not_completed_is_every_state_but_the_two_ends():
    assert set(NOT_COMPLETED) == set(State) - {State.COMPLETED, State.CANCELED}


@given(routings)
def test_routing_gives_back_what_was_written(routing):
    assert job.load_routing(job.dump_routing(routing)) == routing


def test_routing_leaves_out_what_has_its_default():
    assert keyvalue.load(job.dump_routing(Routing())) == {}
    not_before = datetime(2026, 11, 20, 4, 5, tzinfo=UTC)
    text = job.dump_routing(Routing(priority=70, not_before=not_before, outcome=State.CANCELED))
    assert keyvalue.load(text) == {
        "priority": "70", "not_before": "2026-11-20T04:05:00.000Z", "outcome": "canceled",
    }  # fmt: skip


@pytest.mark.parametrize(
    "keyword, value",
    [("priority", "0"), ("priority", "x"), ("stalls", "-1"), ("stalls", "9" * 10),
     ("mismatches", ""), ("not_before", "soon"), ("outcome", "done"), ("colour", "red")],
)  # fmt: skip
def test_bad_routing_is_refused(keyword, value):
    with pytest.raises(FormatError):
        job.load_routing(keyvalue.dump([(keyword, value)]))


@given(
    st.binary(max_size=300)
    | st.dictionaries(
        st.sampled_from(["remhost", "priority", "not_before", "stalls", "outcome", "x"]),
        st.text("0123456789TZ:-.acdelnp", max_size=400),
    ).map(lambda pairs: keyvalue.dump(pairs.items()))
)
def test_reader_raises_nothing_but_format_error(text):
    try:
        job.load_routing(text)
    except FormatError:
        pass


def test_refusal_says_in_which_state_the_job_is_and_in_which_it_would_have_to_be():
    fit = [State.PENDING, State.HELD]
    assert job.refusal("a-1", State.SENT, fit) == "a-1: too late: sent"
    assert (
        job.refusal("a-1", State.FAILED, fit)
        == "a-1 is failed; this is for jobs that are pending, held"
    )
    for finished in (None, State.COMPLETED, State.CANCELED):
        assert job.refusal("a-1", finished, fit).startswith("a-1 is finished; ")
