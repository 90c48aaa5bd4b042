#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# launch.t - an engine that was taken over gets no more services from the launcher than vfun.conf allows, each with a uid of
# its own
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

my $r = run(['gcc', qw(-O1 -g -std=gnu11 -D_GNU_SOURCE -o), tmp('launch'), 't/lib/launch.c', 'roles/daemon/services.c',
	qw(roles/daemon/held.c roles/daemon/refused.c roles/daemon/rate.c proto/plain.c), map { "roles/common/$_.c" } qw(fd log loop numbers)]);
is($r->{status}, 0, 'a launcher') or diag($r->{err});
is(run([tmp('launch')], timeout => 30)->{out}, "ok\n", 'counts again, and gives no uid twice');
done_testing();
