#!/usr/bin/env bash
# Runs a program and ends it, with all programs that it started, when standard input ends. That happens however the
# program that started this script ends.
set -m
"$@" </dev/null &
program=$!
{
    cat >/dev/null
    kill -KILL -- "-$program"
} <&0 2>/dev/null &
wait "$program"
