# SPDX-License-Identifier: MIT
#
# fork.py - for t/fork.t: vfun.py and processes: an instance that is open when its process forks
import gc
import hashlib
import multiprocessing
import os
import sys

import vfun


def digest(data):
    return hashlib.sha256(data).hexdigest()


def use(f, who):
    for i in range(100):
        data = f"{who} {i}".encode() * 50
        if f(data) != digest(data):
            return "wrong"
    return "right"


def in_child(f, queue):
    try:
        queue.put(use(f, "child"))
    except vfun.Error as e:
        with vfun.open("sha256") as own:
            queue.put(f"{e}; its own: {use(own, 'own')}")


with vfun.open("sha256", slots=4) as f:
    fork = multiprocessing.get_context("fork")
    for together in False, True:
        queue = fork.Queue()
        child = fork.Process(target=in_child, args=(f, queue))
        child.start()
        if together:
            print("parent, meanwhile:", use(f, "parent"))
        print("child:", queue.get())
        child.join()
        print("parent:", use(f, "parent"))
    sys.stdout.flush()
    flight = f.submit(b"in flight")
    pid = os.fork()
    if not pid:
        del flight
        gc.collect()
        sys.exit(0)  # leaves both blocks
    print("child that leaves the block:", os.waitpid(pid, 0)[1])
    print("in flight:", "right" if flight.result() == digest(b"in flight") else "wrong")
    print("parent:", use(f, "parent"))
