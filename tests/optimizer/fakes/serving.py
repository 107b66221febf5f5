"""What tests with a fake engine share besides fixtures."""

from collections.abc import Callable

from fakes.fake_server import Behaviour, FakeServer

from optimizer.placement import Placement

UNPINNED = Placement(engine_cores=None, client_cores=None)

Serve = Callable[[Behaviour], FakeServer]
