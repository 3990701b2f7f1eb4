"""Write the Kubernetes forms of deploy/observability's rules and dashboard beside this file.

Kustomize reads no file outside of its folder, and a PrometheusRule wraps the groups of a rule file.
"""

import shutil
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
OBSERVABILITY = HERE.parents[2] / "deploy" / "observability"
HEADER = "# Written by generate.py from deploy/observability/rules: change the rules there.\n"


class Dumper(yaml.SafeDumper):
    """YAML in which a text of several lines stays readable."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """A literal block for several lines, else PyYAML's choice."""
        style = "|" if "\n" in data else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


Dumper.add_representer(str, Dumper.represent_str)


def prometheus_rule() -> dict[str, object]:
    """The groups of all rule files, in the order of the files' names, as one object."""
    files = sorted((OBSERVABILITY / "rules").glob("*.yml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "vitrine"},
        "spec": {"groups": groups},
    }


if __name__ == "__main__":
    text = yaml.dump(prometheus_rule(), Dumper=Dumper, sort_keys=False, width=100)
    (HERE / "prometheus-rule.yaml").write_text(HEADER + text)
    shutil.copyfile(
        OBSERVABILITY / "grafana" / "dashboards" / "vitrine.json", HERE / "dashboard.json"
    )
