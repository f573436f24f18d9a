"""Services whose images are built from Dockerfiles."""

import pytest
from test_build import base, store  # noqa: F401 - fixtures

from pycontain import Image, Project
from pycontain.errors import InstructionFailed, ServiceFailed


@pytest.fixture
def project(base, tmp_path):  # noqa: F811 - the fixture
    def made(**build):
        (tmp_path / "Dockerfile").write_text(
            "FROM base:1\nARG WORD=none\nRUN echo $WORD > /word\nCMD cat /word\n"
        )
        return Project(
            {"a": {"build": {"context": ".", **build}, "network_mode": "none"}}, name="p", folder=tmp_path
        )

    return made


def test_a_service_is_built_and_started(project):
    with project(args={"WORD": "first"}).up() as running:
        assert running.wait()["a"].stdout == "first\n"
        assert running.run("a", "sh", "-c", "echo once; cat /word").stdout == "once\nfirst\n"
    assert Image.find("p-a").config.config.cmd == ("/bin/sh", "-c", "cat /word")


def test_what_is_there_is_used_when_nothing_shall_be_built(project):
    project(args={"WORD": "there"}).build()
    with project(args={"WORD": "new"}).up(build=False) as running:
        assert running.wait()["a"].stdout == "there\n"


def test_a_dockerfile_may_be_in_the_project_itself(project):
    images = project(
        dockerfile_inline="FROM base:1\nENV A=inline", tags=["other:1"], labels={"l": "v"}
    ).build()
    assert "A=inline" in images["a"].config.config.env
    assert Image.find("other:1").id == images["a"].id


def test_a_build_that_fails_fails_the_service(project):
    with pytest.raises(ServiceFailed, match="the service a is being built, and failed: ") as caught:
        project(dockerfile_inline="FROM base:1\nRUN echo oh no; exit 3").up()
    assert isinstance(caught.value.__cause__, InstructionFailed)
    assert any("oh no" in note for note in caught.value.__notes__)
