"""The process that writes to MLflow: reads messages from stdin, answers each on stdout, ends when stdin does.

Does not know studies. It is a process of its own because importing MLflow and opening its store take seconds of CPU,
which must not delay a replay's event loop.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import TextIO

from reports.tracking_messages import MESSAGES, Answer, FinishStudy, LogTrial, StartStudy


def main(runs_dir: str) -> None:
    """Answer once when the store is open, then once a message."""
    answers = _own_stdout()
    try:
        from reports.tracking_store import TrackingStore

        store = TrackingStore(Path(runs_dir))
    except Exception as error:
        _answer(answers, error)
        return
    _answer(answers, None)
    for line in sys.stdin:
        try:
            _handle(store, MESSAGES.validate_json(line))
        except Exception as error:
            _answer(answers, error)
        else:
            _answer(answers, None)
    os._exit(0)  # everything is committed; an ordinary exit would take MLflow more than a second


def _handle(store: object, message: StartStudy | LogTrial | FinishStudy) -> None:
    from reports.tracking_store import TrackingStore

    assert isinstance(store, TrackingStore)
    match message:
        case StartStudy():
            store.start_study(message)
        case LogTrial():
            store.log_trial(message)
        case FinishStudy():
            store.finish_study(message)


def _own_stdout() -> TextIO:
    """The pipe to our parent; whatever else prints goes to stderr, the log file."""
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return pipe


def _answer(answers: TextIO, error: Exception | None) -> None:
    if error is not None:
        traceback.print_exception(error)
    sentence = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}" if error else ""
    answers.write(Answer(error=sentence).model_dump_json() + "\n")
    answers.flush()


if __name__ == "__main__":
    main(sys.argv[1])
