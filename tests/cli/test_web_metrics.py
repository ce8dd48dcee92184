"""Metrics: a real Prometheus scrapes them; rules and dashboard find what they ask for."""

import contextlib
import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from arrivals import arrive
from sshd import free_port
from web_site import EVERYTHING, PATIENCE, WebSite

from lpxfer.formats import dates
from lpxfer.formats.record import Record, dump

ROOT = Path(__file__).parents[2]
RULES = ROOT / "etc/prometheus/lpxfer.rules.yml"
DASHBOARD = json.loads((ROOT / "etc/grafana/lpxfer.json").read_text())

#: What others measure.
OTHERS = {"up", "node_textfile_mtime_seconds"}


def tool(*words: str) -> str:
    """Run a program of Debian's package prometheus and return what it said."""
    if not shutil.which(words[0]):
        pytest.fail(f"{words[0]} is missing: run tests/system-packages")
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout


def values(text: str) -> dict[str, float]:
    """Read metrics: each series with its labels, and its value."""
    rows = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in rows}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[WebSite]:
    """Both sites of a night in one: jobs in several states, records, a sweep."""
    made = WebSite(tmp_path)
    files = [made.file(f"{number}.fits", b"x" * 100) for number in range(3)]
    assert made.command("xfer-submit", "-s", *files).returncode == 0
    assert made.command("xfer-cancel", "archive-3").returncode == 0
    now = datetime.now(UTC)
    fields = {"job": "archive-9", "size": "1000", "attempts": "2", "submitted": dates.iso(now)}
    with (tmp_path / "spool/archive/log" / f"{dates.log_date(now)}.log").open("ab") as log:
        log.write(dump(Record(now, "completed", fields)))
    arrive(tmp_path / "incoming", b"data", name="a.fits")
    assert made.command("xfer-sweep", "-i", "minicam").returncode == 0
    with made.serving():
        yield made


def test_everything_is_told_of_both_sites(site: WebSite) -> None:
    answer = site.curl("/metrics")
    assert answer.status == 200
    found = values(answer.body)
    assert found['lpxfer_jobs{queue="archive",state="pending"}'] == 2
    assert found['lpxfer_jobs_bytes{queue="archive",state="pending"}'] == 200
    assert found['lpxfer_sender_running{queue="archive"}'] == 0
    assert found['lpxfer_oldest_job_seconds{queue="archive"}'] > 0
    assert found['lpxfer_finished_jobs_total{outcome="completed",queue="archive"}'] == 1
    assert found['lpxfer_finished_jobs_total{outcome="canceled",queue="archive"}'] == 1
    assert found['lpxfer_completed_bytes_total{queue="archive"}'] == 1000
    assert found['lpxfer_latency_seconds_count{queue="archive"}'] == 1
    assert found['lpxfer_records_total{instrument="minicam",kind="stored"}'] == 1
    assert found['lpxfer_placed_bytes_total{instrument="minicam"}'] == 4
    assert found['lpxfer_transfer_seconds_sum{instrument="minicam"}'] == pytest.approx(13.02)
    assert found['lpxfer_archived_seconds_count{instrument="minicam"}'] == 1
    for stage, count in (("submitted", 1), ("placed", 1), ("receipted", 1), ("told", 0)):
        series = f'lpxfer_stage_seconds_count{{instrument="minicam",stage="{stage}"}}'
        assert found[series] == count, stage
    swept = found['lpxfer_last_sweep_timestamp_seconds{instrument="minicam"}']
    assert abs(time.time() - swept) < 3600
    text = site.root / "metrics"
    text.write_text(answer.body)
    with text.open("rb") as body:
        assert subprocess.run(["promtool", "check", "metrics"], stdin=body).returncode == 0


def test_a_restart_loses_nothing_and_new_lines_are_added(site: WebSite) -> None:
    before = site.curl("/metrics").body
    now = datetime.now(UTC)
    with (site.root / "spool/archive/log" / f"{dates.log_date(now)}.log").open("ab") as log:
        log.write(dump(Record(now, "completed", {"job": "archive-10", "size": "5"})))
    after = values(site.curl("/metrics").body)
    path = site.root / "lpxfer.prom"
    assert site.command("xfer-stat", "--metrics", str(path)).returncode == 0
    another = values(path.read_text())  # a process that has seen nothing yet
    name = 'lpxfer_completed_bytes_total{queue="archive"}'
    assert (values(before)[name], after[name], another[name]) == (1000, 1005, 1005)
    assert after.keys() == another.keys()
    assert path.stat().st_mode & 0o777 == 0o644
    assert not [other for other in site.root.iterdir() if other.name.startswith(".lpxfer")]


