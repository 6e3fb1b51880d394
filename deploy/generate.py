"""Write what follows from other files: the Prometheus operator's form of the rules, and the Grafana dashboard.

python deploy/generate.py           # a test compares the files with what this writes
"""

from __future__ import annotations

from pathlib import Path

import dashboard

HERE = Path(__file__).parent
RULES = HERE / "prometheus/rules.yml"
OPERATOR_RULES = HERE / "kubernetes/base/rules.yaml"
DASHBOARD = HERE / "grafana/dashboards/robust-synthesis.json"


def operator_rules() -> str:
    """deploy/prometheus/rules.yml as a PrometheusRule."""
    rules = RULES.read_text()
    groups = rules[rules.index("groups:") :]
    head = (
        "# Made by deploy/generate.py of deploy/prometheus/rules.yml, which has the comments on the file.\n"
        "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: robust-synthesis\nspec:\n"
    )
    return head + "".join(f"  {line}" if line.strip() else line for line in groups.splitlines(keepends=True))


FILES = {OPERATOR_RULES: operator_rules, DASHBOARD: dashboard.text}


def main() -> None:
    for path, content in FILES.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content())


if __name__ == "__main__":
    main()
