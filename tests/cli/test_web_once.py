"""What xfer-web is asked to submit in a directory that xfer-watch watches goes once."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from watches import wait_until
from web_site import PATIENCE, Answer, WebSite

WATCH = Path(sys.executable).parent / "xfer-watch"

#: Where xfer-web is killed while it submits a file: before and after each step.
DIE = "import os\ndef die(*_, **__): os.kill(os.getpid(), 9)\n"
STEPS = {
    "noted nothing": "from lpxfer.stores.claims import Claims as C; C.note = die",
    "noted": "from lpxfer.stores.queue import Queue as Q; Q.draft = die",
    "filled": "from lpxfer.stores.queue import Queue as Q; Q.commit = die",
    "made": "from lpxfer.stores.queue import Queue as Q; real = Q.commit\n"
    "def commit(*a): real(*a); die()\n"
    "Q.commit = commit",
}


@pytest.fixture
def site(tmp_path: Path) -> WebSite:
    return WebSite(tmp_path, instrument=f"watch = {tmp_path}/data\nmatch = *.fits")


@contextmanager
def watching(site: WebSite) -> Iterator[None]:
    with subprocess.Popen([WATCH], env=site.environ) as watch:
        record = site.root / "state/lpxfer/watched/minicam"
        wait_until(record.exists)
        yield
        watch.terminate()
        assert watch.wait(PATIENCE) == 0


def once(site: WebSite) -> None:
    assert site.command("xfer-watch", "--once").returncode == 0


def post(site: WebSite, *files: str, **more: object) -> Answer:
    return site.post("/v1/jobs", {"files": files, "options": {"inst": "minicam"}} | more)


def ids(answer: Answer) -> list[str]:
    assert answer.status == 201, answer
    return [job["id"] for job in answer.json["jobs"]]


def paths(site: WebSite) -> list[str]:
    return sorted(job["path"] for job in site.jobs())


def test_files_that_both_hear_of_at_once_go_once(site: WebSite) -> None:
    with site.serving(), watching(site):
        found, files = [], [str(site.data / f"{number}.fits") for number in range(30)]
        for path in files:
            site.file(Path(path).name)
            found += ids(post(site, path))
        assert len(set(found)) == len(files)
        once_more = [ids(post(site, path)) for path in files]
        assert once_more == [[job_id] for job_id in found]
    once(site)
    assert paths(site) == sorted(files)


def test_what_was_submitted_before_the_watch_began_is_not_submitted_by_it(site: WebSite) -> None:
    with site.serving():
        file = site.file()
        ids(post(site, file, str(site.data / "none.fits"), site.file("next.fits")))
    once(site)
    assert paths(site) == [file, str(site.data / "next.fits")]


def test_what_the_watch_has_submitted_is_told(site: WebSite) -> None:
    file = site.file()
    once(site)
    with site.serving():
        answer = post(site, file, site.file("new.fits"))
    assert ids(answer) == ["archive-1", "archive-2"]
    assert answer.json["jobs"][0]["checksum"].startswith("sha256:")


def test_what_a_killed_watch_has_submitted_is_told(site: WebSite) -> None:
    file = site.file()
    dying = f"{DIE}from lpxfer.stores.watched import Watched\nWatched.ended = die\n"
    run = "from lpxfer.cli.xfer_watch import main; main(['--once'])"
    assert subprocess.run([sys.executable, "-c", dying + run], env=site.environ).returncode == -9
    with site.serving():
        assert ids(post(site, file)) == ["archive-1"]
    once(site)
    assert paths(site) == [file]


def test_new_version_is_a_new_job(site: WebSite) -> None:
    with site.serving():
        file = site.file()
        assert ids(post(site, file)) == ["archive-1"]
        once(site)
        site.file(data=b"other data")
        assert ids(post(site, file)) == ["archive-2"]
    once(site)
    assert paths(site) == [file, file]


def test_canceled_job_is_made_again(site: WebSite) -> None:
    with site.serving():
        file = site.file()
        [job_id] = ids(post(site, file))
        assert site.curl(f"/v1/jobs/{job_id}/cancel", "-X", "POST").status == 200
        assert ids(post(site, file)) == ["archive-2"]


def test_other_instrument_and_other_files_are_none_of_its_business(site: WebSite) -> None:
    with site.serving():
        file = site.file()
        ids(post(site, file, options={"inst": "guider"}))
        ids(post(site, site.file("notes.txt")))
    once(site)
    assert [(job["name"], job["id"]) for job in site.jobs()] == [
        ("0123.fits", "archive-1"), ("notes.txt", "archive-2"), ("0123.fits", "archive-3")
    ]  # fmt: skip


def test_watched_directory_tells_the_instrument(site: WebSite) -> None:
    with site.serving():
        ids(site.post("/v1/jobs", {"files": [site.file()]}))
    once(site)
    assert len(site.jobs()) == 1
    assert "inst=minicam\n" in (site.root / "spool/archive/pending/archive-1/control").read_text()


def test_file_named_through_a_link_is_the_same(site: WebSite) -> None:
    (site.root / "more").symlink_to("data")
    with site.serving():
        site.file()
        ids(post(site, f"{site.root}/more/0123.fits"))
    once(site)
    assert len(site.jobs()) == 1


@pytest.mark.parametrize("step", STEPS)
def test_killed_service_loses_no_file_and_doubles_none(site: WebSite, step: str) -> None:
    file = site.file()
    with pytest.raises(AssertionError), site.serving(DIE + STEPS[step]):
        post(site, file)
    assert len(site.jobs()) == (step == "made")
    with suppress(FileNotFoundError):
        assert not list((site.root / "spool/archive/done").iterdir())
    once(site)
    assert paths(site) == [file]
    with site.serving():
        assert len(ids(post(site, file))) == 1
    assert paths(site) == [file]
