"""The instructions of a Dockerfile that change how an image is run."""

import pytest

from pycontain.oci.config import ExecutionParameters
from pycontain.oci.instruction import changed

EMPTY = ExecutionParameters()


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ('CMD ["a", "b c"]', "cmd", ("a", "b c")),
        ("CMD a b", "cmd", ("/bin/sh", "-c", "a b")),
        ('entrypoint ["a"]', "entrypoint", ("a",)),
        ("ENV A=1 B='2 3'", "env", ("A=1", "B=2 3")),
        ("ENV A 1 2", "env", ("A=1 2",)),
        ("EXPOSE 80 53/udp", "exposed_ports", ("53/udp", "80/tcp")),
        ("STOPSIGNAL SIGINT", "stop_signal", "SIGINT"),
        ("USER a:b", "user", "a:b"),
        ('VOLUME ["/a", "/b"]', "volumes", ("/a", "/b")),
        ("VOLUME /b /a", "volumes", ("/a", "/b")),
        ("WORKDIR /a", "working_dir", "/a"),
        ("WORKDIR a", "working_dir", "/a"),
    ],
)
def test_an_instruction(line, field, value):
    assert getattr(changed(EMPTY, line), field) == value


def test_labels_and_variables_are_added():
    before = ExecutionParameters(env=("A=1", "B=2"), labels={"a": "1"})
    assert changed(before, "ENV B=3 C=4").env == ("A=1", "B=3", "C=4")
    assert dict(changed(before, 'LABEL b="2 3"').labels) == {"a": "1", "b": "2 3"}


def test_an_entrypoint_forgets_the_command():
    assert changed(ExecutionParameters(cmd=("x",)), 'ENTRYPOINT ["a"]').cmd == ()


@pytest.mark.parametrize("line", ["", "RUN x", "CMD", "CMD [", "CMD [1]", "ENV A=1 x", "LABEL =x", "ENV 'x"])
def test_what_is_no_instruction(line):
    with pytest.raises(ValueError, match=r"."):
        changed(EMPTY, line)
