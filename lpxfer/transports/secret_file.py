"""A secret in the first line of a file of mode 0600. Raises LinkError for one that cannot be used.

It is read anew for each use, so that it can be changed, and set right, at any time.
"""

from lpxfer import secret
from lpxfer.errors import LinkError, PermanentError


def read(path: str, what: str) -> bytes:
    """Read the first line of a regular file that only its owner may read."""
    try:
        line = secret.read(path, what).partition(b"\n")[0].rstrip(b"\r")
    except PermanentError as error:
        raise LinkError(str(error)) from error
    if not line:
        raise LinkError(f"the {what} file {path} has an empty first line")
    return line
