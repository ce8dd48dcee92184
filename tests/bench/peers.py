"""What lpxfer is compared with: how each program sends the files of a directory.

Each with its defaults, as one would type it, and with its best settings. The words in braces
are filled in by `run`; `far` is a host of the ssh_config of the benchmark's server.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import paramiko
from far_sshd import FarSshd
from wan import Ends, NotRun

GCM = "aes128-gcm@openssh.com"
RSYNC = "rsync -a -e 'ssh -F {conf}'"
RCLONE = (
    "rclone copy --config /dev/null --sftp-host {host} --sftp-port {port} --sftp-user {user} "
    "--sftp-key-file {identity} --sftp-known-hosts-file {known_hosts} --sftp-shell-type unix"
)
LFTP = (
    "lftp --norc -c 'set cmd:fail-exit yes; set net:max-retries 2; "
    'set sftp:connect-program "ssh -a -x -F {conf}%s"; %s'
    "open sftp://{user}:@far; mirror -R %s {source} {to}'"
)
PARAMIKO = "{python} {here}/paramiko_put.py %s {host} {port} {user} {identity} {known_hosts} "
TAR = "tar -cf - -C {source} . | ssh -F {conf} %s far 'tar -xf - -C {to}'"

PEERS = {
    "sftp": "sftp -F {conf} -b {batch} far",
    "sftp tuned": f"sftp -F {{conf}} -c {GCM} -B 261120 -R 256 -b {{batch}} far",
    "scp": "scp -F {conf} -q -r {source}/. far:{to}/",
    "scp tuned": f"scp -F {{conf}} -c {GCM} -X buffer=261120 -X nrequests=256 "
    "-q -r {source}/. far:{to}/",
    "rsync": f"{RSYNC} {{source}}/ far:{{to}}/",
    "rsync tuned": f"rsync -aW --inplace -e 'ssh -F {{conf}} -c {GCM}' {{source}}/ far:{{to}}/",
    "lftp": LFTP % ("", "", ""),
    "lftp tuned": LFTP % (f" -c {GCM}", "set sftp:max-packets-in-flight 64; ", "-P 8 --no-perms"),
    "rclone": f"{RCLONE} {{source}} :sftp:{{to}}",
    "rclone tuned": f"{RCLONE} --sftp-disable-hashcheck --sftp-chunk-size 255k "
    f"--sftp-concurrency 256 --sftp-ciphers {GCM} --transfers 8 --checkers 8 --no-traverse "
    "{source} :sftp:{to}",
    "paramiko": PARAMIKO % "default" + "{source} {to}",
    "paramiko tuned": PARAMIKO % "tuned" + "{source} {to}",
    "tar | ssh tar": TAR % "",
    "tar | ssh tar tuned": TAR % f"-c {GCM}",
    "rsync -z": f"{RSYNC} -z --zc=zstd {{source}}/ far:{{to}}/",
    "rsync -z tuned": f"rsync -aW --inplace -z --zc=zstd -e 'ssh -F {{conf}} -c {GCM}' "
    "{source}/ far:{to}/",
    "sftp -C": "sftp -F {conf} -C -b {batch} far",
}

FOR_ONE = tuple(list(PEERS)[:12])
FOR_MANY = tuple(list(PEERS)[:14])
FOR_FRAMES = ("sftp", "sftp tuned", "sftp -C", "rsync", "rsync -z", "rsync -z tuned")


@dataclass(frozen=True)
class Outcome:
    """What became of a command."""

    seconds: float
    finished: bool  # or it was killed at the limit


def run(name: str, far: FarSshd, ends: Ends, prefix: tuple[str, ...], source: Path, to: Path,
        limit: float) -> Outcome:  # fmt: skip
    """Send every file of `source` into the directory `to` with a peer, or kill it at the limit.

    Raises NotRun where the program is missing, RuntimeError when it fails.
    """
    program = PEERS[name].split()[0]
    if not program.startswith("{") and not find(program):
        raise NotRun(f"no {program} here")
    batch = far.directory / "batch"
    batch.write_text(f"put {source}/* {to}/\n")
    command = PEERS[name].format(
        **far.values(),
        conf=far.ssh_config,
        batch=batch,
        source=source,
        to=to,
        python=shlex.quote(sys.executable),
        here=Path(__file__).parent,
    )
    environ = os.environ | {"PATH": PATH, "HOME": str(far.directory)}
    environ.pop("SSH_AUTH_SOCK", None)
    return timed([*prefix, *ends.near, "bash", "-o", "pipefail", "-c", command], environ, limit)


def timed(command: list[str], environ: dict[str, str], limit: float) -> Outcome:
    """Run a command in a process group of its own, which is killed at the limit."""
    began = time.monotonic()
    process = subprocess.Popen(
        command,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        return Outcome(time.monotonic() - began, finished=False)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    seconds = time.monotonic() - began
    if process.returncode:
        raise RuntimeError(f"exit status {process.returncode}: {output[-300:].strip()}")
    return Outcome(seconds, finished=True)


PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def find(program: str) -> str | None:
    """Return where a program is, beside this Python or on the path."""
    return shutil.which(program, path=PATH)


def versions() -> dict[str, str]:
    """Return what each program says its version is."""
    asked = {
        "OpenSSH": "ssh -V",
        "rsync": "rsync --version",
        "lftp": "lftp --version",
        "rclone": "rclone version",
        "tar": "tar --version",
    }
    said = {"paramiko": paramiko.__version__}
    for name, command in asked.items():
        path = find(command.split()[0])
        if path is None:
            said[name] = "missing"
            continue
        words = [path, *command.split()[1:]]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=20)
        found = re.search(r"\d+\.\d+[\w.]*", done.stdout or done.stderr)
        said[name] = found[0] if found else "?"
    return said
