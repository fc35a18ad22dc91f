"""What several commands say in the same words."""

import sys

IMAGES_HELP = (
    "Folder, .zip, .parquet (file or folder), WebDataset .tar (file, folder, train-{0000..0009}.tar),"
    " or hf://datasets/OWNER/NAME[@REVISION][/FOLDER]."
)


def typed_command() -> str:
    """The command as it was typed, for provenance, without what must not be published."""
    from annotate.publishable import publishable_command

    return publishable_command(["vl-dermnet", *sys.argv[1:]])
