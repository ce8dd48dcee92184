"""What ssh says becomes one line that says what to do, whatever a server puts into it."""

import pytest

from lpxfer.transports import ssh_said
from lpxfer.transports.account import Account

ACCOUNT = Account("archive", 2222, "depositor")
BY_HAND = "ssh -p 2222 -l depositor -- archive"

#: In the words of OpenSSH 9.2; a jump host's own come first.
LOST_ON_THE_WAY = "kex_exchange_identification: Connection closed by remote host\r\n"


def explain(text: str, status: int | None = 255) -> str:
    said = ssh_said.explain(ACCOUNT, text, status, BY_HAND)
    assert said.startswith("archive:2222: ")
    assert said.isprintable()
    return said.removeprefix("archive:2222: ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("subsystem request failed on channel 0\r\n", "the server offers no SFTP"),
        ("ssh: connect to host archive port 2222: Connection refused\r\n", "Connection refused"),
        ("ssh: connect to host hop port 22: No route to host\r\n" + LOST_ON_THE_WAY,
         "hop port 22: No route to host"),
        ("ssh: Could not resolve hostname hop: Name or service not known\r\n" + LOST_ON_THE_WAY,
         "cannot find the address of hop: Name or service not known"),
        ("channel 0: open failed: administratively prohibited: open failed\r\n"
         "stdio forwarding failed\r\n" + LOST_ON_THE_WAY,
         "the jump host cannot reach it: administratively prohibited: open failed"),
        (LOST_ON_THE_WAY + "Connection closed by 192.0.2.1 port 2222\r\n",
         "no SSH server answers there"),
        ("Received disconnect from 192.0.2.1 port 2222:2: Too many authentication failures\r\n"
         "Disconnected from 192.0.2.1 port 2222\r\n",
         "the server has refused too many keys; set identity to the one that it takes"),
        ("/root/.ssh/config: line 3: Bad configuration option: foo\r\n"
         "/root/.ssh/config: terminating, 1 bad configuration options\r\n",
         "/root/.ssh/config: line 3: Bad configuration option: foo; "
         "/root/.ssh/config: terminating, 1 bad configuration options"),
        ("Welcome.\r\nConnection closed by 192.0.2.1 port 2222\r\n",
         "Welcome.; Connection closed by 192.0.2.1 port 2222"),
        ("", f"ssh ended without a word; see what it does: {BY_HAND}"),
    ],
)  # fmt: skip
def test_what_ssh_says_becomes_one_line(text: str, said: str) -> None:
    assert explain(text) == said


def test_status_of_the_program_there_is_said() -> None:
    said = "no SFTP after the login: it ended there with status 127"
    assert explain("Welcome to the archive.\r\n", 127) == said
    assert explain("", None).startswith("ssh ended without a word")


def test_what_a_server_says_is_bounded_and_cannot_trick_a_terminal() -> None:
    said = explain("\x1b[31mred\u202e" + "x" * 100_000 + "\r\n")
    assert "\x1b" not in said and len(said) < 1000
    # Names that go into a command to be pasted are quoted.
    said = explain(
        "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\r\n"
        "Offending ED25519 key in /home/a b/known_hosts:1\r\n"
        "Host key for $(reboot) has changed and you have requested strict checking.\r\n"
        "Host key verification failed.\r\n"
    )
    assert "ssh-keygen -R '$(reboot)' -f '/home/a b/known_hosts', " in said


def test_rules_look_at_the_beginnings_of_lines_only() -> None:
    """A banner that quotes ssh does not lead a person astray."""
    said = explain("Say @ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED to nobody.\r\n")
    assert "ssh-keygen" not in said
