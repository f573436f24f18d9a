"""The pytest plugin: ``container`` and its kin start containers for tests, and a failed test shows what they printed.

pytest loads this module in every run, also in those that start no container, so it imports nothing of ours but types until
a fixture of ours is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

    from pycontain.testing import ContainerFactory

_UNSUPPORTED = "container_unsupported"
_factories = pytest.StashKey["list[tuple[pytest.Item | pytest.Collector, ContainerFactory]]"]()
_began = pytest.StashKey[float]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare what may be configured."""
    parser.addini(
        _UNSUPPORTED,
        "a test whose container this host cannot start: fail, the default, or skip",
        default="fail",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a setting that is none, whether a container is started or not."""
    given = config.getini(_UNSUPPORTED)
    if given not in {"fail", "skip"}:
        raise pytest.UsageError(f"{_UNSUPPORTED} = {given}: it is fail or skip")


def _factory_of(request: pytest.FixtureRequest) -> Generator[ContainerFactory]:
    from pycontain.testing.factory import ContainerFactory  # noqa: PLC0415 - who starts no container pays nothing

    with ContainerFactory(skip_unsupported=request.config.getini(_UNSUPPORTED) == "skip") as factory:
        request.config.stash.setdefault(_factories, []).append((request.node, factory))
        yield factory


@pytest.fixture
def container(request: pytest.FixtureRequest) -> Generator[ContainerFactory]:
    """Start containers that end with the test: ``container("redis:7").wait_for(port=6379)``."""
    yield from _factory_of(request)


@pytest.fixture(scope="class")
def class_container(request: pytest.FixtureRequest) -> Generator[ContainerFactory]:
    """Start containers that end with the last test of the class."""
    yield from _factory_of(request)


@pytest.fixture(scope="module")
def module_container(request: pytest.FixtureRequest) -> Generator[ContainerFactory]:
    """Start containers that end with the last test of the module."""
    yield from _factory_of(request)


@pytest.fixture(scope="session")
def session_container(request: pytest.FixtureRequest) -> Generator[ContainerFactory]:
    """Start containers that end with the test run; of each worker, when there are several."""
    yield from _factory_of(request)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make what a failed test reports of its containers short and complete."""
    if call.when == "setup":
        item.stash[_began] = call.start
    known = item.config.stash.get(_factories, [])
    chain = item.listchain()
    concerned = [factory for node, factory in known if node in chain]
    if not concerned:
        return (yield)
    from pycontain.testing import reporting  # noqa: PLC0415 - as above

    if call.excinfo is not None and not item.config.getoption("fulltrace", default=False):
        reporting.leave_out_internals(call.excinfo.value)
    report = yield
    if report.failed:
        own = [factory for node, factory in known if node is item]
        began = item.stash.get(_began, call.start)
        report.sections += reporting.sections(concerned, own, began)
    if call.when == "teardown":
        known[:] = [(node, factory) for node, factory in known if not factory.closed]
    return report
