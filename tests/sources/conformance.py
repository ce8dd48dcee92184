"""What every source does; a test module has a fixture `scene` for its own."""

import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from lpxfer.sources.source import Source

PATIENCE = 60.0


@dataclass
class Scene:
    """A source, and how a file below `data` comes to be told of by it."""

    source: Source
    data: Path
    tell: Callable[[str], None]
    names: tuple[str, str] = ("a.fits", "b.fits")


class Hints:
    """Collects hints."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.queue = queue.SimpleQueue[str | None]()
        self.all: list[str | None] = []

    def wait_for(self, *hints: str | None) -> None:
        """Wait for one of these hints; names are below `data`, or absolute."""
        wanted = {h if h is None else str(self.data / h) for h in hints}
        deadline = time.monotonic() + PATIENCE
        while True:
            hint = self.queue.get(timeout=max(deadline - time.monotonic(), 0.01))
            self.all.append(hint)
            if (hint if hint is None else str(self.data / hint)) in wanted:
                return


class Conformance:
    """The suite."""

    @pytest.fixture
    def hints(self, scene: Scene) -> Hints:
        return Hints(scene.data)

    def test_begins_with_a_look_at_everything(self, scene: Scene, hints: Hints) -> None:
        scene.source.start(hints.queue.put)
        hints.wait_for(None)
        scene.source.close()

    def test_file_is_told_of(self, scene: Scene, hints: Hints) -> None:
        scene.source.start(hints.queue.put)
        hints.wait_for(None)
        for name in scene.names:
            (scene.data / name).write_bytes(b"data")
            scene.tell(name)
            hints.wait_for(name, None)
        scene.source.close()

    def test_says_nothing_when_it_is_closed(self, scene: Scene, hints: Hints) -> None:
        scene.source.start(hints.queue.put)
        hints.wait_for(None)
        scene.source.close()
        while not hints.queue.empty():
            hints.queue.get()
        (scene.data / scene.names[0]).write_bytes(b"data")
        scene.tell(scene.names[0])
        time.sleep(0.3)
        assert hints.queue.empty()

    def test_may_be_closed_at_any_time(self, scene: Scene, hints: Hints) -> None:
        scene.source.close()
        scene.source.start(hints.queue.put)
        scene.source.close()
        scene.source.close()
