"""Plain paramiko, as a script of one's own would use it: SFTPClient.put, one file after another.

paramiko_put.py default|tuned HOST PORT USER IDENTITY KNOWN_HOSTS SOURCE TO
"""

import sys
from pathlib import Path

import paramiko

#: Without these, what both ends prefer is aes128-gcm.
SLOW = {"ciphers": ["aes128-ctr", "aes192-ctr", "aes256-ctr"]}


def main(how: str, host: str, port: str, user: str, key: str, known: str, *dirs: str) -> None:
    """Send every file of the one directory into the other."""
    source, to = map(Path, dirs)
    with paramiko.SSHClient() as client:
        client.load_host_keys(known)
        client.connect(
            host,
            int(port),
            user,
            key_filename=key,
            allow_agent=False,
            look_for_keys=False,
            disabled_algorithms=SLOW if how == "tuned" else None,
        )
        with client.open_sftp() as sftp:
            for path in sorted(source.iterdir()):
                # the confirmation asks for the size of what arrived
                sftp.put(str(path), str(to / path.name), confirm=how == "default")


if __name__ == "__main__":
    main(*sys.argv[1:])
