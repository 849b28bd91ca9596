"""A pgbench script that runs one of the store's statements exactly as the server was sent it.

    pgbench_script.py LOG DATABASE NUMBER STATEMENTS > SCRIPT

LOG is the server's log, in CSV, in which each writer's one execution with NUMBER among its parameters is found, with its
text and its parameters. The parameters go into the table `pgbench_writers` of the database (DATABASE_URL), a row a writer; its
copies are what pgbench runs against, each client as one of the writers.

pgbench can only compute numbers. So a transaction of the script asks once for the ids and versions of its STATEMENTS
executions, which are what the captured parameters hold with another number, and then runs them one after another. pgbench
would also number the parameters anew as they occur in a text; a comment that names all of them in order keeps the statement's
own numbers.
"""

import csv
import os
import re
import sys

import psycopg

MESSAGE, DETAIL, DATABASE = 13, 14, 2
EXECUTE = re.compile(r"execute [^:]+: ", re.S)
PARAMETER = re.compile(r"\$(\d+) = (NULL|'((?:[^']|'')*)')", re.S)
# What pgbench would take for one of its variables.
VARIABLE = re.compile(r"(?<!:):[A-Za-z0-9_]")


def executions(log, database, number):
    """The statement's text, and the parameters of each execution, oldest first."""
    texts, rows = set(), []
    csv.field_size_limit(1 << 24)
    for line in csv.reader(log):
        if line[DATABASE] != database or not line[DETAIL].startswith("parameters: ") or number not in line[DETAIL]:
            continue
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
    return text.strip().rstrip(";"), rows


def store(rows):
    columns = [f"p{n}" for n in range(1, len(rows[0]) + 1)]
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        connection.execute("DROP TABLE IF EXISTS pgbench_writers")
        connection.execute(f"CREATE TABLE pgbench_writers (writer int PRIMARY KEY, {', '.join(f'{c} text' for c in columns)})")
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
        f"replace(p{n}, '{number}', lpad((first + {k})::text, {len(number)}, '0')) AS v{k}_{n}"
        for k in range(1, statements + 1)
        for n in varying
    )
    print(
        f"SELECT {values} FROM pgbench_writers,"
        " (SELECT :client_id::bigint * 1000000000 + :stored::bigint AS first) AS numbers"
        r" WHERE writer = :client_id::int \gset"
    )
    print(rf"\set stored :stored + {statements}")
    for k in range(1, statements + 1):
        names = " ".join(f":v{k}_{n}" if n in varying else f":c{n}" for n in range(1, count + 1))
        print(f"/* {names} */ {text};")


if __name__ == "__main__":
    log, database, number, statements = sys.argv[1:]
    with open(log, newline="") as file:
        text, rows = executions(file, database, number)
    store(rows)
    script(text, rows, number, int(statements))
