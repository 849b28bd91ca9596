"""The plans of the operations of `postgres_scale run`, as auto_explain put them into the server's log.

    plans.py LOG LARGE SMALL     prints those of the database LARGE, and says where those of SMALL have other steps

A claim is followed by what gives it back, which is a statement of its own.
"""

import csv
import re
import sys

DATABASE, MESSAGE = 2, 13
HEADING = re.compile(r"SELECT 'operation: (.*)'")


def plans(path, database):
    """The last plan of each statement of each operation, without the statement."""
    found, heading = {}, None
    csv.field_size_limit(1 << 24)
    with open(path, newline="") as log:
        for line in csv.reader(log):
            head, _, rest = line[MESSAGE].partition("plan:\nQuery Text: ")
            if line[DATABASE] != database or not head.startswith("duration: ") or not rest:
                continue
            if operation := HEADING.match(rest):
                heading = f"{len(found) + 1}. {operation[1]}"
                found[heading] = {}
            elif heading:
                # A plan's first line is the first one that tells its cost.
                lines = rest.split("\n")
                begin = next(number for number, text in enumerate(lines) if "  (cost=" in text)
                found[heading]["\n".join(lines[:begin])] = (head.removeprefix("duration: ").strip(), lines[begin:])
    return found


def steps(lines):
    """The nodes of a plan, without their figures."""
    return [line.split("  (cost=")[0].strip() for line in lines if "  (cost=" in line]


if __name__ == "__main__":
    path, large, small = sys.argv[1:]
    others = plans(path, small)
    for heading, statements in plans(path, large).items():
        for text, (took, lines) in statements.items():
            print(f"\n-- {heading} ({took})")
            print("\n".join(lines))
            other = others.get(heading, {}).get(text)
            if other is None:
                print(f"-- not run in {small}")
            elif steps(other[1]) != steps(lines):
                print(f"-- other steps in {small} ({other[0]}):")
                print("\n".join(other[1]))
