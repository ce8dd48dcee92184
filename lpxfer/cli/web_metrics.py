"""Placeholder."""

from lpxfer.formats.config import Config


class Metrics:
    def __init__(self, config: Config) -> None:
        self._config = config

    def text(self) -> tuple[bytes, str]:
        return b"", "text/plain"
