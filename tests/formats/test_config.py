"""lpxfer.conf."""

import re
from dataclasses import fields

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lpxfer.errors import ConfigError
from lpxfer.formats import config
from lpxfer.formats.config import NO_KEYS, Config, InstrumentConfig, QueueConfig

CONF = """\
# two sites
[lpxfer]
queue = archive
reserve = 1G
stale = 3d

[queue archive]
remhost = tdc-ftp.harvard.edu:2222
rempath = /srv/lpxfer/incoming
remuser = tdcin
maxftp = 0
stall = 90s
connections = 8
seal = 0040
link = yes

[queue second]
transport = local
receipts = /mnt/receipts

[instrument minicam]
dir = /data/ARCHMINICAM
alias = mini
zone = MST
noon = yes
mode = 440
"""


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as error:
        config.parse(text, "x.conf")
    assert error.value.exit_status == 2
    return str(error.value)


def test_empty_file_has_every_default():
    assert config.parse("", "x.conf") == Config(path="x.conf")
    parsed = config.parse("[queue archive]\n[instrument minicam]\n", "x.conf")
    assert parsed.queues == {"archive": QueueConfig("archive")}
    assert parsed.instruments == {"minicam": InstrumentConfig("minicam")}


def test_settings_are_read_with_their_units():
    parsed = config.parse(CONF, "x.conf")
    assert (parsed.queue, parsed.reserve, parsed.stale) == ("archive", 1 << 30, 3 * 86400.0)
    archive = parsed.find_queue("archive")
    assert (archive.remhost, archive.remuser) == ("tdc-ftp.harvard.edu:2222", "tdcin")
    assert (archive.maxftp, archive.stall, archive.connections) == ("0", 90.0, 8)
    assert (archive.seal, archive.link) == (0o040, True)
    minicam = parsed.find_instrument("minicam")
    assert (minicam.dir, minicam.zone, minicam.noon) == ("/data/ARCHMINICAM", "MST", True)
    assert minicam.mode == 0o440
    assert minicam.tz.utcoffset(None) is not None


def test_saos_defaults_are_kept():
    assert QueueConfig("archive").inst == "undef"
    assert QueueConfig("archive").maxftp == "600"


def test_receipts_are_beside_incoming_unless_they_are_named():
    parsed = config.parse(CONF, "x.conf")
    assert parsed.find_queue("archive").receipts_path == "/srv/lpxfer/receipts"
    assert parsed.find_queue("second").receipts_path == "/mnt/receipts"
    assert QueueConfig("a", rempath="/incoming/").receipts_path == "/receipts"


def test_unknown_queue_is_an_error_that_says_what_to_add_and_where():
    message = "known: archive, second; add a section [queue x] to x.conf"
    with pytest.raises(ConfigError, match=re.escape(message)):
        config.parse(CONF, "x.conf").find_queue("x")
    with pytest.raises(ConfigError, match="known: none; .*there is no configuration file yet"):
        Config().find_queue("x")


def test_instrument_is_found_by_name_and_alias_and_unknown_ones_have_defaults():
    parsed = config.parse(CONF + "[instrument other]\nalias = other\n", "x.conf")
    assert parsed.find_instrument("minicam").name == "minicam"
    assert parsed.find_instrument("mini").name == "minicam"
    assert parsed.find_instrument("other").names == ["other"]
    assert parsed.find_instrument("nova") == InstrumentConfig("nova")


@pytest.mark.parametrize("other", ["[instrument mini]", "[instrument other]\nalias = mini"])
def test_two_instruments_are_not_called_the_same(other):
    message = refusal("[instrument minicam]\nalias = mini\n" + other + "\n")
    assert message.endswith('another instrument is called "mini"')
    assert message.startswith("x.conf:")
    assert not message.startswith("x.conf:0:")


@pytest.mark.parametrize(
    "text, place, reason",
    [
        (
            "[queue a]\nrempw = file:/p\ntransport = openssh\n",
            "x.conf:2",
            "[queue a] ssh reads no password from a file; use transport = sftp",
        ),
        (
            "[queue a]\ntransport = openssh\ncongestion = cubic\n",
            "x.conf:3",
            "[queue a] ssh lets nobody choose; use transport = sftp",
        ),
        ("[lpxfer]\n\nquue = a\n", "x.conf:3", 'unknown key "quue"; known: host, incoming,'),
        ("[queue archive]\nMaxftp = 60\n", "x.conf:2", 'unknown key "Maxftp"'),
        ("[queue archive]\nname = x\n", "x.conf:2", 'unknown key "name"'),
        ("[lpxfer]\n[queue archive]\nhost = x\n", "x.conf:3", 'unknown key "host"'),
        ("maxftp = 60\n", "x.conf:1", "a setting before the first [section]"),
        ("[lpxfer]\nqueue\n", "x.conf:2", "neither a [section] nor a key = value"),
        ("[lpxfer]\nqueue: a\n", "x.conf:2", "neither a [section] nor a key = value"),
        ("[lpxfer]\nqueue = a\nqueue = b\n", "x.conf:3", '[lpxfer] "queue" is set twice'),
        ("[queue a]\n[queue a]\n", "x.conf:2", "there are two sections [queue a]"),
        ("[queue Archive]\n", "x.conf:1", "use [lpxfer], [queue NAME], [instrument NAME] or [web]"),
        ("\n[instrument a/b]\n", "x.conf:2", "use [lpxfer]"),
        ("[DEFAULT]\nmaxftp = 60\n", "x.conf:1", "use [lpxfer]"),
        ("[queue a]\nstall = 1m\n  maxftp = 5\n", "x.conf:2", "the line after stall is indented"),
    ],
)
def test_error_names_file_and_line(text, place, reason):
    message = refusal(text)
    assert message.startswith(f"{place}: ")
    assert reason in message


