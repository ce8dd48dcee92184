"""xfer-web, as curl and other programs meet it."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from arrivals import arrive
from hypothesis import given
from hypothesis import strategies as st
from sshd import Sshd
from web_site import EVERYTHING, LISTING, PATIENCE, WebSite

from lpxfer.cli import web_server
from lpxfer.stores.instrument_dir import InstrumentDir


@pytest.fixture
def made(tmp_path: Path) -> WebSite:
    """A site whose service does not run yet."""
    return WebSite(tmp_path)


@pytest.fixture
def site(made: WebSite) -> Iterator[WebSite]:
    """A site whose service runs."""
    with made.serving():
        yield made


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_systemd_is_told_that_it_is_ready_and_a_signal_ends_it(
    made: WebSite, number: signal.Signals
) -> None:
    made.environ["NOTIFY_SOCKET"] = str(made.root / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(made.root / "notify"))
        systemd.settimeout(PATIENCE)
        with made.serving():
            assert systemd.recv(100) == b"READY=1"
            assert systemd.recv(100) == b"WATCHDOG=1"
            begun = time.monotonic()
            made.process.send_signal(number)
            assert made.process.wait(PATIENCE) == 0
            assert time.monotonic() - begun < PATIENCE / 2
        assert systemd.recv(100) == b"STOPPING=1"
    assert made.log.read_text().count("\n") == 1


# --- what it does ---------------------------------------------------------------------------


def test_a_file_is_submitted_listed_and_canceled(site: WebSite) -> None:
    asked = {"files": [site.file()], "options": {"inst": "minicam", "object": "M 31, core"},
             "priority": 70}  # fmt: skip
    answer = site.post("/v1/jobs", asked)
    assert answer.status == 201 and answer.json["errors"] == []
    [job] = answer.json["jobs"]
    assert (job["id"], job["size"], job["path"]) == ("archive-1", 4, site.file())
    [row] = site.jobs()
    assert (row["uid"], row["priority"], row["state"]) == (job["uid"], 70, "pending")
    control = (site.root / "spool/archive/pending/archive-1/control").read_text()
    assert "inst=minicam\n" in control and "object=M 31, core\n" in control
    listing = site.curl("/v1/jobs").json
    assert listing["jobs"] == [row] and listing["next"] is None
    assert [queue["pending"] for queue in listing["queues"]] == [1]
    assert site.curl("/v1/jobs/archive-1").json["job"]["uid"] == job["uid"]
    assert site.curl("/v1/jobs/archive-1/cancel", "-X", "POST").status == 200
    assert site.jobs() == []
    told = site.curl("/v1/jobs/archive-1").json["job"]
    assert (told["state"], told["reason"]) == ("canceled", "canceled by all through xfer-web")
    again = site.curl("/v1/jobs/archive-1/cancel", "-X", "POST")
    assert (again.status, again.json["error"]) == (409, "archive-1 is canceled already")


def test_a_listing_comes_in_pages(site: WebSite) -> None:
    files = [site.file(f"{number}.fits") for number in range(5)]
    assert site.post("/v1/jobs", {"files": files}).status == 201
    found, after = [], ""
    while True:
        page = site.curl(f"/v1/jobs?limit=2&queue=archive{after}").json
        found += [row["id"] for row in page["jobs"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert found == [f"archive-{number}" for number in range(1, 6)]


def test_of_several_files_each_has_its_own_result(site: WebSite) -> None:
    missing = str(site.data / "none.fits")
    answer = site.post("/v1/jobs", {"files": [site.file(), missing]})
    assert answer.status == 201
    assert [job["name"] for job in answer.json["jobs"]] == ["0123.fits"]
    [error] = answer.json["errors"]
    assert error["path"] == missing and "No such file or directory" in error["error"]
    refused = site.post("/v1/jobs", {"files": [missing]})
    assert refused.status == 409 and refused.json["errors"] == [error]


def test_a_name_that_is_no_utf8_keeps_its_bytes(site: WebSite) -> None:
    (Path(os.fsdecode(os.fsencode(site.data) + b"/\xff.fits"))).write_bytes(b"x")
    answer = site.post("/v1/jobs", {"files": [f"{site.data}/\udcff.fits"]})
    assert answer.status == 201 and answer.json["jobs"][0]["name"] == "\udcff.fits"
    assert "name=%FF.fits\n" in (site.root / "spool/archive/pending/archive-1/control").read_text()


def test_the_switches_of_a_queue_are_obeyed(site: WebSite) -> None:
    assert site.command("xfer-ctl", "reject", "-r", "disk change", "archive").returncode == 0
    answer = site.post("/v1/jobs", {"files": [site.file()]})
    assert answer.status == 409 and "disk change" in answer.json["error"]


def test_an_arrival_is_swept_at_once_where_that_is_wanted(tmp_path: Path) -> None:
    site = WebSite(tmp_path, "sweep = yes")
    with site.serving():
        for number in range(1, 4):
            arrive(tmp_path / "incoming", b"%d" % number, number, name=f"{number}.fits")
            answer = site.post("/v1/arrivals", {"instruments": ["minicam", "nobodys"]})
            assert answer.status == 202 and answer.json["swept"] == ["minicam"]
        deadline = time.monotonic() + PATIENCE
        while len(list((tmp_path / "minicam").rglob("*.fits"))) < 3:
            assert time.monotonic() < deadline, site.log.read_text()
            time.sleep(0.05)


def test_an_arrival_while_another_sweep_is_at_work_is_swept_after_that(tmp_path: Path) -> None:
    """The other one, started by cron, may have passed the new arrival already."""
    site = WebSite(tmp_path, "sweep = yes")
    with site.serving():
        with InstrumentDir(str(tmp_path / "minicam")) as home, home.locked():
            arrive(tmp_path / "incoming", name="a.fits")
            for _ in range(5):
                site.post("/v1/arrivals", {"instruments": ["minicam"]})
            time.sleep(1)
            assert not list((tmp_path / "minicam").rglob("*.fits"))
        deadline = time.monotonic() + PATIENCE
        while not list((tmp_path / "minicam").rglob("a.fits")):
            assert time.monotonic() < deadline, site.log.read_text()
            time.sleep(0.05)


def test_an_arrival_gives_incoming_a_new_time_and_no_more(site: WebSite) -> None:
    os.utime(site.root / "incoming", (0, 0))
    answer = site.post("/v1/arrivals", {"instruments": ["minicam"]})
    assert answer.status == 202 and answer.json["swept"] == []
    assert (site.root / "incoming").stat().st_mtime > 0


def test_a_file_is_archived_at_once_after_it_was_sent(tmp_path: Path, sshd: Sshd) -> None:
    """No sweep follows and none is in cron: the sender's call is all that starts one."""
    (tmp_path / "site").mkdir()
    site = WebSite(tmp_path / "site", "sweep = yes")
    (tmp_path / "token").write_text(EVERYTHING)
    (tmp_path / "token").chmod(0o600)
    with site.serving():
        far = {
            "remhost": f"{sshd.host}:{sshd.port}", "rempath": f"{site.root}/incoming",
            "remuser": sshd.user, "identity": sshd.identity, "known_hosts": sshd.known_hosts,
            "arrivals": site.url, "arrivals_token": f"file:{tmp_path}/token",
        }  # fmt: skip
        lines = "\n".join(f"{key} = {value}" for key, value in far.items())
        conf = site.conf.read_text().replace("[queue archive]", f"[queue archive]\n{lines}")
        site.conf.write_text(conf)
        command = [str(Path(sys.executable).parent / "xfer-send"), "--config", str(site.conf)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as sender:
            asked = {"files": [site.file()], "options": {"inst": "minicam"}}
            assert site.post("/v1/jobs", asked).status == 201
            deadline = time.monotonic() + PATIENCE
            while site.curl("/v1/jobs/archive-1").json["job"]["state"] != "completed":
                assert time.monotonic() < deadline, site.log.read_text()
                time.sleep(0.1)
            sender.terminate()
            assert sender.stderr and sender.stderr.read() == ""
    assert len(list((site.root / "minicam").rglob("0123.fits"))) == 1


# --- who may --------------------------------------------------------------------------------

ROUTES = [
    ("GET", "/v1/jobs"), ("POST", "/v1/jobs"), ("GET", "/v1/jobs/archive-1"),
    ("POST", "/v1/jobs/archive-1/cancel"), ("POST", "/v1/arrivals"), ("GET", "/metrics"),
]  # fmt: skip


def test_nobody_without_a_token_is_told_anything(site: WebSite) -> None:
    assert site.post("/v1/jobs", {"files": [site.file()]}).status == 201
    for method, path in ROUTES:
        basic, bare = ["-u", f"all:{EVERYTHING}"], ["-H", f"Authorization: {EVERYTHING}"]
        for words in ([], basic, bare, ["-H", f"X: {EVERYTHING}"]):
            answer = site.curl(path, "-X", method, *words, token=None)
            assert answer.status == 401 and "www-authenticate: bearer" in answer.headers.lower()
        for wrong in (EVERYTHING[:-1], EVERYTHING + "0", "", "é" * 64):
            answer = site.curl(path, "-X", method, token=wrong)
            assert answer.status == 401, (path, wrong)
            assert EVERYTHING not in answer.body
    assert [job["state"] for job in site.jobs()] == ["pending"]


def test_a_token_is_for_what_it_is_for(site: WebSite) -> None:
    assert site.curl("/v1/jobs", token=LISTING).status == 200
    answer = site.post("/v1/jobs", {"files": [site.file()]}, token=LISTING)
    assert (answer.status, answer.json["error"]) == (403, 'the token of look is not for "submit"')
    assert site.curl("/metrics", token=LISTING).status == 403
    assert site.jobs() == []


def test_the_description_is_for_everybody(site: WebSite) -> None:
    described = site.curl("/v1/openapi.json", token=None).json
    assert described["openapi"].startswith("3.")


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        (f"all {EVERYTHING} list\n", 0o640, "others may read the token file"),
        ("all short list\n", 0o600, "line 1: the token of all is not 32 or more of"),
        (f"all {EVERYTHING} read\n", 0o600, 'line 1: "read" is no operation'),
        (f"a {EVERYTHING} list\na {LISTING} list\n", 0o600, "line 2: a stands twice"),
        (f"{EVERYTHING}\n", 0o600, "line 1: a line is a name, a token and operations"),
        ("# nobody\n", 0o600, "there is no token in it"),
    ],
)
def test_a_bad_file_of_tokens_is_refused_and_never_shown(
    made: WebSite, text: str, mode: int, said: str
) -> None:
    made.write_tokens(text, mode)
    done = made.command("xfer-web")
    assert done.returncode in (1, 2) and said in done.stderr, done.stderr
    assert EVERYTHING not in done.stderr


