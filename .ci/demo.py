"""What `make demo` shows: the main job on the embedded image `host:`, and what it costs."""

import statistics

import pycontain
from pycontain import Container

SCRIPT = "import os; print(f'hello from process {os.getpid()} of {os.uname().nodename}, uid {os.getuid()}')"
REPEATS = 20


def show(title, *lines):
    print(f"\n# {title}")
    for line in lines:
        print(f"  {line}")


def milliseconds(seconds):
    return f"{seconds * 1000:.1f} ms"


def main():
    box = Container("host:").hostname("box")
    command = ("python3", "-c", SCRIPT)

    first = box.run(*command, check=True)
    show(f"{box}.run('python3', '-c', ...)", first.stdout.strip())

    plan = box.plan(*command)
    show(
        f"what that did: the first of {len(plan)} steps, on {plan.host}", *str(plan).splitlines()[1:8], "..."
    )

    again = statistics.median(box.run("true", check=True).duration for _ in range(REPEATS))
    show(
        "what it cost",
        f"{milliseconds(first.duration)} for the first container, which starts the zygote and describes this machine",
        f"{milliseconds(again)} for each further one (running 'true', median of {REPEATS})",
    )

    with box.start("sleep", "60") as running:
        inside = running.exec("hostname", check=True).stdout.strip()
        show(f"a container that stays, and a command in it: {running}", f"hostname says {inside}")
    show(f"after its block: {running}")

    pycontain.shutdown()
    show("nothing is left: no process, no mount, no file. Read on in README.md")


if __name__ == "__main__":
    main()
