"""dashboard.py names FILE...: the metrics that dashboards (.json) and rules (.yaml) use, one a line.
dashboard.py rules FILE: a dashboard's queries as Prometheus rules, for `promtool check rules`."""
import json
import pathlib
import re
import sys

METRIC = re.compile(r"\b((?:weir|process)_[a-z_]+?)(?:_bucket|_sum|_count)?\b(?=[{\[) ]|$)", re.M)


def queries(path):
    """The queries of a dashboard or a file of rules."""
    text = pathlib.Path(path).read_text(encoding="utf-8")
    if str(path).endswith(".json"):
        board = json.loads(text)
        found = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
        return found + [item["query"] for item in board["templating"]["list"] if item["type"] == "query"]
    return [match[1] for match in re.finditer(r"^ +expr: (?:\|\n)?((?:.*\n)+?)(?= +(?:for|labels):)", text, re.M)]


def names(path):
    """The metrics that the file uses, without what a histogram adds."""
    return {name for query in queries(path) for name in METRIC.findall(re.sub(r"label_values\((\w+).*", r"\1", query))}


def main():
    what, *files = sys.argv[1:]
    if what == "names":
        print("\n".join(sorted(set().union(*map(names, files)))))
        return
    print("groups:\n  - name: dashboard\n    rules:")
    for n, query in enumerate(q for q in queries(files[0]) if not q.startswith("label_values")):
        query = query.replace("$__rate_interval", "5m").replace("$job", "weir").replace("$instance", ".*")
        print(f"      - record: panel{n}\n        expr: {json.dumps(query)}")


if __name__ == "__main__":
    main()
