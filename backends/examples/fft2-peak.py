#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""fft2-peak.py - a guest's program for fft2: which waves are in these planes?

	fft2-peak.py KX KY [KX KY ...]

Makes a plane of 256 x 256 numbers for each pair, a wave that goes KX times across and KY times down, has all of them
transformed by one call, and prints where each spectrum is largest. Needs nothing but Python and vfun.py.
"""
import array
import math
import sys

import vfun

SIDE = 256


def plane(kx, ky):
    numbers = array.array("f")
    for y in range(SIDE):
        for x in range(SIDE):
            angle = 2 * math.pi * ((kx * x + ky * y) % SIDE) / SIDE
            numbers.extend((math.cos(angle), math.sin(angle)))
    return numbers


def peak(spectrum):
    power = [spectrum[i] ** 2 + spectrum[i + 1] ** 2 for i in range(0, len(spectrum), 2)]
    at = power.index(max(power))
    return at % SIDE, at // SIDE


def main():
    waves = [int(k) % SIDE for k in sys.argv[1:]]
    planes = array.array("f")
    for kx, ky in zip(waves[::2], waves[1::2]):
        planes += plane(kx, ky)
    with vfun.open("fft2", arena=len(planes) * 4 + 4096) as fft2:
        spectra = memoryview(fft2(planes)).cast("B").cast("f")
    for i in range(0, len(spectra), 2 * SIDE * SIDE):
        print(*peak(spectra[i:i + 2 * SIDE * SIDE].tolist()))


main()
