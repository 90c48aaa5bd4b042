#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# readonly.t - where the mount is read-only for a process, as systemd makes it (ProtectSystem=strict, DynamicUser=yes), each
# client says what the unit needs
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

requires('root');

# What a guest has: a file called control.
mkdir tmp('mount');
spew(tmp('mount/control'), '');
my $dir = tmp('mount');
my @readonly = ('unshare', '-m', 'sh', '-c', 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"', $dir);
my $text = qr/\Q$dir\E is read-only for this process: add ReadWritePaths=\Q$dir\E to its systemd unit/;
like(run([@readonly, $VFUN, 'call', '--run', $dir, 'factorial', 5])->{err}, $text, 'vfun call');
like(run([@readonly, $VFUN, 'list', '--run', $dir])->{err}, qr/read-only for this process: add ReadWritePaths=/, 'vfun list');
like(run([@readonly, 'python3', '-c', "import sys; sys.path.insert(0, 'proto'); import vfun; vfun.open('factorial', run='$dir')"])->{err}, $text, 'vfun.py');
done_testing();
