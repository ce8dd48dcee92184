"""The directory that is a demo site."""

import os
from pathlib import Path

import pytest

from lpxfer.errors import ConfigError, PermanentError, UsageError
from lpxfer.stores import site as sites
from lpxfer.stores.site import Site


def made(directory: Path) -> Site:
    site = sites.make(str(directory), 2222, "observer")
    sites.complete(site)
    return site


@pytest.mark.parametrize("name", ["new", "with a space", "50%h", "a#b;c", "é", "it's", "deep/er"])
def test_configuration_means_what_was_written(tmp_path, name):
    site = made(tmp_path / name)
    assert sites.find(str(tmp_path / name)) == site
    config, settings = site.config(), site.settings()
    assert (settings.remhost, settings.remuser) == ("127.0.0.1:2222", "observer")
    assert config.queue == settings.name == "archive"
    for path in (settings.rempath, settings.receipts, config.incoming, config.receipts):
        assert Path(path).is_dir()
    for path in (settings.identity, settings.known_hosts):
        assert Path(path).is_file()
    assert Path(config.spool).parent == site.root == tmp_path / name


def test_secrets_are_private(tmp_path):
    site = made(tmp_path / "site")
    for name in ("keys", "server", "spool"):
        assert (site.root / name).stat().st_mode & 0o077 == 0
    for name in ("keys/id", "server/host_key"):
        assert (site.root / name).stat().st_mode & 0o177 == 0


def test_nothing_and_an_empty_directory_are_no_site_yet(tmp_path):
    assert sites.find(str(tmp_path / "absent")) is None
    assert sites.find(str(tmp_path)) is None


@pytest.mark.parametrize("text", [None, "", "[lpxfer]\n", b"\xff\xfe"])
def test_directory_of_something_else_is_refused_and_left_alone(tmp_path, text):
    (tmp_path / "precious").write_text("mine")
    if text is not None:
        (tmp_path / "lpxfer.conf").write_bytes(text if isinstance(text, bytes) else text.encode())
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(PermanentError, match="not empty and not a demo site"):
        sites.find(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == before


def test_file_in_place_of_the_directory_is_refused(tmp_path):
    (tmp_path / "a.fits").write_text("data")
    with pytest.raises(UsageError, match="not a directory"):
        sites.find(str(tmp_path / "a.fits"))


@pytest.mark.parametrize("name", ["new\nline", 'quo"te', "back\\slash", "esc\x1b[2J", "\udcff"])
def test_path_that_no_configuration_can_hold_is_refused_in_plain_characters(tmp_path, name):
    with pytest.raises(UsageError, match="cannot hold a site") as caught:
        sites.find(str(tmp_path / name))
    assert str(caught.value).isprintable()
    assert os.listdir(tmp_path) == []


def test_site_that_was_cut_short_is_completed(tmp_path):
    site = sites.make(str(tmp_path), 2222, "observer")
    assert sites.find(str(tmp_path)) == site
    sites.complete(site)
    known_hosts = site.root / "keys/known_hosts"
    known_hosts.unlink()  # as if it had ended between the two
    sites.complete(site)
    assert known_hosts.read_text().startswith("[127.0.0.1]:2222 ecdsa-")


def test_completing_changes_nothing_that_is_there(tmp_path):
    site = made(tmp_path)
    with site.conf.open("a") as conf:
        conf.write("\n[instrument mine]\nnoon = yes\n")
    (site.server / "sshd_config").write_text("# mine\n")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    sites.complete(site)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_new_port_leaves_the_rest_of_the_configuration_alone(tmp_path):
    site = made(tmp_path)
    text = site.conf.read_text() + "# remhost = 127.0.0.1:2222\n[queue other]\nremhost=far:2222\n"
    site.conf.write_text(text)
    known = (tmp_path / "keys/known_hosts").read_text()
    site.set_port(3333)
    assert site.port() == 3333
    assert site.conf.read_text() == text.replace(
        "remhost = 127.0.0.1:2222", "remhost = 127.0.0.1:3333", 1
    )
    assert (tmp_path / "keys/known_hosts").read_text() == known.replace("2222", "3333", 1)


@pytest.mark.parametrize("remhost", ["archive.example.org", "127.0.0.1:0", "127.0.0.1:99999"])
def test_site_that_was_pointed_elsewhere_has_no_port(tmp_path, remhost):
    site = made(tmp_path)
    site.conf.write_text(site.conf.read_text().replace("127.0.0.1:2222", remhost))
    with pytest.raises(ConfigError, match="remhost"):
        site.port()


def test_moved_site_is_refused(tmp_path):
    made(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    site = sites.find(str(tmp_path / "new"))
    assert site is not None
    with pytest.raises(ConfigError, match="moved"):
        site.settings()


def test_instrument_gets_a_directory_and_one_section(tmp_path):
    site = made(tmp_path)
    for _ in range(2):
        assert site.add_instrument("minicam") == tmp_path / "archive/minicam"
    assert site.conf.read_text().count("[instrument minicam]") == 1
    assert site.config().instruments["minicam"].dir == str(tmp_path / "archive/minicam")
    assert (tmp_path / "archive/minicam").is_dir()


def test_instrument_keeps_the_directory_that_a_person_gave_it(tmp_path):
    site = made(tmp_path)
    with site.conf.open("a") as conf:
        conf.write(f"\n[instrument mine]\ndir = {tmp_path}/elsewhere\n")
    assert site.add_instrument("mine") == tmp_path / "elsewhere"
    assert (tmp_path / "elsewhere").is_dir()


def test_program_is_remembered(tmp_path):
    site = made(tmp_path)
    assert site.program() is None
    site.set_program("/usr/sbin/sshd")
    assert site.program() == "/usr/sbin/sshd"