@pytest.mark.parametrize(
    "key, value",
    [
        ("transport", "ftp"),
        ("confirm", "maybe"),
        ("link", "true"),
        ("maxftp", "10m"),
        ("maxftp", ""),
        ("stall", "soon"),
        ("stall", "99999999999w"),
        ("connections", "0"),
        ("connections", "65"),
        ("connections", "٣"),
        ("connections", "9" * 5000),
        ("congestion", "Cubic!"),
        ("congestion", "a" * 16),
        ("seal", "rw"),
        ("seal", "0o440"),
        ("inst", "../x"),
        ("rempw", "secret"),
        ("rempw", "file:relative"),
    ],
)
def test_bad_value_of_a_queue_is_refused_with_its_line(key, value):
    message = refusal(f"[queue archive]\n{key} = {value}\n")
    assert message.startswith(f"x.conf:2: [queue archive] {key}: ")
    assert "secret" not in message


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "/etc/passwd"])
def test_unknown_zone_is_refused_with_its_line(zone):
    message = refusal(f"[instrument minicam]\n\nzone = {zone}\n")
    assert message.startswith("x.conf:3: [instrument minicam] zone: unknown time zone")


def test_percent_and_later_equals_signs_stand_for_themselves():
    parsed = config.parse("[lpxfer]\nspool = /a%b/${c}=d # e\n", "x.conf")
    assert parsed.spool == "/a%b/${c}=d # e"


def test_environment_goes_before_the_keys_of_lpxfer():
    parsed = config.parse(CONF, "x.conf")
    environ = {"XFER_QUEUE": "second", "XFER_SPOOL": "/s", "XFER_RESERVE": "4K", "XFER_HOST": ""}
    changed = config.override(parsed, environ | {"XFER_MAXFTP": "1", "QUEUE": "x"})
    assert (changed.queue, changed.spool, changed.reserve) == ("second", "/s", 4096)
    assert changed.host == parsed.host
    assert changed.queues == parsed.queues


def test_every_key_of_lpxfer_can_be_set_by_the_environment():
    keys = {field.name for field in fields(Config)} - NO_KEYS
    environ = {f"XFER_{key.upper()}": "1" for key in keys}
    changed = config.override(Config(), environ)
    assert all(str(getattr(changed, key)) in ("1", "1.0") for key in keys)


@pytest.mark.parametrize("name, value", [("HOST", "a.b"), ("RESERVE", "much"), ("STALE", "never")])
def test_bad_value_in_the_environment_is_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=f"^XFER_{name}: "):
        config.override(Config(), {f"XFER_{name}": value})


sections = st.sampled_from(
    [
        "[lpxfer]",
        "[queue archive]",
        "[instrument minicam]",
        "[queue",
        "]",
        "[]",
        "[a] b",
        "[\0]",
        "",
    ]
)
keys = st.sampled_from(
    [field.name for kind in (Config, QueueConfig, InstrumentConfig) for field in fields(kind)]
)
settings = st.builds(
    lambda key, mark, value: key + mark + value,
    keys,
    st.sampled_from([" = ", "=", ":", " "]),
    st.text(max_size=20),
)
texts = st.lists(sections | settings | st.text(max_size=30)).map("\n".join)


@given(texts | st.text())
@example("[lpxfer]\n a\n  b = 1\n")
@example("[lpxfer]\nqueue = a\n\n b\n")
def test_reader_raises_nothing_but_config_error(text):
    try:
        config.parse(text, "x.conf")
    except ConfigError as error:
        assert re.match(r"x\.conf:\d+: ", str(error))


@given(st.dictionaries(st.sampled_from(["XFER_HOST", "XFER_RESERVE", "XFER_STALE"]), st.text()))
def test_environment_raises_nothing_but_config_error(environ):
    try:
        config.override(Config(), environ)
    except ConfigError:
        pass


def test_what_is_asked_of_files_is_read_from_the_section() -> None:
    text = "[instrument mini]\nvalidate = {}\nscheme = a{{N:3}}.fits *.log\n"
    text += "keywords = OBJECT ESO.DET.ID\n"
    asked = config.parse(text.format("fits"), "c").find_instrument("mini").validation
    assert (asked.whole, asked.scheme) == (("*",), ("a{N:3}.fits", "*.log"))
    assert asked.keywords == ("OBJECT", "ESO.DET.ID") and asked.reject == ()
    assert (
        config.parse(text.format("*.fits *.fit"), "c").find_instrument("mini").validate[1]
        == "*.fit"
    )
    assert (
        not config.parse("[instrument mini]\nvalidate = no\n", "c")
        .find_instrument("mini")
        .validation
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("tell = on-frame", "neither a command's path from root nor an http"),
        ("tell = ftp://example.edu/", "neither a command's path"),
        ("tell = https://me:secret@example.edu/", "neither a command's path"),
        ("tell_secret = words", "is never written here"),
        ("scheme = a{n}.fits", "braces"),
        ("keywords = object", '"object" is not a FITS keyword'),
        ("keywords = 2D", "not a FITS keyword"),
        ("keywords = LONGERNAME", "not a FITS keyword"),
        ("keywords = ESO..ID", "not a FITS keyword"),
        ("keywords = " + " ".join(f"K{n}" for n in range(65)), "more than 64"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_its_line(line: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        config.parse(f"[instrument mini]\n{line}\n", "lpxfer.conf")
    assert str(caught.value).startswith("lpxfer.conf:2: [instrument mini]")
