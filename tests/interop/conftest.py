"""One gateway for all tests. No test may leave a child of it behind, nor may the gateway itself."""

import pytest
from gateway import Gateway


@pytest.fixture(scope="session")
def running_gateway(tmp_path_factory):
    running = Gateway(tmp_path_factory.mktemp("gateway"))
    try:
        running.wait_until_ready()
        yield running
    finally:
        code, left = running.stop()
    assert code == 0, f"the gateway ended with {code}:\n{running.log.read_text()[-4000:]}"
    assert not left, f"the gateway left processes behind: {left}"


@pytest.fixture
def gateway(running_gateway):
    yield running_gateway
    left = running_gateway.children_left()
    assert not left, f"the test is over, and its sessions' processes are not: {left}"
