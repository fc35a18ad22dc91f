"""The YAML in front of README.md: `load_dataset` believes it before it believes the shards."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from builders.check.fault import Fault, shown, visible
from builders.dataset_folder import configs_of

README = "README.md"
MAX_BYTES = 16 * 1024**2
_FENCE = "---\n"


class _Loader(yaml.SafeLoader):
    """YAML without aliases: nothing here needs them, and a few can stand for gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it holds an alias")
        return super().compose_node(parent, index)


def read_readme(folder: Path) -> tuple[dict[str, Any], str]:
    """The front matter of README.md and the text behind it. Raises `ValueError` that says why there is none."""
    file = folder / README
    if not file.is_file():
        raise ValueError("no such file")
    if file.stat().st_size > MAX_BYTES:
        raise ValueError(f"{file.stat().st_size:,} bytes")
    return parse_card(file.read_bytes().decode("utf-8"))  # not read_text, which would change line ends


def parse_card(text: str) -> tuple[dict[str, Any], str]:
    """The front matter of a card and the text behind it. Raises `ValueError` that says why there is none."""
    head, fence, body = text.removeprefix(_FENCE).partition(f"\n{_FENCE}")
    if not text.startswith(_FENCE) or not fence:
        raise ValueError("no YAML between two lines of ---")
    try:
        metadata = yaml.load(head, _Loader)  # noqa: S506  a SafeLoader
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"YAML that cannot be read: {error}") from error
    if not isinstance(metadata, dict):
        raise ValueError("YAML that is no mapping")
    return metadata, body


def check_front_matter(folder: Path) -> Iterator[Fault]:
    """`configs` against the sets and shards that are there: names, patterns, the default, the hash of the rows."""
    try:
        metadata, _ = read_readme(folder)
    except ValueError as error:
        yield Fault("front matter", README, "", visible(str(error)), "a card with YAML in front")
        return
    configs: Any = metadata.get("configs")
    named = [each for each in configs if isinstance(each, dict)] if isinstance(configs, list) else []
    found: dict[str, Any] = {str(each.get("config_name")): each for each in named}
    expected = {each["config_name"]: each for each in configs_of(folder)}
    for name in [*expected, *(name for name in found if name not in expected)]:
        yield from differences("front matter", README, f"configs[{name}]", found.get(name), expected.get(name))
    if list(found) != list(expected) and found.keys() == expected.keys():
        yield Fault("front matter", README, "configs", f"order {', '.join(found)}", f"order {', '.join(expected)}")


def differences(contract: str, file: str, place: str, seen: Any, allowed: Any) -> Iterator[Fault]:
    """A fault for each leaf in which two values of JSON or YAML differ."""
    if isinstance(seen, dict) and isinstance(allowed, dict):
        for key in [*allowed, *(key for key in seen if key not in allowed)]:
            yield from differences(contract, file, f"{place}.{key}", seen.get(key), allowed.get(key))
    elif isinstance(seen, list) and isinstance(allowed, list) and len(seen) == len(allowed):
        for number, pair in enumerate(zip(seen, allowed, strict=True)):
            yield from differences(contract, file, f"{place}[{number}]", *pair)
    elif seen != allowed or isinstance(seen, bool) != isinstance(allowed, bool):
        at = visible(place.removeprefix("."))
        yield Fault(contract, file, at, _or_nothing(seen), _or_nothing(allowed))


def _or_nothing(value: Any) -> str:
    return "nothing" if value is None else shown(value)
