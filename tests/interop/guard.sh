#!/usr/bin/env bash
# Runs a program that knows nothing of this test, and ends it, with all that it started, when standard input ends: then
# whoever started this has ended, in whatever way.
set -m
"$@" </dev/null &
program=$!
{
    cat >/dev/null
    kill -KILL -- "-$program"
} <&0 2>/dev/null &
wait "$program"
