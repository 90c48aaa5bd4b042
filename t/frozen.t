#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# frozen.t - clients of earlier versions of the protocol, one for each, kept as they were: they get what they were promised
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;
use Python;

for my $workers (1, 4) {
	# A service that never spins is asleep whenever a client rings.
	my $d = Vfun->new(conf => "[function factorial]\nspin = 0\nworkers = $workers\n[function sha256]\n[host]\nfunctions = factorial sha256\n");
	ok($d->up, "vfund, $workers workers") or BAIL_OUT($d->log);
	for my $version (map { $_->[0] =~ /client-(\S+)\.py/ } map { [$_] } sort glob 't/frozen/client-*.py') {
		my $r = run([host_python(), "t/frozen/client-$version.py", $workers], env => { VFUN_RUN_DIR => $d->{run} }, timeout => 90);
		is($r->{status}, 0, "a client of version $version, $workers workers") or diag($r->{err}, $d->log);
		is($r->{out}, "ok $version\n", 'comes to its end');
	}
	ok(wait_until(10, sub { vfun('status', '--run', $d->{run})->{out} !~ /factorial/ }), 'nothing is left of them');
	is_deeply([$d->down], [], 'vfund stops and leaves nothing');
}
done_testing();
