"""`python -m inferway_cli` is `inferway`."""

from inferway_cli.app import main

raise SystemExit(main())
