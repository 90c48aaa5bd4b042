# SPDX-License-Identifier: MIT
#
# python.py - for t/python.t: vfun.py on one path, with the standard library alone
#
#	python.py PATH		prints "ok PATH", or says what isn't so
import array
import hashlib
import math
import os
import sys

import vfun

path = sys.argv[1]


def raises(kind, text, call):
    try:
        call()
    except kind as e:
        assert text in str(e), f"{text!r} is not in {e!r}"
        return e
    raise AssertionError(f"no {kind.__name__}")


data = os.urandom(200_000)
digest = hashlib.sha256(data).hexdigest()
with vfun.open("sha256", path=path) as f:
    assert f.path == path and f.signature.text == "data u8[*], reps u64 1.. default 1 -> digest hex[32]", f.signature.text
    for same in data, bytearray(data), memoryview(data), array.array("B", data), list(data):
        assert f(same) == digest, type(same)
    assert f(data=b"") == hashlib.sha256(b"").hexdigest()
    raises(ValueError, "the arena has", lambda: f(bytes(3 << 20)))
    raises(TypeError, "data is missing", f)
    raises(TypeError, "takes 2 arguments, not 3", lambda: f(data, 5, 6))
    raises(TypeError, "level is not an argument", lambda: f(data, level=5))
    raises(TypeError, "an array of u8 is wanted", lambda: f(array.array("d", [1])))
    if path != "copy":
        place = f.input(data=1000)
        place[:] = data[:1000]
        for i in range(300):
            assert f(place) == hashlib.sha256(data[:1000]).hexdigest()
        assert f.inputs.free[0][0] >= 1000, "a copy was made"
        del place

with vfun.open("factorial", path=path, slots=4) as f:
    assert f(51) == math.factorial(51) and f(n=3000, reps=2) == math.factorial(3000)
    for n in range(1000):
        assert f(n % 21) == math.factorial(n % 21)
    calls = [f.submit(n, out=None) for n in (5,)]
    assert calls[0].result() == 120
    raises(vfun.Error, "has been taken", calls[0].result)
    raises(ValueError, "reps: 0 is not 1..", lambda: f(5, 0))
    raises(ValueError, "n: -1 doesn't fit u64", lambda: f(-1))
    raises(TypeError, "not a whole number", lambda: f(1.5))
    raises(TypeError, "n is missing", f)
    raises(TypeError, "factorial has no set", lambda: f.set(5))
    f.reset()

with vfun.open("factorial", path=path, slots=4, arena=0) as f:
    calls = [f.submit(n) for n in range(4)]
    raises(vfun.Error, "as many calls are in flight", lambda: f.submit(5))
    assert [c.result() for c in reversed(calls)] == [6, 2, 1, 1]
    e = raises(vfun.Error, "room", lambda: f(1000))
    assert e.reason == 69, e.reason

with vfun.open("fibonacci", path=path) as f:
    call = f.submit(20000, 400)  # long enough to sleep
    raises(TimeoutError, "no answer in time", lambda: call.result(0.0))
    a, b = 0, 1
    for _ in range(20000):
        a, b = b, a + b
    assert call.result(60) == a
    assert f(90) == 2880067194370816120

# A call that timed out, and one whose result nobody takes, give back their slot and their room when they are answered; what
# they write then is nobody's.
for slots in 1, 2:
    with vfun.open("zstd", path=path, slots=slots, arena=1 << 20) as f:
        inputs, rooms = f.inputs.free[:], f.rooms.free[:]
        raises(TimeoutError, "no answer in time", lambda: f(data, 10 ** 6, timeout=0.01))
        packed = bytes(f(b"hello" * 1000, timeout=100))
        f.submit(data, 20)
        assert bytes(f(b"hello" * 1000, timeout=100)) == packed
        call = f.submit(data, 20)
        call.cancel()
        raises(vfun.Error, "has been taken", call.result)
        while any(f.flight):
            f.reset(timeout=100)
        assert (f.inputs.free, f.rooms.free, f.flight) == (inputs, rooms, [None] * slots), vars(f)

with vfun.open("sha256", path=path) as f:
    pass
raises(vfun.Error, "it was closed", lambda: f(b""))

assert raises(vfun.Error, "nosuch", lambda: vfun.open("nosuch", path=path)).reason == 3
raises(ValueError, "there is no path", lambda: vfun.open("sha256", path="sea"))
raises(vfun.Error, "no vfund and no share at /nowhere", lambda: vfun.open("sha256", run="/nowhere"))
raises(vfun.Error, "is not for a program", lambda: vfun.open("sha256", path="copy" if path == "host" else "host"))

pixels = bytes((x * 7 + y * 13 + c * 50) % 256 for y in range(40) for x in range(64) for c in range(3))


def mean(x, y, c, r):
    """As blur does: rows first, each rounded down."""
    rows = []
    for j in range(max(0, y - r), min(40, y + r + 1)):
        row = [pixels[(j * 64 + i) * 3 + c] for i in range(max(0, x - r), min(64, x + r + 1))]
        rows.append(sum(row) // len(row))
    return sum(rows) // len(rows)


with vfun.open("blur", path=path) as f:
    out = f(64, 40, 3, pixels)
    assert out.shape == (40, 64, 3) and isinstance(out, memoryview)
    for x, y in (0, 0), (3, 4), (63, 39), (30, 20), (1, 38):
        assert all(out[y, x, c] == mean(x, y, c, 3) for c in range(3)), (x, y)
    raises(ValueError, "frame: 7680 elements", lambda: f(65, 40, 3, pixels))
    if path != "copy":
        room = f.room(blurred=(40, 64, 3))
        assert f(64, 40, 3, pixels, out=room) is room and room.tolist() == out.tolist()
        del room

    careless = f.signature.text.replace("1..64", "")
with vfun.open("blur", path=path, signature=careless) as f:
    assert raises(vfun.Error, "blur: radius: 99 is not 1..64", lambda: f(64, 40, 99, pixels)).reason == 68

with vfun.open("nearest", path=path) as f:
    assert raises(vfun.Error, "", lambda: f([[1.0, 2.0]])).reason == 71  # no set before
    f.set(base=[[0, 0], [10, 10], [10, 0]])
    assert f([[9, 1], [1, 1], [8, 9]]).tolist() == [2, 0, 1]
    f.set(2, 3, array.array("f", [1, 1, 1, 5, 5, 5]))
    assert list(f(array.array("f", [4, 4, 4, 0, 0, 0]))) == [1, 0]
    raises(ValueError, "is not its d", lambda: f([[1, 2]]))
print("ok", path)
