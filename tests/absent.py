"""Python whose first lines make packages look as if they were not installed, whoever asks and however."""

_CODE = """
import importlib.metadata, importlib.util, sys
ABSENT = {packages!r}
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
find, told = importlib.util.find_spec, importlib.metadata.version
importlib.util.find_spec = lambda name, *rest: None if name in ABSENT else find(name, *rest)
def version(name):
    if name in ABSENT:
        raise importlib.metadata.PackageNotFoundError(name)
    return told(name)
importlib.metadata.version = version
"""


def code_without(*packages: str) -> str:
    """Lines for `python -c`, before all others: neither import, `find_spec` nor the metadata know `packages` then."""
    return _CODE.format(packages=packages)
