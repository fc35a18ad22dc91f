"""Groups from links: what hangs together through any chain of pairs."""

from collections.abc import Iterable


def connected_components(n: int, links: Iterable[tuple[int, int]]) -> list[int]:
    """For each of `n` things the smallest number among those it is linked to, directly or through others.

    Union by smallest root with path halving. Source: Tarjan and van Leeuwen 1984, https://doi.org/10.1145/62.2160
    """
    parent = list(range(n))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for first, second in links:
        low, high = sorted((root(first), root(second)))
        parent[high] = low
    return [root(node) for node in range(n)]
