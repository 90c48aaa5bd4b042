#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# timeout.t - when a call doesn't end as it should: signals, in C; in Python a signal's exception wherever it hits, threads
# that share an instance, no descriptors, an instance that ends before its answers are taken. What times out is in
# t/python.t, on every path; and in t/texts.t for C
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Python;
use Vfun;

my $d = Vfun->new;
ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');
my %env = (VFUN_RUN_DIR => $d->{run}, PYTHONPATH => 'proto', PYTHONDONTWRITEBYTECODE => 1);

my $r = run([host_python(), '-W', 'error', 't/lib/interrupted.py', $VFUN], env => \%env);
is($r->{out}, "ok\n", 'the next call is right, and nothing is lost') or diag($d->log);
is($r->{err}, '', 'without a word');
is(run([client('signals')], env => \%env)->{out}, "ok\n", 'in C: signals interrupt each system call') or diag($d->log);
is(() = vfun('status', '--run', $d->{run})->{out} =~ /\bactive\b/g, 0, 'every instance is given back');
is_deeply([$d->down], [], 'vfund stops and leaves nothing');
done_testing();
