"""Commands and services that are told something: what they answer, and how long they may."""

import hashlib
import hmac
import itertools
import os
import socket
import threading
from pathlib import Path

import pytest
from receivers import Service

from lpxfer.errors import AttemptError, LinkError
from lpxfer.transports import receiver as receivers
from lpxfer.transports.receiver import post, receiver, run

BODY = b'{"version": 1}'
UID, TIME = "20030402T051220Z-mmto-archive-1-00000001", "2003-04-02T05:20:00.000Z"


def script(tmp_path: Path, text: str) -> str:
    path = tmp_path / "command"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


# --- services ---------------------------------------------------------------------------------


def test_a_service_gets_json_with_a_key_and_a_signature(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("words\n")
    secret.chmod(0o600)
    with Service().listening() as service:
        assert receiver(service.url, f"file:{secret}")(BODY, UID, TIME) == "200 thank you"
        [(headers, body)] = service.heard
        assert body == BODY and headers["Content-Type"] == "application/json"
        assert headers["Idempotency-Key"] == UID and headers["X-Lpxfer-Time"] == TIME
        mine = hmac.new(b"words", TIME.encode() + b"\n" + BODY, hashlib.sha256).hexdigest()
        assert headers["X-Lpxfer-Signature"] == f"sha256={mine}"
        secret.chmod(0o644)
        with pytest.raises(LinkError, match="others may read the secret file"):
            receiver(service.url, f"file:{secret}")(BODY, UID, TIME)
        assert len(service.heard) == 1


def test_without_a_secret_nothing_is_signed() -> None:
    with Service().listening() as service:
        receiver(service.url)(BODY, UID, TIME)
        assert "X-Lpxfer-Signature" not in service.heard[0][0]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(201, None), (204, None), (400, AttemptError), (422, AttemptError), (401, LinkError),
     (404, LinkError), (429, LinkError), (500, LinkError), (503, LinkError), (302, LinkError)],
)  # fmt: skip
def test_an_answer_is_good_or_refuses_this_one_or_all(
    status: int, kind: type[Exception] | None
) -> None:
    with Service().listening() as service:
        service.answers = [(status, b"" if status == 204 else b"because\nof this")]
        if kind is None:
            assert receiver(service.url)(BODY, UID, TIME).startswith(str(status))
        else:
            with pytest.raises(kind, match=f"{status} because$"):
                receiver(service.url)(BODY, UID, TIME)
        assert len(service.heard) == 1  # a redirection is not followed


def test_who_does_not_listen_or_is_no_web_server_tells_nobody_anything() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(LinkError, match="no answer from 127.0.0.1"):
        receiver(f"http://127.0.0.1:{port}/")(BODY, UID, TIME)
    with pytest.raises(LinkError, match="no answer from"):
        receiver("http://127.0.0.1:99999/")(BODY, UID, TIME)


@pytest.mark.parametrize("drip", [b"", b"HTTP/1.1 200 OK\r\nX-A: ", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_who_never_ends_an_answer_is_cut_off(drip: bytes) -> None:
    ended, drops = threading.Event(), itertools.count()

    def serve(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            try:
                connection.sendall(drip)
                while not ended.wait(0.05):
                    connection.sendall(b"a" if drip else b"")
                    next(drops)
            except OSError:
                pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        try:
            with pytest.raises(LinkError, match="no answer"):
                post(url, "", BODY, UID, TIME, limit=0.5)
        finally:
            ended.set()
            thread.join()
    assert next(drops) < receivers._ANSWER, "all that anybody reads was read"


# --- commands ---------------------------------------------------------------------------------


def test_a_command_finds_the_record_on_its_standard_input(tmp_path: Path) -> None:
    command = script(tmp_path, f'cat >{tmp_path}/heard; echo "$# $1"; echo more')
    assert receiver(f"{command} a;b")(BODY, UID, TIME) == "0 1 a;b"
    assert (tmp_path / "heard").read_bytes() == BODY


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("echo no >&2; exit 3", AttemptError, "exited with 3: no"),
        ("exit 75", LinkError, "exited with 75"),
        ("kill -9 $$", LinkError, "was killed by signal 9"),
    ],
)
def test_how_a_command_ends_says_what_it_means(
    tmp_path: Path, text: str, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        receiver(script(tmp_path, text))(BODY, UID, TIME)


def test_a_command_that_is_missing_is_nobody_s_fault(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="cannot run .*No such file"):
        receiver(str(tmp_path / "none"))(BODY, UID, TIME)
    (tmp_path / "none").write_text("no program")
    with pytest.raises(LinkError, match="cannot run"):
        receiver(str(tmp_path / "none"))(BODY, UID, TIME)


def test_a_command_that_does_not_end_is_killed_with_its_children(tmp_path: Path) -> None:
    command = script(tmp_path, f"sleep 1000 & echo $! >{tmp_path}/child; wait")
    with pytest.raises(LinkError, match="no end within"):
        run([command], BODY, limit=1.0)
    child = int((tmp_path / "child").read_text())
    for _ in range(1000):
        if not os.path.exists(f"/proc/{child}") or _is_dead(child):
            break
        threading.Event().wait(0.01)
    assert not os.path.exists(f"/proc/{child}") or _is_dead(child)


def _is_dead(pid: int) -> bool:
    return ") Z " in Path(f"/proc/{pid}/stat").read_text()


@pytest.mark.parametrize(
    "text",
    [
        "yes",  # whose output is read and thrown away until it is killed
        "exec >&-; sleep 1000",
    ],
)
def test_a_command_that_says_too_much_or_nothing_is_not_waited_for(
    tmp_path: Path, text: str
) -> None:
    with pytest.raises(LinkError, match="no end within"):
        run([script(tmp_path, text)], BODY, limit=0.5)


def test_a_child_that_keeps_the_output_open_is_not_waited_for(tmp_path: Path) -> None:
    assert run([script(tmp_path, "sleep 1000 & echo done")], BODY) == "0 done"


def test_a_large_record_and_a_command_that_does_not_read_it(tmp_path: Path) -> None:
    assert run([script(tmp_path, "true")], b"x" * (1 << 20)) == "0"
    said = run([script(tmp_path, "wc -c; printf '%10000s'")], b"x" * (1 << 20))
    assert said == "0 1048576"
    assert len(said) < receivers.telling.ANSWER_MOST
