from pycontain import Container

box = Container("host:")
done = box.run("echo", "hello from inside")

print(done.stdout)  # hello from inside
print(done.exit_code, done.ok)  # 0 True

done = box.run("sh", "-c", "echo to stdout; echo to stderr >&2; exit 3")

print(done.stdout, done.stderr, done.exit_code)  # to stdout to stderr 3

print(box.run("hostname").stdout)  # …
print(box.run("ls", "/home", "/root").stdout)  # /home: /root:
print(box.run("ls", "/sys/class/net").stdout)  # lo
print(box.run("sh", "-c", "ls -d /proc/[0-9]* | wc -l").stdout)  # …

print(box.run("sh", "-c", "echo x > /note; cat /note").stdout)  # x
print(box.run("cat", "/note").exit_code)  # 1
print(box.run("touch", "/usr/bin/note").ok)  # False

greeter = box.env(NAME="Ada").hostname("greeter").file("/greeting", "Hello, ")

print(greeter.run("sh", "-c", "cat /greeting; echo $NAME from $(hostname)").stdout)  # Hello, Ada from greeter
print(greeter == box, box.env(A="1") == box.env(A="1"))  # False True

from pycontain.errors import CommandFailed, CommandTimeout

print(box.run("tr", "a-z", "A-Z", input="quiet please").stdout)  # QUIET PLEASE

try:
    box.run("sleep", "60", timeout=0.2)
except CommandTimeout as error:
    print(error)  # 'sleep 60' did not end within 0.2 s and was killed

try:
    box.run("ls", "/nothing", check=True)
except CommandFailed as error:
    print(error.result.exit_code)  # 2

with box.start("sleep", "infinity") as running:
    running.exec("sh", "-c", "echo kept > /note", check=True)
    print(running.exec("cat", "/note").stdout)  # kept
    print(running.status)  # running

print(running.status)  # exited

plan = box.plan("echo", "hello")

print(len(plan) > 50)  # True
print(str(plan).splitlines()[1])  # 0 zygote clone3(… # own mounts, processes, …
