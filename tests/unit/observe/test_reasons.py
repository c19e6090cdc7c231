"""The end of a log, and the reason that is shown for it."""

import pytest

from crossfold_operator.observe.reasons import REASON_LIMIT, reason_of

FRAME = '  File "/usr/lib/python3/run.py", line 7, in step\n    return self.forward(x)\n           ^^^^^^^^^^^^^^^\n'
HEAD = "Traceback (most recent call last):\n"
DURING = "During handling of the above exception, another exception occurred:"
CAUSE = "The above exception was the direct cause of the following exception:"
GROUP = """  + Exception Group Traceback (most recent call last):
  |   File "a.py", line 1, in f
  |     g()
  | ExceptionGroup: two (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | ValueError: a
    +------------------------------------
"""
THROWN = "terminate called after throwing an instance of 'std::bad_alloc'"
EPOCH = "epoch 3/10 loss=0.1 val/JaccardIndex=0.5 score=0.5 best 1.2s\n"


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (f"{EPOCH}{HEAD}{FRAME}TypeError: no such thing", "TypeError: no such thing"),
        (f"{HEAD}{FRAME}AssertionError\n", "AssertionError"),
        (f"{HEAD}{FRAME}torch.OutOfMemoryError: full\n", "torch.OutOfMemoryError: full"),
        (f"{HEAD}{FRAME}struct.error: short\n", "struct.error: short"),
        # The limit has cut its beginning off.
        (f"^^^^^^^^^^\n{FRAME}{FRAME}ValueError: bad\n", "ValueError: bad"),
        (f'on3/run.py", line 7, in step\n    f(x)\n    ^^^^\n{FRAME}ValueError: bad', "ValueError: bad"),
        # Nothing but the end of the message is in sight, or nothing but the exception.
        ("    ^^^^^^^\nValueError: bad\n", "ValueError: bad"),
        ("t four, not five\nexpected six", "expected six"),
        # One exception after another: the last one ended the process.
        (
            f"{HEAD}{FRAME}KeyError: 'a'\n\n{DURING}\n\n{HEAD}{FRAME}RuntimeError: second\n",
            "RuntimeError: second",
        ),
        (
            f"KeyError: 'a'\n\n{CAUSE}\n\n{HEAD}{FRAME}RuntimeError: second\n",
            "RuntimeError: second",
        ),
        # A message of several lines begins beside the type.
        (f"{HEAD}{FRAME}RuntimeError: first line\n  second line\nThird: line\n", "RuntimeError: first line"),
        (
            f"{HEAD}{FRAME}RuntimeError: Caught ValueError in worker 0.\nOriginal {HEAD}{FRAME}ValueError: inner\n",
            "ValueError: inner",
        ),
        (f"{HEAD}{FRAME}Unsupported: graph break\n\nfrom user code:\n{FRAME}\nSet X=1 for more", "Unsupported: graph break"),
        # The trainer's last line, log lines, and what other threads and the interpreter's end say.
        (f"{HEAD}{FRAME}OSError: gone\ncrash (exit 1): OSError: gone\n", "OSError: gone"),
        (f"{HEAD}{FRAME}OSError: gone\n{EPOCH}Bye: bye\n", "OSError: gone"),
        (f"{HEAD}{FRAME}{EPOCH}{FRAME}OSError: gone\n", "OSError: gone"),
        (
            f"{HEAD}{FRAME}OSError: gone\n/usr/lib/tracker.py:254: UserWarning: there are 3 leaked semaphores\n  warn(\n",
            "OSError: gone",
        ),
        (f"{HEAD}{FRAME}OSError: gone\nException in thread Thread-3:\n{HEAD}{FRAME}EOFError\n", "OSError: gone"),
        (f"Exception in thread Thread-3:\n{HEAD}{FRAME}EOFError\n", "EOFError"),
        (f"{HEAD}{FRAME}OSError: gone\nException ignored in: <f>\n{HEAD}{FRAME}EOFError\n", "OSError: gone"),
        # Groups.
        (
            GROUP,
            "ExceptionGroup: two (2 sub-exceptions)",
        ),
        # Not Python's.
        ("loading\ntrainer: error: unrecognised argument --x\n\n", "trainer: error: unrecognised argument --x"),
        ("ValueError: bad\ngoodbye\n", "ValueError: bad"),
        ("", "the container ended with exit code 1"),
        (" \n\n", "the container ended with exit code 1"),
    ],
)  # fmt: skip
def test_reason(log: str, reason: str) -> None:
    assert reason_of(log, 1) == reason


@pytest.mark.parametrize(
    ("log", "exit_code", "reason"),
    [
        (EPOCH, 139, "ended by SIGSEGV (exit code 139)"),
        ("", 139, "ended by SIGSEGV (exit code 139)"),
        (
            'Fatal Python error: Segmentation fault\n\nCurrent thread 0x1 (most recent call first):\n  File "a", line 1',
            139,
            "Fatal Python error: Segmentation fault; ended by SIGSEGV (exit code 139)",
        ),
        (
            f"{EPOCH}{THROWN}\n  what():  std::bad_alloc\n",
            134,
            f"{THROWN}: std::bad_alloc; ended by SIGABRT (exit code 134)",
        ),
        # What went wrong first, and what its end then came to.
        (
            f"{HEAD}{FRAME}OSError: gone\nterminate called without an active exception\n",
            134,
            "OSError: gone; ended by SIGABRT (exit code 134)",
        ),
        (None, 143, "ended by SIGTERM (exit code 143)"),
        (None, 128, "the container ended with exit code 128"),
        (None, 255, "the container ended with exit code 255"),
        (None, None, ""),
    ],
)
def test_ends_by_a_signal(log: str | None, exit_code: int | None, reason: str) -> None:
    assert reason_of(log or "", exit_code) == reason


def test_a_process_that_was_killed_without_a_word() -> None:
    reason = reason_of(EPOCH, 137)
    assert reason.startswith("ended by SIGKILL (exit code 137): ")
    assert "spec.template.resources.limits.memory" in reason


def test_a_reason_is_bounded_and_begins_with_its_beginning() -> None:
    reason = reason_of(f"{HEAD}{FRAME}ValueError: {'x' * 2000}\n", 1)
    assert reason.startswith("ValueError: xxx")
    assert len(reason) == REASON_LIMIT
    long = reason_of(f"{HEAD}{FRAME}ValueError: {'x' * 2000}\n", 134)
    assert long.endswith("ended by SIGABRT (exit code 134)")
