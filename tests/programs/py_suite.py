"""Runs one of CPython's own test modules and writes how each of its tests ended, sorted, one a line.

Arguments: file for the result, module (test.test_fork1), patterns of test ids to leave out.
Exit status 0: the module could be run, whatever its tests said; 5: it is not there.

SPDX-License-Identifier: Apache-2.0
"""

import fnmatch
import sys
import unittest


class Outcomes(unittest.TestResult):
    def __init__(self):
        super().__init__()
        self.lines = []

    def note(self, test, outcome):
        self.lines.append("%s %s" % (test.id(), outcome))

    def addSuccess(self, test):
        self.note(test, "ok")

    def addError(self, test, err):
        super().addError(test, err)
        self.note(test, "error: %s" % err[0].__name__)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.note(test, "failure")

    def addSkip(self, test, reason):
        self.note(test, "skipped")

    def addExpectedFailure(self, test, err):
        self.note(test, "expected failure")

    def addUnexpectedSuccess(self, test):
        self.note(test, "unexpected success")

    def addSubTest(self, test, subtest, err):
        if err:
            self.note(subtest, "failure")


def flatten(suite):
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from flatten(item)
        else:
            yield item


def keep_fixtures(suite, left_out):
    """The suite in its own order and grouping (module and class fixtures), without some tests."""
    kept = unittest.TestSuite()
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            kept.addTest(keep_fixtures(item, left_out))
        elif not any(fnmatch.fnmatch(item.id(), pattern) for pattern in left_out):
            kept.addTest(item)
    return kept


def main():
    try:
        from test import support
    except ImportError:
        return 5
    support.use_resources = []
    suite = unittest.defaultTestLoader.loadTestsFromName(sys.argv[2])
    if not any(not t.id().startswith("unittest.loader") for t in flatten(suite)):
        return 5
    result = Outcomes()
    keep_fixtures(suite, sys.argv[3:]).run(result)
    with open(sys.argv[1], "w", encoding="utf-8") as out:
        out.write("".join(line + "\n" for line in sorted(result.lines)))
        out.write("tests run: %d\n" % result.testsRun)
    for test, trace in result.failures + result.errors:
        print(test, trace, sep="\n", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
