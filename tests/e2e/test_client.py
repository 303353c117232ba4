"""The client's own suite, against the real gateway: the fake that users test with tells the truth."""

from __future__ import annotations

import pytest

from tests.testbed.processes import ServiceProcess
from tests.unit.client.prediction_suite import PredictionSuite


class TestRealGateway(PredictionSuite):
    """See the suite."""

    @pytest.fixture
    def target(self, gateway: ServiceProcess) -> str:
        """The stack of all tests serves the suite's model."""
        return gateway.target
