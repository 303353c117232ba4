"""`python -m inferway_inference.runner` is started by the front, with its sockets and memory as open descriptors."""

import sys

from inferway_inference.runner.serve import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
