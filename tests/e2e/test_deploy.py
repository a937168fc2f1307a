"""What stands in deploy/: files that must fit the running gateway."""
import pathlib
import re
import sys

from harness import HERE, KEY, chat, free_port

ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))
import dashboard  # noqa: E402 - it stands beside the scripts that use it


def test_dashboard_and_alerts_use_metrics_that_exist(t):
    fake = t.fake()
    weir = t.weir(fake, keys=[KEY], args=["--limit", "1000/minute", "--cache-ttl", "10m", "--redis", f"redis://127.0.0.1:{free_port()}"],
                  config="routes: [{ path: /metrics, depends: [public] }]\n")
    key = {"authorization": f"Bearer {KEY}"}
    weir.stream(headers=key)
    weir.stream("status=500", headers=key)
    weir.stream()
    assert weir.ask("POST", "/v1/chat/completions", key, chat(False)).status == 200
    exist = set(re.findall(r"^# TYPE (\S+) ", weir.metrics(), re.M))
    for file in ("grafana/weir.json", "prometheus/alerts.yaml"):
        used = dashboard.names(ROOT / "deploy" / file)
        assert len(used) >= 8, (file, used)
        assert used <= exist, (file, used - exist)


def test_the_configurations_that_are_shipped_are_sound(t):
    files = [ROOT / "deploy" / "compose.weir.yaml", *(ROOT / "deploy" / "kubernetes").glob("*/weir.yaml")]
    assert len(files) == 3
    for file in files:
        done = t.run("check", file, env={"APP_KEY": "wk-app-0123456789", "METRICS_KEY": "wk-metrics-0123456789"})
        assert done.returncode == 0, done
        named = set(re.findall(r"\$\{(\w+)\}", file.read_text()))
        assert not any(name.startswith("WEIR_") for name in named), "weir refuses unknown variables of its own name"
        secret = pathlib.Path(ROOT / "deploy" / "kubernetes" / "example" / "secret.yaml").read_text()
        assert named <= set(re.findall(r"^  (\w+): \"\"$", secret, re.M)), named