def test_without_tokens_it_does_not_start(made: WebSite) -> None:
    made.conf.write_text(re.sub("tokens = .*", "", made.conf.read_text()))
    done = made.command("xfer-web")
    assert done.returncode == 2 and "set tokens = file:PATH in [web]" in done.stderr


def test_a_port_that_is_taken_is_said(made: WebSite) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        made.conf.write_text(made.conf.read_text().replace("127.0.0.1:0", f"127.0.0.1:{port}"))
        done = made.command("xfer-web")
    assert done.returncode == 1 and "Address already in use" in done.stderr


def test_without_the_extra_it_says_what_to_install(made: WebSite) -> None:
    code = (
        "import sys; sys.modules['waitress'] = None\n"
        "from lpxfer.cli.xfer_web import main; main(prog_name='xfer-web')"
    )
    command = [sys.executable, "-c", code, "--config", str(made.conf)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "pip install 'lpxfer[web]'" in done.stderr


# --- what it refuses ------------------------------------------------------------------------


def test_files_outside_the_roots_are_refused_and_nothing_is_told_of_them(site: WebSite) -> None:
    secret = site.root / "secret.fits"
    secret.write_bytes(b"secret")
    (site.data / "inside").symlink_to(site.file())
    (site.data / "link").symlink_to(secret)
    (site.data / "up").symlink_to("..")
    (site.root / "more").symlink_to(site.data / "deep")
    (site.data / "deep").mkdir()
    (site.data / "deep/0124.fits").write_bytes(b"more")
    outside = [
        str(secret), f"{site.root}/none.fits", f"{site.data}/../secret.fits", f"{site.data}/link",
        f"{site.data}/up/secret.fits", "/etc/passwd", "data/0123.fits", f"{site.data}",
        f"{site.data}x", "/proc/self/environ", f"{site.data}/\0",
    ]  # fmt: skip
    answers = {
        (a := site.post("/v1/jobs", {"files": [site.file(), path]})).status: a.body
        for path in outside
    }
    assert list(answers) == [403], answers
    told = {site.post("/v1/jobs", {"files": [path]}).body for path in outside[:2]}
    assert len(told) == 1  # whether it is there is not told
    assert site.jobs() == []
    inside = [
        f"{site.data}/inside",
        f"{site.root}/more/0124.fits",
        f"{site.data}/deep/../0123.fits",
    ]
    assert site.post("/v1/jobs", {"files": inside}).status == 201
    assert len(site.jobs()) == 3


@pytest.mark.parametrize("kind", ["directory", "fifo", "socket"])
def test_what_is_no_file_is_refused_without_waiting(site: WebSite, kind: str) -> None:
    path = site.data / "thing"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    answer = site.post("/v1/jobs", {"files": [str(path)]})
    assert answer.status == 409, answer
    assert site.jobs() == []


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, '"files" is missing'),
        ({"files": []}, '"files" has not the form'),
        ({"files": "x"}, '"files" has not the form'),
        ({"files": [1]}, '"files" has not the form'),
        ({"files": ["x"] * 2}, '"files" has not the form'),
        ({"files": [f"/{n}" for n in range(1001)]}, '"files" has not the form'),
        ({"files": ["/x"], "link": True}, 'unknown key "link"'),
        ({"files": ["FILE"], "priority": 101}, '"priority" has not the form'),
        ({"files": ["FILE"], "priority": True}, '"priority" has not the form'),
        ({"files": ["FILE"], "when": "noon"}, "hold, immediate or HH:MM"),
        ({"files": ["FILE"], "options": {"uid": "x"}}, '"uid" is set by the system'),
        ({"files": ["FILE"], "options": {"dir": "../x"}}, "bad dir"),
        ({"files": ["FILE"], "options": {"a b": "x"}}, "is not keyword=value"),
        ({"files": ["FILE"], "options": {"remhost": "x"}}, '"remhost" cannot be given here'),
        ({"files": ["FILE"], "options": {"rempw": "file:/x"}}, '"rempw" cannot be given here'),
        ([], "the body is no JSON object"),
        (None, "the body is no JSON object"),
    ],
)  # fmt: skip
def test_what_is_not_asked_for_properly_is_refused(site: WebSite, asked: object, said: str) -> None:
    if isinstance(asked, dict) and asked.get("files") == ["FILE"]:
        asked = asked | {"files": [site.file()]}
    answer = site.post("/v1/jobs", asked)
    assert answer.status == 422 and said in answer.json["error"], answer
    assert site.jobs() == []


