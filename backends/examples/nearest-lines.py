#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""nearest-lines.py - a guest's program for nearest: which line of a table is most like mine?

	nearest-lines.py TABLE <QUERIES

Both are lines of as many numbers each. The table is handed over once; for each line of standard input, the most similar
line of the table is printed. Needs nothing but Python and vfun.py.
"""
import sys

import vfun


def lines(file):
    return [[float(x) for x in line.split()] for line in file if line.strip()]


def main():
    with open(sys.argv[1]) as file:
        table = lines(file)
    with vfun.open("nearest", arena=len(table) * len(table[0]) * 4 + (1 << 20)) as nearest:
        nearest.set(base=table)
        for query in lines(sys.stdin):
            print(*table[nearest([query])[0]])


main()
