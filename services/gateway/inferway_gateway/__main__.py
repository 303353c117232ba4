"""`python -m inferway_gateway` runs a gateway; `--help` says how to set it up."""

from inferway_chassis.process import main
from inferway_gateway.processes import running_all
from inferway_gateway.settings import GatewaySettings

if __name__ == "__main__":
    raise SystemExit(main(GatewaySettings, running_all))