def test_a_queue_that_there_is_not_is_not_found_and_none_is_made(site: WebSite) -> None:
    for name in ("none", "../archive", "\udcff", "a" * 300):
        answer = site.post("/v1/jobs", {"files": [site.file()], "queue": name})
        assert answer.status == 404 and "there is no queue" in answer.json["error"]
    assert site.curl("/v1/jobs?queue=none").status == 404
    assert not (site.root / "spool").exists()


ANY = st.characters(exclude_categories=())  # halves of characters, too


@given(
    options=st.dictionaries(
        st.text(ANY, max_size=20) | st.sampled_from(["dir", "inst", "maxftp", "object"]),
        st.text(ANY, max_size=30), max_size=3,
    ),
    when=st.text(ANY, max_size=6) | st.sampled_from(["hold", "23:59", "24:00"]),
    priority=st.integers() | st.floats() | st.booleans(),
    path=st.text(ANY, min_size=1, max_size=10) | st.just("0123.fits"),
)  # fmt: skip
@hypothesis.settings(
    max_examples=150, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
def test_no_order_makes_it_fail(
    made: WebSite, options: dict[str, str], when: str, priority: object, path: str
) -> None:
    """As schemathesis, which cannot know a file that may be submitted, does not try."""
    from lpxfer.cli import web_app
    from lpxfer.cli.web_site import Site
    from lpxfer.formats import config, tokens

    conf = config.parse(made.conf.read_text(), str(made.conf))
    said: list[str] = []
    known = tokens.parse((made.root / "tokens").read_bytes())
    app = web_app.make(Site(conf), known, lambda _: [], lambda: (b"", ""), said.append)
    made.file()
    full = {"files": [f"{made.data}/{path}"], "options": options, "when": when,
            "priority": priority}  # fmt: skip
    headers = {"Authorization": f"Bearer {EVERYTHING}"}
    for asked in (full, {"files": full["files"], "options": options}):
        body = json.dumps(asked)
        answer = app.test_client().post(
            "/v1/jobs", data=body, content_type="application/json", headers=headers
        )
        assert answer.status_code in (201, 403, 409, 422), (said, answer.data)
        assert json.loads(answer.data)["version"] == 1
    assert not [line for line in said if "unexpected" in line]


def test_an_option_cannot_carry_another_in_it(site: WebSite) -> None:
    asked = {"files": [site.file()], "options": {"object": "x,rempw=file:/etc/shadow"}}
    assert site.post("/v1/jobs", asked).status == 201
    job = site.root / "spool/archive/pending/archive-1"
    assert "object=x,rempw=file:/etc/shadow\n" in (job / "control").read_text()
    assert not (job / "routing").exists()


def test_another_type_is_refused(site: WebSite) -> None:
    data = json.dumps({"files": [site.file()]})
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        words = ["-H", f"Content-Type: {kind}", "--data-binary", data]
        assert site.curl("/v1/jobs", *words).status == 415, kind
    for bad in ("{", "NaN", "[" * 100_000, "\xff", '{"files": NaN}'):
        words = ["-H", "Content-Type: application/json", "--data-binary", bad]
        assert site.curl("/v1/jobs", *words).status == 422, bad[:10]
    assert site.jobs() == []


def test_another_method_or_path_is_refused(site: WebSite) -> None:
    answer = site.curl("/v1/jobs/archive-1/cancel")
    assert answer.status == 405 and "allow: post" in answer.headers.lower()
    assert site.curl("/v1/jobs", "-X", "DELETE").status == 405
    assert site.curl("/v1/jobs/archive-1", "-X", "DELETE").json["status"] == 405
    for path in ("/", "/v1", "/v2/jobs", "/v1/jobs/", "/static/x", "/v1/jobs/../../etc/passwd",
                 "/v1/jobs/archive-1%2F..", "/v1/jobs/nothing", "/v1/jobs/archive-99"):  # fmt: skip
        assert site.curl(path, "--path-as-is").json["status"] == 404, path


@pytest.mark.parametrize("chunked", [False, True])
def test_a_huge_body_is_refused_and_not_kept(site: WebSite, chunked: bool) -> None:
    big = site.root / "big"
    with big.open("wb") as file:
        file.truncate(200 << 20)
    words = ["-H", "Content-Type: application/json", "--data-binary", f"@{big}"]
    if chunked:
        words += ["-H", "Transfer-Encoding: chunked"]
    assert site.curl("/v1/jobs", *words, "-H", "Expect: 100-continue").json["status"] == 413
    assert site.post("/v1/jobs", {"files": [site.file()]}).status == 201


# --- many and slow ones ---------------------------------------------------------------------


def raw(site: WebSite) -> socket.socket:
    """Connect, as one who may do anything."""
    port = int(site.url.rpartition(":")[2])
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def heard(client: socket.socket) -> bytes:
    """Read until the other side closes."""
    text = b""
    while more := client.recv(65536):
        text += more
    return text


REQUEST = (
    "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n"
    "Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
)


def test_a_thousand_requests_at_once_are_all_answered(site: WebSite) -> None:
    """Every tenth has no token: of the others each is a job, of these none."""
    body = json.dumps({"files": [site.file()]})
    clients = [raw(site) for _ in range(1000)]
    for number, client in enumerate(clients):
        token = EVERYTHING if number % 10 else "x"
        client.sendall(REQUEST.format(token=token, length=len(body), body=body).encode())
    statuses = [int(heard(client).split()[1]) for client in clients]
    for client in clients:
        client.close()
    assert statuses.count(401) == 100 and statuses.count(201) + statuses.count(503) == 900
    assert len(list((site.root / "spool/archive/pending").iterdir())) == statuses.count(201)
    assert site.curl("/v1/jobs?limit=1").status == 200


def test_clients_that_never_finish_keep_nobody_off_and_are_told(site: WebSite) -> None:
    """More of them than there are threads; one goes on sending a byte now and then.

    What that one sends after its answer makes the kernel reset the connection, and the answer
    may be gone with it: it is cut off, that is enough.
    """
    beginnings = [
        b"P", b"POST /v1/jobs HTTP/1.1\r\n", REQUEST.format(token=EVERYTHING, length=99, body="{")
        .encode(),
    ]  # fmt: skip
    with contextlib.ExitStack() as clients:
        trickling, *silent = [
            clients.enter_context(raw(site)) for _ in range(3 * web_server.THREADS)
        ]
        trickling.sendall(beginnings[2])
        for number, client in enumerate(silent):
            client.sendall(beginnings[number % 3])

        def trickle() -> None:
            with contextlib.suppress(OSError):
                while True:
                    trickling.sendall(b" ")
                    time.sleep(1)

        thread = threading.Thread(target=trickle)
        thread.start()
        assert site.post("/v1/jobs", {"files": [site.file()]}).status == 201
        answers = [heard(client) for client in silent]
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert all(answer.startswith(b"HTTP/1.0 408 ") for answer in answers[::3]), answers
    assert all(b" 408 Request Timeout\r\n" in answer for answer in answers), answers
    assert len(site.jobs()) == 1


def test_what_is_no_http_is_refused_and_the_service_goes_on(site: WebSite) -> None:
    for noise in (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"GET\r\n\r\n"):
        with raw(site) as client:
            client.sendall(noise)
            answer = heard(client)
        assert answer.split()[1] == b"400" and b'"version": 1' in answer, answer
    with raw(site) as client, contextlib.suppress(ConnectionError):  # cut while it still sends
        client.sendall(b"GET / HTTP/1.1\r\nX: " + b"A" * 10_000_000 + b"\r\n\r\n")
        assert heard(client).split()[1] == b"431"
    assert site.curl("/v1/jobs").status == 200


def test_an_answer_that_nobody_reads_keeps_nobody_off(site: WebSite) -> None:
    files = [site.file(f"{number}.fits", b"") for number in range(300)]
    assert site.post("/v1/jobs", {"files": files}).status == 201
    line = f"GET /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {EVERYTHING}\r\n\r\n"
    clients = [raw(site) for _ in range(2 * web_server.THREADS)]
    for client in clients:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        client.sendall(line.encode())
    assert site.curl("/v1/jobs?limit=1").status == 200
    for client in clients:
        client.close()


def test_an_idle_service_uses_no_cpu(site: WebSite) -> None:
    """A hundredth of a second in five is one in five hundred; what is used is what counts."""

    def used() -> int:
        words = Path(f"/proc/{site.process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(words[11]) + int(words[12])  # ticks in user and kernel

    assert site.curl("/v1/jobs").status == 200
    before = used()
    time.sleep(5)
    assert used() - before <= 2


def test_a_killed_service_leaves_only_whole_jobs(made: WebSite) -> None:
    """Whoever got no answer asks again: the archive site takes the second for a duplicate."""
    with made.log.open("ab"), pytest.raises(AssertionError), made.serving():
        body = json.dumps({"files": [made.file(f"{n}.fits", b"x" * 100_000) for n in range(300)]})
        with raw(made) as client:
            request = REQUEST.format(token=EVERYTHING, length=len(body), body=body)
            client.sendall(request.encode())
            drafts = made.root / "spool/archive/tmp"
            deadline = time.monotonic() + PATIENCE
            while not (drafts.exists() and any(drafts.iterdir())):  # it is at work
                assert time.monotonic() < deadline
            made.process.kill()
    assert made.command("xfer-fsck").returncode == 0


# --- its own description --------------------------------------------------------------------


def test_the_routes_are_those_of_the_description() -> None:
    from lpxfer.cli import web_app

    app = web_app.make(None, [], lambda _: [], lambda: (b"", ""), print)  # type: ignore[arg-type]
    routes = {
        (re.sub(r"<job_id>", "{id}", str(rule)), method.lower())
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD"}
    }
    described = json.loads(web_app.DESCRIPTION.read_text())
    told = {(path, method) for path, item in described["paths"].items() for method in item}
    assert routes == told


def test_it_is_as_it_describes_itself(site: WebSite) -> None:
    """Schemathesis makes requests of every kind, proper and improper, and judges the answers."""
    site.post("/v1/jobs", {"files": [site.file(), site.file("2.fits")]})
    command = [
        str(Path(sys.executable).parent / "schemathesis"), "run", f"{site.url}/v1/openapi.json",
        "--url", site.url, "-H", f"Authorization: Bearer {EVERYTHING}",
        "--max-examples", "25", "--seed", "1", "--no-color", "--workers", "1",
        "--generation-database", ":memory:", "--suppress-health-check", "all",
        "--request-timeout", str(PATIENCE),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=site.root)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
    assert "unexpected" not in site.log.read_text()
    assert len(site.jobs()) <= 2
