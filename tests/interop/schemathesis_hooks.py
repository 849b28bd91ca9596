"""What a client of the API has to do that no schema can say."""

import os
import re
from itertools import count

import schemathesis

# The document's example of a run's id, and a run that there is.
EXAMPLE, RUN_ID = os.environ["HOLDFAST_EXAMPLE_RUN_ID"], os.environ["HOLDFAST_RUN_ID"]
questions = count()


@schemathesis.hook
def before_call(context, case, **kwargs):
    # A new question takes a new key: the same key with another body is refused, as it should be.
    key = (case.headers or {}).get("Idempotency-Key")
    if key is not None and re.fullmatch("[!-~]{1,255}", key):
        case.headers["Idempotency-Key"] = f"{key[:200]}-{next(questions)}"
    # Who looks at a run has one.
    for part in (case.path_parameters, case.body):
        if isinstance(part, dict) and part.get("run_id") == EXAMPLE:
            part["run_id"] = RUN_ID
