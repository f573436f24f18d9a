import json

from pycontain import Container
from pycontain.errors import CommandFailed, CommandTimeout

UNTRUSTED = """
def count_words(text):
    counts = {}
    for word in text.split():
        counts[word] = counts.get(word, 0) + 1
    return counts
"""

CALL = """
import json, runpy, sys
function = runpy.run_path("/job/code.py")[sys.argv[1]]
json.dump(function(**json.load(sys.stdin)), sys.stdout)
"""

WALLED_IN = (
    Container("host:")
    .file("/job/call.py", CALL)
    .read_only()  # nothing can be written
    .tmpfs("/tmp", size="16M")  # but here, and no more than that
    .capabilities(drop=["ALL"])  # root in name only
    .rlimit("nofile", 64)  # open files
    .rlimit("fsize", 16 << 20)  # the largest file, in bytes
    .rlimit("as", 1 << 30)  # address space of each process, in bytes
)


def call(source, name, timeout=5.0, **arguments):
    """Call the function *name* of *source* in a container of its own, and return its result."""
    done = WALLED_IN.file("/job/code.py", source).run(
        "python3",
        "-I",
        "/job/call.py",
        name,
        input=json.dumps(arguments),
        timeout=timeout,
        max_output="1M",
        check=True,
    )
    return json.loads(done.stdout)


print(call(UNTRUSTED, "count_words", text="to be or not to be"))  # {'to': 2, 'be': 2, 'or': 1, 'not': 1}

CURIOUS = """
import os, socket

def read_keys():
    return os.listdir("/root") + os.listdir("/home")

def call_home():
    socket.create_connection(("192.0.2.1", 80), timeout=1)

def deface():
    open("/usr/bin/python3", "w")

def spin():
    while True:
        pass
"""

for name in ("call_home", "deface"):
    try:
        call(CURIOUS, name)
    except CommandFailed as error:
        print(name, "->", error.result.stderr.splitlines()[-1])

try:
    call(CURIOUS, "spin", timeout=0.3)
except CommandTimeout as error:
    print("spin -> timed out:", error.result.timed_out)

print("keys ->", call(CURIOUS, "read_keys"))

from concurrent.futures import ThreadPoolExecutor

texts = ["a b a", "c", "d d d"]
with ThreadPoolExecutor(4) as pool:
    counted = list(pool.map(lambda text: call(UNTRUSTED, "count_words", text=text), texts))
print(counted)  # [{'a': 2, 'b': 1}, {'c': 1}, {'d': 3}]
