import pycontain
from pycontain import Container

pycontain.prewarm()  # the first container will not wait for the zygote
box = Container("host:").tmpfs("/data")

done = box.run("sort", input="b\na\n")
html = done._repr_html_()  # what the notebook shows for a cell that ends in: done
report = pycontain.doctor()

print(html.startswith("<table>"), report.ok)  # True True

worker = box.start("sleep", "infinity")
worker.exec("sh", "-c", "seq 3 > /data/numbers", check=True)

print(worker.exec("sort", "-r", "/data/numbers").stdout.split())  # ['3', '2', '1']
worker.close()
print(worker)  # <Running … exited 'sleep infinity'>

import os
import signal
import threading

threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()  # instead of your finger
try:
    box.run("sleep", "60")
except KeyboardInterrupt:
    print("interrupted")  # interrupted
print(box.run("echo", "still here").stdout)  # still here
