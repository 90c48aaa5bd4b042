# SPDX-License-Identifier: MIT
#
# interrupted.py - for t/timeout.t, on the host: calls that a signal's exception ends wherever it hits, threads that share
# an instance, a process without descriptors, an instance that ends before its answers are taken
import errno
import gc
import hashlib
import math
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import threading
import time

import vfun


class Interrupt(BaseException):
    pass


def interrupt(*_):
    raise Interrupt


def digest(data):
    return hashlib.sha256(data).hexdigest()


def raises(kind, text, call):
    try:
        call()
    except kind as e:
        assert text in str(e), f"{text!r} is not in {e!r}"
        return e
    raise AssertionError(f"no {kind.__name__}")


# Interrupted at random: the next call is right, and in the end all slots and all room are there.
signal.signal(signal.SIGALRM, interrupt)
for slots in 1, 4:
    with vfun.open("sha256", slots=slots, arena=65536) as f:
        free = f.inputs.free[:]
        hits, tries = 0, 0
        while hits < 300:
            data = os.urandom(random.randrange(5000))
            tries += 1
            result = None
            try:
                try:
                    signal.setitimer(signal.ITIMER_REAL, random.random() * 0.001 + 1e-6)
                    result = f(data, random.choice((1, 1, 50)))
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except Interrupt:
                hits += 1
                continue
            assert result == digest(data), tries
        gc.collect()
        while any(f.flight):
            f.reset()
        assert f.inputs.free == free, f.inputs.free
        assert f(b"abc") == digest(b"abc")

# Threads take turns.
with vfun.open("sha256", slots=1) as f:
    wrong = []

    def use(name):
        for i in range(100):
            data = f"{name} {i}".encode() * 20
            if f(data) != digest(data):
                wrong.append(data)
    threads = [threading.Thread(target=use, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong, wrong
    raises(TypeError, "one process's", lambda: pickle.dumps(f))

# No descriptors left: it says so, and nothing leaks.
before = len(os.listdir("/proc/self/fd"))
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
for more in 0, 1, 2:
    resource.setrlimit(resource.RLIMIT_NOFILE, (before - 1 + more, hard))
    try:
        e = raises(OSError, "Too many open files", lambda: vfun.open("sha256"))
        assert e.errno == errno.EMFILE, e
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(os.listdir("/proc/self/fd")) == before

# Released by somebody else when the calls were answered, but not yet taken.
with vfun.open("factorial", slots=4) as f:
    calls = [f.submit(n) for n in (2000, 5, 7)]
    late = f.submit(9, 10 ** 9)
    while not f.inn.load32(f._offset(calls[2].request)) or not f.inn.load32(f._offset(calls[1].request)):
        time.sleep(0.01)
    subprocess.run([sys.argv[1], "release", str(f.instance)], check=True, stdout=subprocess.DEVNULL)
    while not f.inn.load32(vfun.GONE):
        time.sleep(0.01)
    raises(vfun.Error, "the service has ended", late.result)
    assert [c.result() for c in calls] == [math.factorial(2000), 120, 5040]
print("ok")
