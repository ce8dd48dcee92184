"""Where a job goes: the queue's settings, the job's own, and what ssh may be given of them."""

from dataclasses import replace

import pytest

from lpxfer.errors import PermanentError
from lpxfer.formats.config import QueueConfig
from lpxfer.formats.job import Routing
from lpxfer.transports import openssh, ssh
from lpxfer.transports.sftp import SftpTransport
from lpxfer.transports.target import PROBE, open_transport, target

SFTP = QueueConfig("archive", remhost="archive.example.edu")
OPENSSH = replace(SFTP, transport="openssh")


def test_sftp_has_a_port_and_a_user_without_being_told() -> None:
    where = target(SFTP, Routing(), "observer")
    assert (where.port, where.user, str(where)) == (22, "observer", "archive.example.edu:22")


def test_what_is_not_said_is_left_to_ssh() -> None:
    where = target(OPENSSH, Routing(), "observer")
    assert (where.port, where.user, str(where)) == (0, "", "archive.example.edu")
    where = target(OPENSSH, Routing(remhost="tape:2222", remuser="depositor"), "observer")
    assert (where.port, where.user, str(where)) == (2222, "depositor", "tape:2222")


@pytest.mark.parametrize(
    "routing",
    [
        Routing(remhost="-oProxyCommand=id"),
        Routing(remhost="$(id):22"),
        Routing(remuser="-oProxyCommand=id"),
        Routing(remuser="a;id"),
        Routing(rempw="file:/etc/passwd"),
    ],
)
def test_job_cannot_have_ssh_given_what_it_must_not(routing: Routing) -> None:
    target(SFTP, routing, "observer")
    with pytest.raises(PermanentError, match=r"is not a .* that ssh may be given|no password"):
        target(OPENSSH, routing, "observer")


def test_transport_decides_who_carries_the_packets() -> None:
    for settings, connection in ((SFTP, ssh.Connection), (OPENSSH, openssh.Connection)):
        link = open_transport(settings, target(settings, Routing(), "observer"))
        assert isinstance(link, SftpTransport)
        assert link._open_connection is connection


def test_login_over_ssh_is_given_time_also_when_a_far_end_is_only_asked_for() -> None:
    where = target(OPENSSH, Routing(), "observer")
    for patience, given in ((0.0, 60.0), (PROBE, openssh.LOGIN), (30.0, 30.0)):
        link = open_transport(OPENSSH, where, patience)
        assert isinstance(link, SftpTransport)
        assert link.patience == given
