"""`python -m annotate` is `vl-dermnet`."""

from annotate.cli import main

main()
