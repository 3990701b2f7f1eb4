"""Which Service an HTTPRoute sends a path to, by the rules of the Gateway API."""

from collections.abc import Iterator

from tests.k8s.manifests import Manifest


def backends(route: Manifest, path: str) -> dict[str, int]:
    """The weight of each Service that a path goes to; none if the route does not take it.

    An exact match goes before a prefix, a longer prefix before a shorter one.
    """
    found = sorted(
        (
            (match["type"] == "Exact", len(match["value"]), index)
            for match, index in _matches(route)
            if _takes(match, path)
        ),
        reverse=True,
    )
    if not found:
        return {}
    rule = route["spec"]["rules"][found[0][2]]
    return {backend["name"]: backend.get("weight", 1) for backend in rule["backendRefs"]}


def _matches(route: Manifest) -> Iterator[tuple[Manifest, int]]:
    for index, rule in enumerate(route["spec"]["rules"]):
        for match in rule["matches"]:
            yield match["path"], index


def _takes(match: Manifest, path: str) -> bool:
    if match["type"] == "Exact":
        return bool(path == match["value"])
    prefix = match["value"].rstrip("/")
    return path == prefix or path.startswith(f"{prefix}/")  # whole segments only
