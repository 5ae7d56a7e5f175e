"""``python -m minutia``."""

from minutia.cli import main

main()
