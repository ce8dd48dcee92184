"""A queue's two switches."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from lpxfer.errors import FormatError
from lpxfer.formats import keyvalue, switches
from lpxfer.formats.switches import Switches

NOW = datetime(2003, 4, 2, 5, 12, 33, 120_000, tzinfo=UTC)

values = st.binary(max_size=60).map(keyvalue.from_bytes)
words = st.sampled_from(
    "accepting accepting_reason accepting_since enabled enabled_reason enabled_since x".split()
)


def test_new_queue_takes_and_sends_jobs_and_its_file_says_nothing():
    assert switches.load(switches.dump(Switches())) == Switches()
    assert keyvalue.load(switches.dump(Switches())) == {}


@given(values, values)
def test_switches_give_back_what_was_written_whatever_the_reasons(one, other):
    off = Switches().reject(one, NOW).disable(other, NOW)
    assert switches.load(switches.dump(off)) == off
    assert switches.load(switches.dump(off.accept().enable())) == Switches()


def test_switch_that_is_off_already_keeps_its_time_and_takes_the_new_reason():
    later = NOW + timedelta(hours=1)
    off = Switches().disable("first", NOW).disable("second", later).reject("third", later)
    assert (off.enabled_since, off.enabled_reason) == (NOW, "second")
    assert (off.accepting_since, off.accepting_reason) == (later, "third")


@given(
    st.binary(max_size=300)
    | st.dictionaries(words, values | st.just("no")).map(lambda d: keyvalue.dump(d.items()))
)
def test_reader_raises_nothing_but_format_error(text):
    try:
        found = switches.load(text)
    except FormatError:
        return
    for since in (found.accepting_since, found.enabled_since):
        assert since is None or since.tzinfo