def test_a_job_that_failed_is_told_with_its_reason(site: WebSite) -> None:
    job = site.root / "spool/archive/pending/archive-1"
    job.rename(site.root / "spool/archive/failed/archive-1")
    found = values(site.curl("/metrics").body)
    assert found['lpxfer_failed_jobs{queue="archive",reason="other"}'] == 1
    assert found['lpxfer_jobs{queue="archive",state="failed"}'] == 1


def test_the_page_has_every_metric_and_no_other(site: WebSite) -> None:
    told = set(re.findall(r"^# TYPE (\S+) ", site.curl("/metrics").body, re.MULTILINE))
    page = (ROOT / "man/xfer-web.5").read_text()
    described = set(re.findall(r"^\.It Li (lpxfer_\w+)", page, re.MULTILINE))
    assert described == told


# --- Prometheus, its rules, the dashboard ---------------------------------------------------


def test_promtool_finds_nothing_wrong_with_the_rules() -> None:
    assert "12 rules found" in tool("promtool", "check", "rules", str(RULES))


def test_each_alert_fires_for_what_it_is_meant_for() -> None:
    tests = ROOT / "tests/prometheus/lpxfer.test.yml"
    assert "SUCCESS" in tool("promtool", "test", "rules", str(tests))
    alerts = set(re.findall(r"alert: (\w+)", RULES.read_text()))
    assert alerts == set(re.findall(r"alertname: (\w+)", tests.read_text()))


CONFIG = """\
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: lpxfer
    authorization: {{credentials_file: "{root}/scrape.token"}}
    static_configs: [{{targets: ["{target}"]}}]
"""


class Prometheus:
    """A real one, which scrapes a site."""

    def __init__(self, site: WebSite) -> None:
        self.root, self.port = site.root, free_port()
        target = site.url.removeprefix("http://")
        (self.root / "scrape.token").write_text(EVERYTHING)
        self.config = self.root / "prometheus.yml"
        self.config.write_text(CONFIG.format(rules=RULES, root=self.root, target=target))

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        tool("promtool", "check", "config", str(self.config))
        where = f"127.0.0.1:{self.port}"
        with (self.root / "prometheus.log").open("ab") as log:
            process = subprocess.Popen(
                ["prometheus", f"--config.file={self.config}",
                 f"--storage.tsdb.path={self.root}/db", f"--web.listen-address={where}"],
                stdout=log, stderr=log,
            )  # fmt: skip
        try:
            yield
        finally:
            process.terminate()
            process.wait(PATIENCE)

    def ask(self, path: str, **words: str) -> Any:
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(words)}"
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[Any]:
        return list(self.ask("query", query=expression)["result"])

    def wait_for(self, expression: str) -> list[Any]:
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError):
                if found := self.query(expression):
                    return found
            assert time.monotonic() < deadline, (self.root / "prometheus.log").read_text()[-4000:]
            time.sleep(0.2)


def expressions() -> list[str]:
    """What the dashboard asks for, with every queue and instrument."""
    found = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return [re.sub(r"\$(queue|instrument)", ".*", text) for text in found]


def test_prometheus_scrapes_it_and_understands_rules_and_dashboard(site: WebSite) -> None:
    prometheus = Prometheus(site)
    with prometheus.running():
        [row] = prometheus.wait_for('lpxfer_jobs{queue="archive",state="pending"}')
        assert row["value"][1] == "2" and row["metric"]["job"] == "lpxfer"
        assert prometheus.query('up{job="lpxfer"}')[0]["value"][1] == "1"
        for expression in expressions():
            prometheus.query(expression)  # an error is an HTTP error
        now = (
            "lpxfer_jobs",
            "lpxfer_sender_running",
            "lpxfer_spool_free_bytes",
            "lpxfer_free_bytes",
        )
        for expression in expressions():
            if expression.startswith(("lpxfer_", "min(lpxfer_", "max(lpxfer_", "sum(lpxfer_jobs")):
                assert prometheus.query(expression), expression
        assert all(prometheus.query(name) for name in now)
        prometheus.wait_for('ALERTS{alertname="LpxferSenderDown",alertstate="pending"}')
        rules = prometheus.ask("rules")["groups"][0]["rules"]
        assert {rule["health"] for rule in rules} <= {"ok", "unknown"}


def test_rules_and_dashboard_ask_for_metrics_that_exist(site: WebSite) -> None:
    told = {name.partition("{")[0] for name in values(site.curl("/metrics").body)} | OTHERS
    asked = " ".join([*expressions(), RULES.read_text()])
    names = set(re.findall(r"\b(?:lpxfer_[a-z_]+[a-z]|node_[a-z_]+)\b", asked))
    assert names <= told, names - told
    assert len(DASHBOARD["panels"]) == len({panel["title"] for panel in DASHBOARD["panels"]})
    for panel in DASHBOARD["panels"]:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
