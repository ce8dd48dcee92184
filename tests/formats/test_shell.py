"""Command lines that can be copied into a shell."""

import os
import subprocess

from hypothesis import given
from hypothesis import strategies as st

from lpxfer.formats import shell

SHOW = 'show() { printf \'%s\\0\' "$SEEN" "$@"; }; '

raw_words = st.binary(max_size=12).map(lambda raw: os.fsdecode(raw.replace(b"\0", b"x")))


@given(st.lists(raw_words, min_size=1))
def test_shell_reads_back_what_was_quoted(words):
    line = shell.command(["show", *words], SEEN=words[0])
    assert line.isprintable()
    printed = subprocess.run(["bash", "-c", SHOW + line], capture_output=True, check=True).stdout
    assert printed.split(b"\0")[:-1] == [os.fsencode(word) for word in [words[0], *words]]


def test_plain_words_stay_plain():
    words = ["xfer-submit", "-o", "inst=demo", "a b"]
    assert shell.command(words, XFER_CONF="/d") == "XFER_CONF=/d xfer-submit -o inst=demo 'a b'"
