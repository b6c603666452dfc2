"""The output of a process, line by line as it comes, to search and to wait for."""

import contextlib
import re
import threading
import time


class Log:
    """Collects the lines of one pipe after the other; may be read while it grows."""

    def __init__(self):
        self._lines, self._changed = [], threading.Condition()
        self._copy, self._reader, self._is_open = None, None, False

    def copy_to(self, path):
        """Write every line to a file as well, from the next follow() on."""
        self._copy = path

    def follow(self, pipe):
        """Read a binary pipe to its end, in a thread. The one before must have ended."""
        self._is_open = True
        self._reader = threading.Thread(target=self._read, args=(pipe,), daemon=True)
        self._reader.start()

    def close(self, timeout=5.0):
        """Wait for the end of the pipe, which all writers must have closed."""
        if self._reader:
            self._reader.join(timeout)

    def _read(self, pipe):
        with contextlib.ExitStack() as files:
            files.enter_context(pipe)
            copy = files.enter_context(open(self._copy, "ab", buffering=0)) if self._copy else None
            for line in pipe:
                if copy:
                    copy.write(line)
                text = line.decode(errors="replace").rstrip("\n")
                with self._changed:
                    self._lines.append(text)
                    self._changed.notify_all()
        with self._changed:
            self._is_open = False
            self._changed.notify_all()

    def mark(self):
        """Where the log ends now: a place to look from later."""
        with self._changed:
            return len(self._lines)

    def lines(self, since=0):
        with self._changed:
            return self._lines[since:]

    def text(self, since=0):
        return "".join(line + "\n" for line in self.lines(since))

    def find(self, pattern, since=0):
        """The first match of a regular expression in a line, or None."""
        return next(iter(self.find_all(pattern, since)), None)

    def find_all(self, pattern, since=0):
        found = (re.search(pattern, line) for line in self.lines(since))
        return [match for match in found if match]

    def wait_for(self, pattern, timeout=20.0, since=0):
        """The first match, as soon as its line is there. Fails at once when the log has ended."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                for line in self._lines[since:]:
                    if match := re.search(pattern, line):
                        return match
                since = max(since, len(self._lines))
                if not self._is_open:
                    raise AssertionError(f"the log ended without a line like {pattern!r}")
                if not self._changed.wait(deadline - time.monotonic()):
                    raise AssertionError(f"no line like {pattern!r} within {timeout:g} s")
