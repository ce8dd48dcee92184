"""A real xfer-web with its own configuration, and curl: what tests of the service play with."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PATIENCE = 60.0  # seconds for what takes one

EVERYTHING = f"{1:064d}"
LISTING = f"{2:064d}"

RUN = "from lpxfer.cli.xfer_web import main; main(prog_name='xfer-web')"

CONF = """\
[lpxfer]
spool = {root}/spool
queue = archive
host = mmto
reserve = 0
incoming = {root}/incoming
[queue archive]
[instrument minicam]
dir = {root}/minicam
{instrument}
[web]
listen = 127.0.0.1:0
tokens = file:{root}/tokens
roots = {root}/data:{root}/more
{web}
"""


class Answer:
    """What curl got."""

    def __init__(self, status: int, headers: str, body: str) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        assert "content-type: application/json\r\n" in self.headers.lower(), self.headers
        return json.loads(self.body)

    def __repr__(self) -> str:
        return f"{self.status} {self.body}"


class WebSite:
    """A directory with a spool, data to submit, incoming, an instrument, and the service."""

    def __init__(self, root: Path, web: str = "", instrument: str = "") -> None:
        self.root, self.data = root, root / "data"
        for name in ("data", "incoming", "minicam"):
            (root / name).mkdir()
        self.conf = root / "lpxfer.conf"
        self.conf.write_text(CONF.format(root=root, web=web, instrument=instrument))
        environ = {k: v for k, v in os.environ.items() if not k.startswith("XFER_")}
        state = {"XFER_CONF": str(self.conf), "XDG_STATE_HOME": str(root / "state")}
        self.environ = environ | state
        everything = "submit,list,cancel,arrivals,metrics"
        self.write_tokens(f"all {EVERYTHING} {everything}\nlook {LISTING} list\n")
        self.log = root / "web.log"
        self.url = ""
        self.process: subprocess.Popen[bytes]

    def write_tokens(self, text: str, mode: int = 0o600) -> None:
        path = self.root / "tokens"
        path.write_text(text)
        path.chmod(mode)

    def file(self, name: str = "0123.fits", data: bytes = b"data") -> str:
        path = self.data / name
        path.write_bytes(data)
        return str(path)

    def command(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run another command on the same configuration."""
        command = [str(Path(sys.executable).parent / name), *words]
        return subprocess.run(
            command, env=self.environ, capture_output=True, text=True, timeout=PATIENCE
        )

    @contextlib.contextmanager
    def serving(self, before: str = "") -> Iterator[None]:
        """Run the service for a block, after some Python."""
        self.log.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            command = [sys.executable, "-c", f"{before}\n{RUN}"]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=self.environ)
        try:
            port = self.wait_said(r"listening on 127.0.0.1:(\d+)")
            self.url = f"http://127.0.0.1:{port}"
            yield
        finally:
            self.process.terminate()
            assert self.process.wait(PATIENCE) == 0, self.log.read_text()

    def wait_said(self, pattern: str) -> str:
        deadline = time.monotonic() + PATIENCE
        while not (match := re.search(pattern, self.log.read_text())):
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)
        return match[1] if match.groups() else match[0]

    def curl(self, path: str, *words: str, token: str | None = EVERYTHING) -> Answer:
        """Ask with curl; a 100 Continue is not the answer."""
        command = ["curl", "-s", "-S", "-i", "--max-time", str(PATIENCE), *words]
        if token is not None:
            command += ["-H", f"Authorization: Bearer {token}"]
        done = subprocess.run([*command, self.url + path], capture_output=True)
        assert done.stdout, done.stderr
        text = done.stdout.decode()
        while text.startswith("HTTP/1.1 100 "):
            text = text.partition("\r\n\r\n")[2]
        headers, _, body = text.partition("\r\n\r\n")
        return Answer(int(headers.split()[1]), headers + "\r\n", body)

    def post(self, path: str, values: object, token: str | None = EVERYTHING) -> Answer:
        data = json.dumps(values)
        kind = ["-H", "Content-Type: application/json"]
        return self.curl(path, *kind, "--data-binary", data, token=token)

    def jobs(self) -> list[Any]:
        """What the spool has, as xfer-stat tells."""
        return list(json.loads(self.command("xfer-stat", "--json").stdout)["jobs"])
