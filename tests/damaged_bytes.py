"""A file of photographs with a few wrong bytes, again and again: what reading it comes to."""

from builders.errors import UserError
from builders.sources import open_source


def outcomes_of_damage(file, made, n_times):
    """Which of "read", "refused" (one photograph) and "mistake" (the file) come of 1 to 3 wrong bytes, drawn by `made`.

    Any other exception is raised.
    """
    whole, outcomes = file.read_bytes(), set()
    for _ in range(n_times):
        damaged = bytearray(whole)
        for _ in range(made.randrange(1, 4)):
            damaged[made.randrange(len(damaged))] = made.randrange(256)
        file.write_bytes(bytes(damaged))
        try:
            with open_source(file) as source:
                for path in source.paths():
                    try:
                        source.read(path)
                        outcomes.add("read")
                    except OSError:
                        outcomes.add("refused")
        except UserError:
            outcomes.add("mistake")
    return outcomes
