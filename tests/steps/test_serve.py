"""Serving a demo site, with OpenSSH and with the embedded server."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sshd import SSHD, descendants
from transports.conformance import put

from lpxfer.errors import BusyError, LinkError
from lpxfer.formats.job import Routing
from lpxfer.steps import serve
from lpxfer.stores import site as sites
from lpxfer.stores.job_dir import account
from lpxfer.stores.site import Site
from lpxfer.transports import target
from lpxfer.transports.transport import Transport

USER = account(os.geteuid())
PATIENCE = 20

each_program = pytest.mark.parametrize("sshd", [SSHD, ""], ids=["sshd", "embedded"])


@contextlib.contextmanager
def linked(site: Site) -> Iterator[Transport]:
    settings = site.settings()
    link = target.open_transport(settings, target.target(settings, Routing(), USER))
    link.connect()
    yield link
    link.close()


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def wait_until(true) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@each_program
def test_new_site_takes_arrivals(tmp_path, sshd):
    said: list[str] = []
    with serve.running(str(tmp_path / "a site"), USER, sshd, said.append) as site:
        assert site.program() == (sshd or serve.EMBEDDED)
        with linked(site) as link:
            data = os.urandom(1 << 20)
            put(link, "x.data", data, len(data))
        assert (site.root / "incoming/x.data").read_bytes() == data
    assert [line for line in said if "made /run/sshd" not in line] == []


@each_program
def test_end_of_serving_ends_connections_and_leaves_nothing(tmp_path, sshd):
    threads, children = threading.active_count(), descendants(os.getpid())
    with serve.running(str(tmp_path / "site"), USER, sshd, print) as site:
        settings = site.settings()
        link = target.open_transport(settings, target.target(settings, Routing(), USER))
        link.connect()
        if sshd:
            assert len(descendants(os.getpid())) > len(children)
    with pytest.raises(LinkError):
        link.stat("any")
    link.close()
    wait_until(lambda: descendants(os.getpid()) == children)
    wait_until(lambda: threading.active_count() == threads)
    serve.listen(site.port()).close()  # the port is free again


@each_program
def test_site_is_served_again_on_its_port(tmp_path, sshd):
    said: list[str] = []
    with serve.running(str(tmp_path / "site"), USER, sshd, said.append) as site:
        port = site.port()
    with serve.running(str(tmp_path / "site"), USER, "", said.append) as site:
        assert site.port() == port
        assert site.program() == (sshd or serve.EMBEDDED)  # what it was made with
        serve.log_in(site)


def test_taken_port_is_refused_by_listen_and_exchanged_by_running(tmp_path):
    said: list[str] = []
    with serve.running(str(tmp_path / "site"), USER, "", said.append) as site:
        port = site.port()
    with serve.listen(port):
        with pytest.raises(BusyError, match=str(port)):
            serve.listen(port)
        text = site.conf.read_text()
        site.conf.write_text(text.replace("transport = sftp", "stall = 0.5"))  # sftp is default
        with serve.running(str(tmp_path / "site"), USER, "", said.append) as site:
            assert site.port() != port
            serve.log_in(site)
    assert len(said) == 1
    assert f"port {port} of 127.0.0.1 is taken" in said[0]
    assert f"port {site.port()} from now on" in said[0]


def test_server_of_the_site_that_runs_already_is_used(tmp_path):
    said: list[str] = []
    directory = str(tmp_path / "site")
    with serve.running(directory, USER, "", said.append) as site:
        port = site.port()
        with serve.running(directory, USER, "", said.append) as again:
            assert again.port() == port
        assert said == ["the site's server is running already"]
        serve.log_in(site)  # and goes on


def test_sshd_that_refuses_the_login_gives_way_to_the_embedded_server(tmp_path):
    refusing = script(tmp_path / "sshd", f"exec {SSHD} \"$@\" -o 'DenyUsers=*'")
    said: list[str] = []
    with serve.running(str(tmp_path / "site"), USER, refusing, said.append) as site:
        assert site.program() == serve.EMBEDDED
        serve.log_in(site)
    assert "lets nobody in" in said[-2]
    assert "DenyUsers" in (site.server / "log").read_text()  # sshd's own reason
    assert said[-1] == "the embedded server takes its place"


@pytest.mark.parametrize("text", ["echo broken >&2; exit 1", "exit 3"])
def test_sshd_that_does_not_work_gives_way_to_the_embedded_server(tmp_path, text):
    broken = script(tmp_path / "sshd", text)
    said: list[str] = []
    with serve.running(str(tmp_path / "site"), USER, broken, said.append) as site:
        assert site.program() == serve.EMBEDDED
        serve.log_in(site)
    assert len(said) == 1
    assert "broken" in said[0] or "exit status 3" in said[0]


def test_sshd_that_was_removed_since_gives_way_for_this_time(tmp_path):
    said: list[str] = []
    with serve.running(str(tmp_path / "site"), USER, "", said.append) as site:
        site.set_program(str(tmp_path / "removed"))
    with serve.running(str(tmp_path / "site"), USER, "", said.append) as site:
        serve.log_in(site)
        assert site.program() == str(tmp_path / "removed")
    assert len(said) == 1
    assert "removed cannot be used" in said[0]


def test_directory_that_sshd_misses_is_made_by_root_and_only_by_root(tmp_path):
    missing = tmp_path / "privsep"
    wrapper = script(
        tmp_path / "sshd",
        f'[ -d {missing} ] && exec {SSHD} "$@"\n'
        f"echo 'Missing privilege separation directory: {missing}' >&2\nexit 255",
    )
    said: list[str] = []
    with serve.running(str(tmp_path / "site"), USER, wrapper, said.append) as site:
        serve.log_in(site)
    assert missing.is_dir() == (os.geteuid() == 0)
    assert any(str(missing) in line for line in said)
    assert (site.program() == serve.EMBEDDED) == (os.geteuid() != 0)


def test_client_that_cannot_be_served_does_not_end_the_server(tmp_path):
    with serve.running(str(tmp_path / "site"), USER, "", print) as site:
        key = (site.server / "host_key").read_text()
        (site.server / "host_key").write_text("nonsense")
        with pytest.raises(LinkError):
            serve.log_in(site)
        (site.server / "host_key").write_text(key)
        serve.log_in(site)
    assert "no connection: host key" in (site.server / "log").read_text()


def test_site_is_served_as_it_is_found_and_mended_by_the_next_run(tmp_path):
    with serve.running(str(tmp_path / "site"), USER, "", print) as site:
        pass
    (site.root / "incoming").rmdir()
    with serve.listen(site.port()) as listener, serve.served(site, listener, "", print):
        serve.log_in(site)
    assert not (site.root / "incoming").exists()
    with serve.running(str(tmp_path / "site"), USER, "", print):
        assert (site.root / "incoming").is_dir()


def test_site_that_was_cut_short_is_finished_on_another_port_if_need_be(tmp_path):
    with serve.listen(0) as listener:
        site = sites.make(str(tmp_path / "site"), listener.getsockname()[1], USER)
        text = site.conf.read_text()
        site.conf.write_text(text.replace("transport = sftp", "stall = 0.5"))  # sftp is default
        with serve.running(str(tmp_path / "site"), USER, "", print):
            serve.log_in(site)


@each_program
def test_changed_keys_are_not_mended_behind_the_person_who_changed_them(tmp_path, sshd):
    with serve.running(str(tmp_path / "site"), USER, sshd, print) as site:
        (site.server / "authorized_keys").write_text("")
    with serve.running(str(tmp_path / "site"), USER, sshd, print), pytest.raises(LinkError):
        serve.log_in(site)


def test_only_the_loopback_is_listened_on():
    with serve.listen(0) as listener:
        assert listener.getsockname()[0] == sites.LOOPBACK
        with socket.socket() as other:
            other.bind(("127.0.0.2", listener.getsockname()[1]))  # so nobody has every address
