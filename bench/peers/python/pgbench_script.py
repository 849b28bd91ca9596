"""A pgbench script that runs one of the store's statements exactly as the server was sent it.

    pgbench_script.py LOG DATABASE NUMBER STATEMENTS > SCRIPT

LOG is the server's log, in CSV, in which each writer's one execution with NUMBER among its parameters is found, with its
text and its parameters. The parameters go into the table `pgbench_writers` of the database (DATABASE_URL), a row a writer; its
copies are what pgbench runs against, each client as one of the writers.

Three things are needed to have pgbench run the text as it is:

- pgbench computes nothing but numbers. So a transaction of the script asks once for the ids and versions of its STATEMENTS
  executions, which are what the captured parameters hold with another number, and then runs them one after another.
- It would number the parameters anew as they occur in a text; a comment that names them all in order keeps their numbers.
- It says nothing of the parameters' types, which the store does. They come out of the parse tree in the log, and go into a
  common table expression that nothing refers to: the parser learns the types from it, and the planner leaves it out.
"""

import csv
import os
import re
import sys

import psycopg

DATABASE, MESSAGE, DETAIL, QUERY = 2, 13, 14, 19
EXECUTE = re.compile(r"execute [^:]+: ", re.S)
PARAMETER = re.compile(r"\$(\d+) = (NULL|'((?:[^']|'')*)')", re.S)
PARAMETER_TYPE = re.compile(r":paramkind\s+0\s+:paramid\s+(\d+)\s+:paramtype\s+(\d+)")
# What pgbench would take for one of its variables.
VARIABLE = re.compile(r"(?<!:):[A-Za-z0-9_]")


def captured(log, database, number):
    """The statement's text, the types of its parameters as object ids, and the parameters of each execution, oldest first."""
    texts, types, rows = set(), {}, []
    csv.field_size_limit(1 << 24)
    for line in csv.reader(log):
        if line[DATABASE] != database:
            continue
        if line[MESSAGE] == "parse tree:":
            types[line[QUERY]] = {int(n): oid for n, oid in PARAMETER_TYPE.findall(line[DETAIL])}
        elif line[DETAIL].startswith("parameters: ") and number in line[DETAIL]:
            texts.add(EXECUTE.sub("", line[MESSAGE], count=1))
            values = {int(match[1]): match[3] for match in PARAMETER.finditer(line[DETAIL])}
            rows.append([None if values[n] is None else values[n].replace("''", "'") for n in sorted(values)])
    if len(texts) != 1:
        sys.exit(f"the operation is {len(texts)} statements, not one")
    text = texts.pop()
    if VARIABLE.search(text):
        sys.exit("pgbench would take a part of the statement for a variable")
    if any(value is None for row in rows for value in row):
        sys.exit("pgbench cannot send NULL as a parameter")
    return text, types[text], rows


def typed(text, types, connection):
    """The text with the types of its parameters."""
    names = {n: connection.execute("SELECT %s::oid::regtype::text", [oid]).fetchone()[0] for n, oid in types.items()}
    casts = ", ".join(f"${n}::{names[n]}" for n in sorted(names))
    known = f"pgbench_types AS (SELECT {casts})"
    with_, rest = re.match(r"\s*(WITH\s+(?:RECURSIVE\s+)?)?(.*)", text, re.S | re.I).groups()
    return f"{with_}{known}, {rest}" if with_ else f"WITH {known} {rest}"


def store(rows, connection):
    columns = ", ".join(f"p{n} text" for n in range(1, len(rows[0]) + 1))
    connection.execute("DROP TABLE IF EXISTS pgbench_writers")
    connection.execute(f"CREATE TABLE pgbench_writers (writer int PRIMARY KEY, {columns})")
    for writer, row in enumerate(rows):
        places = ", ".join(["%s"] * (len(row) + 1))
        connection.execute(f"INSERT INTO pgbench_writers VALUES ({places})", [writer, *row])


def script(text, rows, number, statements):
    count = len(rows[0])
    varying = [n for n in range(1, count + 1) if number in rows[0][n - 1]]
    constant = [n for n in range(1, count + 1) if n not in varying]
    print(r"\if :known = 0")
    print(f"SELECT {', '.join(f'p{n} AS c{n}' for n in constant)} FROM pgbench_writers WHERE writer = :client_id::int \\gset")
    print(r"\set known 1")
    print(r"\endif")
    values = ", ".join(
        f"replace(p{n}, '{number}', (first + {k})::text) AS v{k}_{n}"
        for k in range(1, statements + 1)
        for n in varying
    )
    print(
        f"SELECT {values} FROM pgbench_writers,"
        " (SELECT (110 + :client_id::bigint) * 10000000 + :stored::bigint AS first) AS numbers"
        r" WHERE writer = :client_id::int \gset"
    )
    print(rf"\set stored :stored + {statements}")
    for k in range(1, statements + 1):
        names = " ".join(f":v{k}_{n}" if n in varying else f":c{n}" for n in range(1, count + 1))
        print(f"/* {names} */ {text};")


if __name__ == "__main__":
    log, database, number, statements = sys.argv[1:]
    with open(log, newline="") as file:
        text, types, rows = captured(file, database, number)
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        store(rows, connection)
        text = typed(text.strip().rstrip(";"), types, connection)
    script(text, rows, number, int(statements))
