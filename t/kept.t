#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# kept.t - a child of the launcher that was taken over can't make it wait, by descriptors whose close() does
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

requires('root');

mkdir tmp('mount');
my $r = run(['gcc', qw(-O1 -g -std=gnu11 -D_GNU_SOURCE -o), tmp('kept'), 't/lib/kept.c', (map { "roles/daemon/$_.c" } qw(kept closer later rate rules)),
	(map { "roles/common/$_.c" } qw(fd keep log loop numbers sandbox trusted)), "proto/plain.c", qw(-lseccomp -lcap-ng)]);
is($r->{status}, 0, 'a launcher') or diag($r->{err});
$r = run([tmp('kept'), tmp('mount')], timeout => 60);
is($r->{out}, "ok\n", 'keeps what it may, closes nothing else, and waits for nobody') or diag($r->{err});
like($r->{err}, qr/sent what can't be closed: given up$/m, 'who sends too much is given up');
done_testing();
