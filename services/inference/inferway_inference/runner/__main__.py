"""`python -m inferway_inference.runner` is started by the front, with its sockets and memory as open descriptors."""

import sys

from inferway_inference.runner import priority

if __name__ == "__main__":
    priority.PROCESS.lower()  # what follows are imports; the first order says how urgent the rest is
    from inferway_inference.runner.serve import main

    main(sys.argv[1:])
