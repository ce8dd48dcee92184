"""A request to submit that has an Idempotency-Key may be repeated: it is done once."""

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from watches import wait_until
from web_site import LISTING, Answer, WebSite

DIE = "import os\ndef die(*_, **__): os.kill(os.getpid(), 9)\n"
AFTER = """
from {module} import {name} as C
real, calls = C.{call}, 0
def after(*a, **k):
    global calls
    calls += 1
    found = real(*a, **k)
    return die() if calls == {number} else found
C.{call} = after
"""


def after(module: str, name: str, call: str, number: int = 1) -> str:
    """Write what kills the service when a call is over."""
    return DIE + AFTER.format(module=module, name=name, call=call, number=number)


#: Where it is killed, and how many of two files are jobs then.
STEPS = {
    "told nothing": (DIE + "from lpxfer.stores.repeats import Repeats\nRepeats.keep = die", 0),
    "knows the ids": (after("lpxfer.stores.repeats", "Repeats", "keep"), 0),
    "filled one": (after("lpxfer.stores.job_dir", "JobDir", "write"), 0),
    "made one": (after("lpxfer.stores.queue", "Queue", "commit"), 1),
    "made both": (after("lpxfer.stores.queue", "Queue", "commit", 2), 2),
    "knows the answer": (after("lpxfer.stores.repeats", "Repeats", "keep", 2), 2),
}

ONE_BY_ONE = "from lpxfer.steps import submit\nsubmit.BATCH_FILES = 1\n"


@pytest.fixture
def made(tmp_path: Path) -> WebSite:
    return WebSite(tmp_path)


@pytest.fixture
def site(made: WebSite) -> Iterator[WebSite]:
    with made.serving():
        yield made


def post(site: WebSite, key: str, *files: str, **curl: str) -> Answer:
    headers = ["Content-Type: application/json", f"Idempotency-Key: {key}"]
    words = [word for header in headers for word in ("-H", header)]
    data = ["--data-binary", json.dumps({"files": files})]
    return site.curl("/v1/jobs", *words, *data, **curl)


def test_request_that_is_repeated_has_the_same_answer(site: WebSite) -> None:
    files = site.file("a.fits"), str(site.data / "none.fits"), site.file("b.fits")
    first = post(site, "k" * 64, *files)
    assert first.status == 201 and len(first.json["jobs"]) == 2 and len(first.json["errors"]) == 1
    site.file("none.fits")
    again = post(site, "k" * 64, *files)
    assert (again.status, again.body) == (201, first.body)
    assert len(site.jobs()) == 2


def test_answer_outlives_the_service_the_job_and_the_queue(made: WebSite) -> None:
    with made.serving():
        first = post(made, "key", made.file())
    assert made.command("xfer-cancel", "archive-1").returncode == 0
    assert made.command("xfer-ctl", "reject", "archive").returncode == 0
    with made.serving():
        assert post(made, "key", f"{made.data}/0123.fits").body == first.body


def test_other_keys_and_others_keys_are_other_requests(made: WebSite) -> None:
    tokens = "1" * 64, "2" * 64
    made.write_tokens("".join(f"n{token[0]} {token} submit\n" for token in tokens))
    with made.serving():
        file = made.file()
        asked = [(key, token) for key in ("key", "other") for token in tokens]
        answers = {post(made, key, file, token=token).body for key, token in asked}
    assert len(answers) == len(asked) == len(made.jobs())


def test_key_with_another_body_is_refused(site: WebSite) -> None:
    assert post(site, "key", site.file()).status == 201
    other = post(site, "key", site.file("other.fits"))
    assert other.status == 422 and "another request" in other.json["error"]
    assert post(site, "other-key", f"{site.data}/other.fits").status == 201
    assert len(site.jobs()) == 2


@pytest.mark.parametrize("key", ["k" * 65, "a b", "\xe4"])
def test_what_is_no_key_is_refused(site: WebSite, key: str) -> None:
    assert post(site, key, site.file()).status in (400, 422)
    assert not site.jobs()


def test_request_that_submitted_nothing_may_be_repeated_with_effect(site: WebSite) -> None:
    missing = str(site.data / "late.fits")
    assert post(site, "key", missing).status == 409
    site.file("late.fits")
    assert post(site, "key", missing).status == 201
    assert post(site, "key", missing).status == 201
    assert len(site.jobs()) == 1


def test_repeating_what_is_under_way_is_refused(made: WebSite) -> None:
    slow = (
        "import os, time\nfrom lpxfer.stores.queue import Queue\nreal = Queue.commit\n"
        "def commit(*a):\n"
        f"    while not os.path.exists('{made.root}/go'): time.sleep(0.01)\n"
        "    real(*a)\n"
        "Queue.commit = commit\n"
    )
    file, answers = made.file(), list[Answer]()
    with made.serving(slow):
        first = threading.Thread(target=lambda: answers.append(post(made, "key", file)))
        first.start()
        kept = made.root / "state/lpxfer/web"
        wait_until(lambda: kept.exists() and [p for p in kept.iterdir() if p.name[0] != "."])
        early = post(made, "key", file)
        assert early.status == 409 and "under way" in early.json["error"]
        (made.root / "go").touch()
        first.join()
        assert post(made, "key", file).body == answers[0].body
    assert len(made.jobs()) == 1


def test_key_is_forgotten_after_a_day(site: WebSite) -> None:
    first = post(site, "key", site.file())
    for path in (site.root / "state/lpxfer/web").iterdir():
        os.utime(path, (time.time() - 86_401,) * 2)
    assert post(site, "key", f"{site.data}/0123.fits").body != first.body
    assert len(site.jobs()) == 2


def test_without_the_right_token_a_key_tells_nothing(site: WebSite) -> None:
    assert post(site, "key", site.file()).status == 201
    assert post(site, "key", f"{site.data}/0123.fits", token=LISTING).status == 403


@pytest.mark.parametrize("step", STEPS)
def test_service_that_is_killed_anywhere_makes_each_job_once(made: WebSite, step: str) -> None:
    before, jobs = STEPS[step]
    files = made.file("a.fits"), made.file("b.fits")
    with pytest.raises(AssertionError), made.serving(ONE_BY_ONE + before):
        post(made, "key", *files)
    assert len(made.jobs()) == jobs
    with made.serving():
        answer = post(made, "key", *files)
        assert post(made, "key", *files).body == answer.body
    assert answer.status == 201 and not answer.json["errors"]
    assert sorted(job["path"] for job in answer.json["jobs"]) == sorted(files)
    told = {job["id"]: job["path"] for job in answer.json["jobs"]}
    assert {job["id"]: job["path"] for job in made.jobs()} == told
    assert made.command("xfer-fsck").returncode == 0
