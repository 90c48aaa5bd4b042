#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# upstream.t - the programs of t/upstream, which show faults of others, run to an answer: they are there, or they were mended
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

requires('tree');

for my $how ('stopped', 'reset') {
	my $r = run(['python3', 't/upstream/qemu-shmem.py', $how, "$TREE/qemu"], timeout => 100);
	like($r->{out}, qr/^$how: QEMU (?:lives|ended with -\d+)$/, "qemu-shmem.py $how") or diag($r->{err});
	is($r->{status}, $r->{out} =~ /lives/ ? 0 : 1, 'its status says which');
	diag($r->{out});
}
is_deeply([still(qr/^qemu|^ld-linux/)], [], 'nothing is left');
done_testing();
